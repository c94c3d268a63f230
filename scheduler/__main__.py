"""python -m scheduler serve | agent | simulate | token"""

import math
from pathlib import Path
from typing import Any

import click

from . import log


class _Finite(click.FloatRange):
    """NaN is in every range and infinity in an open one; neither is a time or a share."""

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        number: float = super().convert(value, param, ctx)
        if not math.isfinite(number):
            self.fail(f"{number} is not a finite number.", param, ctx)
        return number


@click.group(context_settings={"show_default": True})
def main() -> None:
    """Stethos' scheduler and its agents."""
    log.configure()


HOME = click.option(
    "--home", envvar="STETHOS_HOME", type=click.Path(path_type=Path), default=Path(".stethos"), help="State folder."
)
TOKEN_FILE = click.option(
    "--token-file", type=click.Path(path_type=Path), help="The token, made there if missing.  [default: HOME/token]"
)
DATABASE = click.option(
    "--database",
    envvar="STETHOS_DATABASE",
    metavar="URL",
    help="SQLite file, or postgresql://...  [default: HOME/scheduler.sqlite]",
)


@main.command()
@HOME
@TOKEN_FILE
@click.option("--host", default="127.0.0.1", help="Address to listen on.")
@click.option("--port", type=click.IntRange(0, 65535), default=8080, help="Port to listen on; 0 takes a free one.")
@click.option("--prometheus", metavar="URL", help="Where the anomaly scores are read; without it there are none.")
@click.option("--synthetic", metavar="URL", help="A synthetic fleet's control API: faults and nodes on request.")
@DATABASE
@click.option("--workload", type=_Finite(0, 50), help="Jobs per minute that the generator submits.")
@click.option("--block-score", type=_Finite(min=0), default=1.0, help="No new work from this score on.")
@click.option("--clear-score", type=_Finite(min=0), default=0.7, help="Work again under this score ...")
@click.option("--clear-seconds", type=_Finite(min=0), default=20.0, help="... held for so long.")
@click.option("--alert-ttl", type=_Finite(min=1), default=900.0, help="Seconds after which an alert holds nothing.")
@click.option(
    "--node-timeout", type=_Finite(min=3), default=10.0, help="Seconds of silence after which a node is lost."
)
@click.option("--queue-limit", type=click.IntRange(min=1), default=1_000_000, help="Jobs that may wait at most.")
@click.option(
    "--keep-events", type=click.IntRange(min=1), default=1_000_000, help="Events kept at most; older ones are gone."
)
@click.option("--keep-jobs", type=click.IntRange(min=1), default=1_000_000, help="Ended jobs kept at most.")
@click.option(
    "--keep-days",
    type=_Finite(min=0, min_open=True),
    default=30.0,
    help="After so many, events, ended jobs and alerts are forgotten.",
)
@click.option(
    "--canary-seconds",
    type=_Finite(min=0),
    default=45.0,
    help="How long a GPU that was held has to work before it is trusted again; 0 trusts it at once.",
)
@click.option("--hold-share", type=_Finite(0, 1), default=0.25, help="Share of all GPUs that automation may hold ...")
@click.option("--hold-rack-share", type=_Finite(0, 1), default=0.5, help="... and of the GPUs of a rack ...")
@click.option("--hold-floor", type=click.IntRange(0), default=8, help="... but always so many GPUs.")
@click.option("--dry-run", is_flag=True, help="Decide and tell what would be held, and hold nothing.")
def serve(**options: object) -> None:
    """Keep the queue, place the jobs, serve the API and the console."""
    from .serve import run

    run(**options)  # type: ignore[arg-type]


@main.command()
@HOME
@TOKEN_FILE
@click.option("--server", default="http://127.0.0.1:8080", metavar="URL", help="The scheduler.")
@click.option("--node", help="This node's name.  [default: the host's name]")
@click.option("--gpus", type=click.IntRange(1, 1024), help="How many GPUs.  [default: what nvidia-smi lists]")
@click.option("--rack", help="The rack it stands in.")
@click.option("--synthetic", metavar="URL", help="Serve all nodes of this synthetic exporter instead.")
@click.option(
    "--allow-commands",
    is_flag=True,
    help="Run jobs of type command: who may submit jobs then runs programs as this user.",
)
@click.option("--cool", is_flag=True, help="Lower the power limit of a GPU that is too hot (real ones: as root).")
@click.option("--cool-above", type=_Finite(40, 120), default=85.0, help="From this heat on (°C) ...")
@click.option("--cool-until", type=_Finite(20, 120), default=80.0, help="... until it is down to this.")
def agent(**options: object) -> None:
    """Run jobs on this machine, or on a synthetic fleet."""
    from .agent.run import run

    run(**options)  # type: ignore[arg-type]


@main.command()
@click.option(
    "--trace",
    "trace_folder",
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    required=True,
    help="Folder of the openb trace: the list of GPU nodes and the lists of pods.",
)
@click.option("--policy", default="all", metavar="NAME", help="One policy, or all.")
@click.option("--workload", multiple=True, help="A workload of the trace; may be given again.  [default: all]")
@click.option("--seeds", type=click.IntRange(1, 1000), default=10, help="Runs with other orders of arrival.")
@click.option(
    "--json", "json_file", type=click.Path(path_type=Path, dir_okay=False, writable=True), help="Write all there too."
)
@click.option(
    "--faults",
    "fault_trace",
    type=click.Path(path_type=Path, exists=True, dir_okay=False),
    help="A fault trace (InfiniteHBD's fault_trace.json): also say what health saves.",
)
@click.option("--days", type=_Finite(1, 348), default=348.0, help="How much of the fault trace to replay.")
@click.option("--recall", type=_Finite(0, 1), default=0.5, help="Share of the faults that are announced ...")
@click.option("--lead-hours", type=_Finite(0, 1000), default=24.0, help="... so long before.")
@click.option("--false-alarms", type=_Finite(0, 100), default=0.1, help="In 1,000 GPU-hours.")
def simulate(**options: object) -> None:
    """Replay a trace: how much of the fleet each policy fills, and what heeding health saves."""
    from .simulate.run import run

    run(**options)  # type: ignore[arg-type]


@main.group()
def token() -> None:
    """API tokens with scopes, beside the one in HOME/token, which may do everything."""


@token.command()
@HOME
@DATABASE
@click.argument("name")
@click.option(
    "--scope",
    "scopes",
    multiple=True,
    required=True,
    type=click.Choice(["read", "jobs:write", "nodes:admin", "alerts:write"]),
    help="What it may do; may be given several times.",
)
@click.option("--days", type=_Finite(min=0, min_open=True), help="After so many it is void.")
def create(**options: object) -> None:
    """Make a token and print it: it cannot be shown again."""
    from .tokens import create as run

    run(**options)  # type: ignore[arg-type]


@token.command("list")
@HOME
@DATABASE
def list_tokens(**options: object) -> None:
    """Names, scopes and dates."""
    from .tokens import show

    show(**options)  # type: ignore[arg-type]


@token.command()
@HOME
@DATABASE
@click.argument("name")
def revoke(**options: object) -> None:
    """Make a token void, within a second."""
    from .tokens import revoke as run

    run(**options)  # type: ignore[arg-type]


if __name__ == "__main__":
    main()
