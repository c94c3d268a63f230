"""`python -m exporters synthetic | nvml | replay | record | convert`"""

from __future__ import annotations

import functools
import math
import os
import socket
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click
from starlette.routing import BaseRoute

from exporters import auth, dcgm, log, server, service
from exporters.discovery import Place
from exporters.synthetic.faults import KINDS

if TYPE_CHECKING:
    from exporters.synthetic.fleet import Fleet

Command = TypeVar("Command", bound=Callable[..., Any])


class _Finite(click.FloatRange):
    """NaN is in every range and infinity in an open one; neither is a time."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{number} is not a finite number.", param, ctx)
        return number


def _serving(command: Command) -> Command:
    """The options every server has."""
    for option in (
        click.option("--token-file", type=click.Path(path_type=Path), help="Bearer token.  [default: HOME/token]"),
        click.option(
            "--home",
            type=click.Path(path_type=Path, file_okay=False),
            default=".stethos",
            envvar="STETHOS_HOME",
            show_envvar=True,
            help="State folder.",
        ),
        click.option("--port", type=click.IntRange(0, 65535), default=9400, help="0 takes a free one."),
        click.option("--host", default="127.0.0.1", help="Address to listen on."),
        click.option(
            "--metric-names",
            "names",
            type=click.Choice(dcgm.NAMES),
            default="legacy",
            help="dcgm-exporter's names up to 4.8, from 4.9 (DCGM 4.7), or both. Without a confirmed new name, and so "
            "under the old one in every mode: MEM_COPY_UTIL, ENC_UTIL, DEC_UTIL, FB_FREE, FB_USED, FB_RESERVED, "
            "NVLINK_BANDWIDTH_TOTAL.",
        ),
    ):
        command = option(command)
    return command


def _fleet_shape(command: Callable[..., None]) -> Callable[..., None]:
    """The options that make a fleet; the command gets it as `fleet`."""

    @click.option("--nodes", type=click.IntRange(1, 5000), default=8, help="Nodes to start with.")
    @click.option("--gpus-per-node", type=click.IntRange(1, 16), default=8, help="GPUs in each.")
    @click.option("--gpus-per-rack", type=click.IntRange(1), default=32, help="GPUs that a rack holds.")
    @click.option(
        "--model",
        "models",
        type=click.Choice(["H100", "A100", "L40S", "RTX4090"]),
        multiple=True,
        default=["H100"],
        help="GPU model; several take turns from node to node.",
    )
    @click.option("--seed", type=click.IntRange(0), default=7, help="Same seed, same fleet.")
    @functools.wraps(command)
    def made(
        nodes: int, gpus_per_node: int, gpus_per_rack: int, models: tuple[str, ...], seed: int, **rest: Any
    ) -> None:
        from exporters.synthetic import fleet

        command(fleet=fleet.build(nodes, gpus_per_node, gpus_per_rack, models, seed), **rest)

    return made


def _serve(
    source: service.Source,
    *,
    title: str,
    routes: Sequence[BaseRoute] = (),
    host: str,
    port: int,
    home: Path,
    token_file: Path | None,
) -> None:
    try:
        token = auth.load(token_file or home / "token")
        listener = server.listen(host, port)
    except (auth.TokenError, server.AddressError) as error:
        raise click.ClickException(str(error)) from None
    server.serve(
        service.build(source, token=token, open_reads=auth.is_loopback(host), routes=routes, title=title),
        listener,
    )


@click.group(context_settings={"show_default": True, "auto_envvar_prefix": "STETHOS"})
def main() -> None:
    """GPU telemetry for Prometheus, under DCGM's names."""
    log.configure()


@main.command()
@_fleet_shape
@click.option("--speed", type=_Finite(0.1, 1000), default=1.0, help="Fleet seconds per second.")
@click.option("--chaos/--no-chaos", default=False, help="Random faults: 5 to 12 % per minute and node, 30 s each.")
@click.option("--upkeep/--no-upkeep", default=False, help="Driver restarts, missed scrapes, maintenance reboots.")
@_serving
def synthetic(fleet: Fleet, speed: float, chaos: bool, upkeep: bool, names: dcgm.Names, **where: Any) -> None:
    """Serve a causal synthetic fleet, with loads and faults by HTTP."""
    from exporters.synthetic.control import Control
    from exporters.synthetic.source import SyntheticSource

    source = SyntheticSource(fleet, speed, names=names)
    source.begin(chaos=chaos, upkeep=upkeep)
    _serve(source, title="Stethos: synthetic fleet", routes=Control(source).routes(), **where)


@main.command()
@click.option("--node", default=socket.gethostname, show_default="this machine's name", help="Node name.")
@click.option("--rack", default="", help="Rack, for discovery.")
@click.option("--interval", type=_Finite(0.5, 300), default=5.0, help="Seconds between readings.")
@click.option("--processes/--no-processes", default=False, help="Memory of each process on a GPU.")
@click.option(
    "--hpc-job-mapping-dir",
    "jobs",
    type=click.Path(exists=True, file_okay=False, path_type=Path),
    help="Folder with a file per GPU (or GPU.INSTANCE) that lists its jobs; each becomes hpc_job.",
)
@click.option(
    "--kernel-log",
    type=click.Path(dir_okay=False, path_type=Path),
    default="/dev/kmsg",
    help="Second source of XIDs; one that cannot be read is done without.",
)
@_serving
def nvml(
    node: str,
    rack: str,
    interval: float,
    processes: bool,
    jobs: Path | None,
    kernel_log: Path,
    names: dcgm.Names,
    **where: Any,
) -> None:
    """Serve this machine's GPUs, read through NVML."""
    from exporters import nvml as library
    from exporters.machine import MachineSource, Options

    try:
        opened = library.Nvml(library.load())
    except library.NoDriverError as error:
        click.echo(f"Error: {error}", err=True)
        sys.exit(os.EX_UNAVAILABLE)
    source = MachineSource(opened, Place(node, rack), interval, Options(names, processes, jobs, kernel_log))
    _serve(source, title=f"Stethos: GPUs of {node}", **where)


@main.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.option("--speed", type=_Finite(0.01, 100_000), default=1.0, help="Recorded seconds per second.")
@click.option("--loop/--once", default=True, help="Begin again at the end, or fall silent.")
@_serving
def replay(file: Path, speed: float, loop: bool, names: dcgm.Names, **where: Any) -> None:
    """Serve a recording as if it happened now."""
    from exporters import recording
    from exporters.replay import ReplaySource

    try:
        source = ReplaySource(recording.read(file), speed, loop, names)
    except recording.RecordingError as error:
        raise click.ClickException(str(error)) from None
    _serve(source, title=f"Stethos: replay of {file.name}", **where)


@main.command()
@_fleet_shape
@click.option("--hours", type=_Finite(0, min_open=True), default=2.0, help="Length of the recording.")
@click.option("--step", type=_Finite(1, 300), default=5.0, help="Seconds between rows.")
@click.option("--faults", type=click.IntRange(0), default=0, help="Faults at random times and places.")
@click.option("--quiet-hours", type=_Finite(0), default=0.0, help="No fault comes before.")
@click.option("--kind", "kinds", type=click.Choice(list(KINDS)), multiple=True, help="Only faults of these kinds.")
@click.option("--upkeep/--no-upkeep", default=True, help="Driver restarts, missed scrapes, maintenance reboots.")
@click.option(
    "--start",
    type=click.DateTime(),
    default="2026-01-01T00:00:00",
    help="UTC time of the beginning.",
)
@click.option("--out", type=click.Path(path_type=Path, file_okay=False), required=True, help="Folder.")
def record(
    fleet: Fleet,
    hours: float,
    step: float,
    faults: int,
    quiet_hours: float,
    kinds: tuple[str, ...],
    upkeep: bool,
    start: datetime,
    out: Path,
) -> None:
    """Record a synthetic fleet with random jobs: recording.parquet, and truth.parquet beside it."""
    from exporters.synthetic.recorder import Recorder

    if hours * 3600 < step:
        raise click.UsageError(f"a recording of {hours:g} h is shorter than its step of {step:g} s")
    if quiet_hours and quiet_hours >= hours:
        raise click.UsageError(f"{quiet_hours:g} h without a fault leave nothing of a recording of {hours:g} h")
    try:
        start + timedelta(hours=hours)
    except OverflowError:
        raise click.UsageError(f"{hours:g} h from {start} on do not end before the year 10000") from None
    recorder = Recorder(
        fleet, out, start.replace(tzinfo=UTC), hours, step, faults, upkeep, kinds or tuple(KINDS), quiet_hours
    )
    try:
        with click.progressbar(length=recorder.steps, label="recording", file=sys.stderr) as bar:
            for done in recorder.run():
                bar.update(done)
    except OSError as error:
        raise click.ClickException(f"cannot write into {out}: {error}") from None
    if missing := faults - len(fleet.history):
        click.echo(f"{missing} of {faults} faults found nothing that they could befall", err=True)
    click.echo(out / "recording.parquet")


@main.command()
@click.argument("dataset", type=click.Choice(["asd", "smd"]))
@click.argument("source", type=click.Path(exists=True, file_okay=False, path_type=Path))
@click.option("--part", type=click.Choice(["train", "test"]), default="test", help="test has labels.")
@click.option("--out", type=click.Path(path_type=Path, dir_okay=False), required=True, help="Parquet file.")
def convert(dataset: str, source: Path, part: str, out: Path) -> None:
    """Turn a public server data set into a recording; labels go to OUT's .truth.parquet."""
    from exporters import convert as conversion
    from exporters.recording import RecordingError

    try:
        servers, rows = conversion.convert(dataset, source, out, part)
    except (RecordingError, OSError) as error:
        raise click.ClickException(str(error)) from None
    click.echo(f"{out}: {servers} servers, {rows} rows")


if __name__ == "__main__":
    main()
