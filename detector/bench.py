"""python -m detector.bench: one tick of a large fleet by stages, against a real Prometheus that scrapes it."""

from __future__ import annotations

import json
import math
import os
import platform
import socket
import statistics
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import click
import psutil
import uvicorn
from starlette.applications import Starlette
from starlette.routing import Route

from detector import bench_fleet, ingest, registry, signals, stages, training
from detector.exposition import Page
from detector.feed import Feed
from detector.fleet import Fleet
from detector.promql import Prometheus
from detector.service import receiver
from detector.threads import limit
from detector.training import Settings

STAGES = ("query", "parse", "ingest", "features", "graph", "model", "score", "publish")
_TRAINED_ON = (128, 400)  # GPUs, half of them idle as in the fleet, and steps: the size of the model is the real one


@dataclass(frozen=True, slots=True)
class Measured:
    """Medians over the ticks, in seconds. `query` and `parse` add up over the threads that ask at once.

    The CPU seconds besides are those between the ticks, for each step: scraping, pushing, and taking in what is pushed.
    """

    gpus: int
    series: int
    first_tick: float
    tick: float
    worst_tick: float
    detector_cpu: float
    prometheus_cpu: float
    detector_cpu_besides: float
    prometheus_cpu_besides: float
    stages: dict[str, float]
    megabytes: float
    page_bytes: int


@click.command(context_settings={"show_default": True})
@click.option("--gpus", "sizes", multiple=True, default=(1000, 10000), type=click.IntRange(16, 200_000), help="Fleet.")
@click.option("--signals", "kinds", default=12, type=click.IntRange(4, bench_fleet.SIGNALS), help="Per GPU.")
@click.option("--ticks", default=8, type=click.IntRange(2, 1000), help="Ticks to take the median of.")
@click.option("--step", default=5.0, type=click.FloatRange(1, 60), help="Seconds from one scrape and tick to the next.")
@click.option("--pushed", is_flag=True, help="Prometheus pushes its series; the detector asks for the rest.")
@click.option("--model/--no-model", default=True, help="Judge by a trained model, or by the peers alone.")
@click.option("--threads", default=1, type=click.IntRange(1), help="CPU threads of the model.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures there too.")
def cli(
    sizes: tuple[int, ...],
    kinds: int,
    ticks: int,
    step: float,
    pushed: bool,
    model: bool,
    threads: int,
    file: Path | None,
) -> None:
    """Scrape fleets of these sizes and time the detector's ticks."""
    limit(threads)
    with tempfile.TemporaryDirectory(prefix="bench") as folder:
        models = Path(folder) / "models"
        if model:
            _train(models, kinds, step)
        measured = []
        for gpus in sizes:
            click.echo(f"{gpus} GPUs: scraping ...", err=True)
            place = Path(folder) / str(gpus)
            place.mkdir()
            measured.append(measure(place, models, gpus, kinds, ticks, step, pushed))
            click.echo(table(measured, kinds))
    if file:
        conditions = {"cpus": os.cpu_count(), "machine": platform.processor(), "signals": kinds, "step_seconds": step}
        conditions |= {"pushed": pushed, "threads": threads}
        file.write_text(json.dumps(conditions | {"runs": [asdict(one) for one in measured]}, indent=2) + "\n")


def measure(
    folder: Path, models: Path, gpus: int, kinds: int, ticks: int, step: float, pushed: bool = False
) -> Measured:
    """Tick beside the running scrapes, once a step, as the service does."""
    wanted = signals.load()
    feed = Feed(ingest.names_of(wanted), step, bench_fleet.LOOKBACK_STEPS * step) if pushed else None
    before = _resident()
    with (
        _listening(feed) as url,
        bench_fleet.scraped(folder, gpus, kinds, step, url) as server,
        Prometheus(server.url, timeout=60) as client,
    ):
        series = _await_scraped(client, gpus * kinds, step)
        fleet, page = Fleet(client, wanted, models, step, feed=feed), Page()
        walls: list[float] = []
        parts, used, besides, text = [], [], [], b""
        while len(walls) < ticks + 2:
            cpu, own, begin = server.cpu_seconds(), time.process_time(), time.perf_counter()
            time.sleep(step - time.time() % step + 0.8 * step)  # between two scrapes of most targets
            share = step / (time.perf_counter() - begin)
            besides.append((share * (time.process_time() - own), share * (server.cpu_seconds() - cpu)))
            stages.taken()
            cpu, own, begin = server.cpu_seconds(), time.process_time(), time.perf_counter()
            snapshot = fleet.tick(time.time())
            with stages.stage("publish"):
                text = page.write(snapshot)
            if walls and feed and not fleet.counts.fed:
                continue  # it takes a while until what was pushed is known to be all there is
            walls.append(time.perf_counter() - begin)
            parts.append(stages.taken())
            used.append((time.process_time() - own, server.cpu_seconds() - cpu))
            by_stage = ", ".join(f"{name} {1e3 * parts[-1].get(name, 0.0):.0f}" for name in STAGES)
            cpu_used = f"CPU {1e3 * used[-1][0]:.0f} + {1e3 * used[-1][1]:.0f} ms"
            click.echo(f"tick {1e3 * walls[-1]:.0f} ms ({by_stage}), {cpu_used}", err=True)
        # The first looks back, the second still compiles.
        steady = parts[2:]
        (own, theirs), (own_besides, theirs_besides) = (_medians(each[2:]) for each in (used, besides))
        return Measured(
            gpus,
            series,
            walls[0],
            statistics.median(walls[2:]),
            max(walls[2:]),
            own,
            theirs,
            own_besides,
            theirs_besides,
            {name: statistics.median(part.get(name, 0.0) for part in steady) for name in STAGES},
            (_resident() - before) / 1e6,
            len(text),
        )


def _medians(pairs: list[tuple[float, float]]) -> tuple[float, float]:
    return statistics.median(first for first, _ in pairs), statistics.median(second for _, second in pairs)


@contextmanager
def _listening(feed: Feed | None) -> Iterator[str | None]:
    """Where a feed takes what is pushed, as the service does."""
    if feed is None:
        yield None
        return
    listener = socket.create_server(("127.0.0.1", 0))
    routes = [Route("/api/v1/write", receiver(feed), methods=["POST"])]
    server = uvicorn.Server(uvicorn.Config(Starlette(routes=routes), log_config=None, access_log=False))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}/api/v1/write"
    finally:
        server.should_exit = True
        thread.join()
        listener.close()


def table(measured: list[Measured], kinds: int) -> str:
    """Milliseconds by stage, and the exponent with which each grows from one fleet to the next larger."""
    rows = [("GPUs", *(f"{one.gpus}" for one in measured), "growth")]
    rows.append((f"series ({kinds} signals)", *(f"{one.series}" for one in measured), ""))
    for name in STAGES:
        seconds = [one.stages[name] for one in measured]
        rows.append((f"{name} ms", *(f"{1e3 * each:.1f}" for each in seconds), _growth(measured, seconds)))
    for label, seconds in (
        ("tick ms, median", [one.tick for one in measured]),
        ("tick ms, worst", [one.worst_tick for one in measured]),
        ("first tick ms", [one.first_tick for one in measured]),
        ("detector's CPU ms", [one.detector_cpu for one in measured]),
        ("Prometheus' CPU ms", [one.prometheus_cpu for one in measured]),
        ("detector's CPU besides, ms a step", [one.detector_cpu_besides for one in measured]),
        ("Prometheus' CPU besides, ms a step", [one.prometheus_cpu_besides for one in measured]),
    ):
        rows.append((label, *(f"{1e3 * each:.0f}" for each in seconds), _growth(measured, seconds)))
    rows.append(("kB per GPU", *(f"{1e3 * one.megabytes / one.gpus:.1f}" for one in measured), ""))
    rows.append(("published bytes", *(f"{one.page_bytes}" for one in measured), ""))
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]
    return "\n".join(
        "  ".join(cell.ljust(width) if not place else cell.rjust(width) for place, (cell, width) in enumerate(cells))
        for cells in (tuple(zip(row, widths, strict=True)) for row in rows)
    )


def _growth(measured: list[Measured], seconds: list[float]) -> str:
    """The exponent b of seconds ~ GPUs**b between the smallest and the largest fleet."""
    if len(measured) < 2 or min(seconds[0], seconds[-1]) <= 0 or measured[0].gpus == measured[-1].gpus:
        return ""
    return f"n^{math.log(seconds[-1] / seconds[0]) / math.log(measured[-1].gpus / measured[0].gpus):.2f}"


def _train(models: Path, kinds: int, step: float) -> None:
    gpus, steps = _TRAINED_ON
    known = signals.load()
    data = bench_fleet.telemetry(gpus, kinds, steps, step)
    judge, card = training.train([data], (known.activity, known.effort), Settings(iterations=10), lambda *_: None)
    registry.write(models, judge, card)


def _await_scraped(client: Prometheus, series: int, step: float) -> int:
    """Until every target was scraped; the number of series."""
    deadline = time.monotonic() + 60 + 10 * step
    while time.monotonic() < deadline:
        now = math.floor(time.time())
        found = client.range('count({__name__=~"gpu:.*"})', now, now, 1).values
        if len(found) and found[0] >= series:
            return int(found[0])
        time.sleep(1)
    raise TimeoutError(f"Prometheus did not scrape {series} series within {60 + 10 * step:.0f} s")


def _resident() -> int:
    resident: int = psutil.Process().memory_info().rss
    return resident


if __name__ == "__main__":
    cli(prog_name="python -m detector.bench")
