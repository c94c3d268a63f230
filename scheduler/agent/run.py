"""What `python -m scheduler agent` puts together."""

import asyncio
import random
import signal
import socket
from pathlib import Path

import click
import structlog

from .agent import Agent, Machines
from .client import Device, NodeDescription, RefusedError, Scheduler, read_token
from .command import Commands
from .host import Host, count_gpus
from .synthetic import Synthetic

log = structlog.get_logger()


def run(
    home: Path,
    token_file: Path | None,
    server: str,
    node: str | None,
    gpus: int | None,
    rack: str | None,
    synthetic: str | None,
    allow_commands: bool,
) -> None:
    if synthetic and (node or gpus or rack or allow_commands):
        raise click.UsageError(
            "--synthetic serves the fleet's own nodes; leave --node, --gpus, --rack and --allow-commands out"
        )
    try:
        token = read_token(token_file or home / "token")
    except RefusedError as error:
        raise click.ClickException(str(error)) from error
    commands = Commands(home / "commands") if allow_commands else None
    machines: Machines = Host(describe(node, gpus, rack), commands) if not synthetic else fleet(synthetic, token)
    asyncio.run(_run(Agent(Scheduler(server, token), machines)))


def fleet(url: str, token: str) -> Synthetic:
    return Synthetic(url, token, random.Random())  # noqa: S311 - nothing secret hangs on it


def describe(node: str | None, gpus: int | None, rack: str | None) -> NodeDescription:
    """This machine. Without a count its GPUs are those that the driver lists."""
    listed = count_gpus()
    if gpus is None and not listed:
        raise click.UsageError("nvidia-smi lists no GPU on this machine; say how many there are with --gpus")
    devices = listed or []
    if gpus is not None:
        devices = (devices + [Device(index) for index in range(len(devices), gpus)])[:gpus]
    return NodeDescription(node or socket.gethostname(), rack, "real", tuple(devices))


async def _run(agent: Agent) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await agent.run(stop)
    log.info("agent stopped")
