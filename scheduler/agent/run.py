"""What `python -m scheduler agent` puts together."""

import asyncio
import random
import signal
import socket
from collections.abc import Callable
from pathlib import Path

import click
import structlog

from . import cooling, nvml
from .agent import Agent, Machines
from .client import Device, NodeDescription, RefusedError, Scheduler, read_token
from .command import Commands
from .cooling import GIVE_BACK, Cards, Cooler, LimitError, Rules
from .host import Host, count_gpus
from .nvml import NvmlCards
from .synthetic import Synthetic, SyntheticCards

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
    cool: bool,
    cool_above: float,
    cool_until: float,
) -> None:
    if synthetic and (node or gpus or rack or allow_commands):
        raise click.UsageError(
            "--synthetic serves the fleet's own nodes; leave --node, --gpus, --rack and --allow-commands out"
        )
    if not cool_until < cool_above:
        raise click.UsageError(f"--cool-until {cool_until:g} must be under --cool-above {cool_above:g}")
    try:
        token = read_token(token_file or home / "token")
    except RefusedError as error:
        raise click.ClickException(str(error)) from error
    commands = Commands(home / "commands") if allow_commands else None
    rules = Rules(cool_above, cool_until) if cool else GIVE_BACK
    machines: Machines
    if synthetic:
        machines = fleet(synthetic, token)
        cooler = _cooler(lambda: SyntheticCards(synthetic, token), rules, home / "cooling" / "synthetic.json")
    else:
        described = describe(node, gpus, rack)
        machines = Host(described, commands)
        file = home / "cooling" / f"{described.name}.json"
        cooler = _cooler(lambda: NvmlCards(nvml.load(), described.name), rules, file)
    asyncio.run(_run(Agent(Scheduler(server, token), machines, cooler)))


def _cooler(cards: Callable[[], Cards], rules: Rules, file: Path) -> Cooler | None:
    """None where nothing is to be cooled, and nothing is left from an earlier agent that was."""
    if rules == GIVE_BACK and not cooling.read(file):
        return None
    try:
        return Cooler(cards(), rules, file)
    except LimitError as error:
        raise click.ClickException(str(error)) from error


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
    return NodeDescription(node or socket.gethostname(), rack or None, "real", tuple(devices))


async def _run(agent: Agent) -> None:
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await agent.run(stop)
    log.info("agent stopped")
