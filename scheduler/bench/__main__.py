"""python -m scheduler.bench accept | tick | alerts | recovery | queues"""

import asyncio
import json
import logging
import tempfile
from pathlib import Path

import click
import structlog

from . import measures, queues


@click.group(context_settings={"show_default": True})
def main() -> None:
    """Measure the scheduler on this machine. Each command prints one line of JSON a figure."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))


def _show(what: str, found: dict[str, measures.Figures]) -> None:
    for case, figures in found.items():
        click.echo(json.dumps({"measure": what, "case": case} | figures))


DATABASE = click.option("--database", metavar="URL", help="A postgresql:// URL instead of a fresh SQLite file.")


@main.command()
@DATABASE
@click.option("--seconds", default=10.0, help="How long each.")
@click.option("--connections", default=16, help="Requests under way at once.")
@click.option("--rate", default=500.0, help="Jobs per second, where the rate is given.")
def accept(database: str | None, seconds: float, connections: int, rate: float) -> None:
    """Jobs accepted over HTTP, each on disk before it is answered."""
    with tempfile.TemporaryDirectory() as home:
        _show("accept", measures.accept(Path(home), database, seconds, connections, rate))


@main.command()
@click.option("--queued", default=100_000, help="Jobs that wait.")
@click.option("--nodes", default=1000, help="Nodes, of eight GPUs.")
@click.option("--passes", default=50, help="Passes over the full fleet.")
def tick(queued: int, nodes: int, passes: int) -> None:
    """One placement pass over a long queue."""
    with tempfile.TemporaryDirectory() as home:
        _show("tick", measures.tick(Path(home), queued, nodes, passes))


@main.command()
@click.option("--rate", default=100.0, help="Alerts per second.")
@click.option("--seconds", default=20.0, help="How long.")
def alerts(rate: float, seconds: float) -> None:
    """From an alert to the cordon that a listener hears of."""
    with tempfile.TemporaryDirectory() as home:
        _show("alerts", measures.alerts(Path(home), rate, seconds))


@main.command()
@click.option("--stored", default=100_000, help="Jobs in the database.")
def recovery(stored: int) -> None:
    """From a restart after kill -9 to the first accepted job."""
    with tempfile.TemporaryDirectory() as home:
        _show("recovery", measures.recovery(Path(home), stored))


@main.command("queues")
@click.argument("database")
@click.option("--jobs", default=2000, help="How many jobs go through.")
@click.option("--width", default=16, help="How many at once.")
def compare(database: str, jobs: int, width: int) -> None:
    """Jobs through the whole queue on the empty DATABASE (postgresql://...), beside procrastinate if installed."""
    found = {"stethos": asyncio.run(queues.ours(database, jobs, width))}
    if other := asyncio.run(queues.procrastinate(database, jobs, width)):
        found["procrastinate"] = other
    _show("queues", found)


if __name__ == "__main__":
    main()
