"""`python -m exporters.bench`: what a scrape costs, beside prometheus_client's Gauges, and what a large fleet costs."""

from __future__ import annotations

import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np
from prometheus_client import CollectorRegistry, Gauge, generate_latest
from prometheus_client.parser import text_string_to_metric_families

from exporters.scrapes import beside_floor, steady
from exporters.synthetic.fleet import Fleet, build
from exporters.synthetic.source import SyntheticSource

_ROUNDS = 400
LONE_INTERVAL, LONE_SECONDS, LONE_RUNS = 0.1, 20.0, 5


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one page: milliseconds of CPU (median, 99th percentile of the wall clock), bytes, samples."""

    median_ms: float
    p99_ms: float
    bytes: int
    samples: int


def ours(rounds: int = _ROUNDS) -> Cost:
    """A page of an 8-GPU node, written from readings that are new each time."""
    source = SyntheticSource(_busy())

    def page() -> str:
        source.changed()
        return source.page("node-01")

    return _cost(page, rounds)


def gauges(rounds: int = _ROUNDS) -> Cost:
    """The same samples as prometheus_client Gauges: set all of them, then write."""
    text = SyntheticSource(_busy()).page("node-01")
    registry = CollectorRegistry()
    children = []
    for family in text_string_to_metric_families(text):
        samples = [each for each in family.samples if each.name == family.name or each.name == f"{family.name}_total"]
        gauge = Gauge(family.name, family.documentation, list(samples[0].labels), registry=registry)
        children += [(gauge.labels(**each.labels), each.value) for each in samples]

    def page() -> str:
        for child, value in children:
            child.set(value)
        return generate_latest(registry).decode()

    return _cost(page, rounds)


def _busy() -> Fleet:
    fleet = build(1, 8, 32, ["H100"], 7)
    fleet.add_load("node-01", range(8), "training", 0.95)
    for _ in range(60):
        fleet.step(1.0)
    return fleet


def _cost(page: Callable[[], str], rounds: int) -> Cost:
    text = page()
    seconds = []
    for _ in range(rounds):
        began = time.perf_counter()
        page()
        seconds.append(time.perf_counter() - began)
    samples = sum(not line.startswith("#") for line in text.splitlines())
    median, p99 = np.percentile(np.array(seconds) * 1e3, [50, 99])
    return Cost(float(median), float(p99), len(text.encode()), samples)


def _tell(seconds: float, cores: float, mebibytes: float) -> None:
    click.echo(f"  {seconds:6.0f} s: {cores:.2f} cores so far, {mebibytes:.1f} MiB", err=True)


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(": ")[2]
    return platform.machine()


@click.command(context_settings={"show_default": True})
@click.option("--nodes", type=click.IntRange(1, 5000), default=1250, help="Nodes of 8 GPUs in the large fleet.")
@click.option("--interval", type=click.FloatRange(1), default=15.0, help="Seconds between scrapes of a node.")
@click.option("--seconds", type=click.FloatRange(1), default=60.0, help="How long to scrape; an hour is a soak.")
def main(nodes: int, interval: float, seconds: float) -> None:
    """Measures, and prints a table."""
    click.echo(f"{_processor()}, Python {platform.python_version()}")
    own, plain = ours(), gauges()
    click.echo(f"{'':24}{'ours':>10}{'Gauges':>10}{'ratio':>8}")
    for name, mine, theirs in (
        ("page, median ms", own.median_ms, plain.median_ms),
        ("page, p99 ms", own.p99_ms, plain.p99_ms),
        ("per sample, µs", own.median_ms * 1e3 / own.samples, plain.median_ms * 1e3 / plain.samples),
        ("per sample, bytes", own.bytes / own.samples, plain.bytes / plain.samples),
        ("samples", own.samples, plain.samples),
    ):
        click.echo(f"{name:24}{mine:10.2f}{theirs:10.2f}{mine / theirs:8.2f}")
    click.echo(f"1 node over HTTP, every {LONE_INTERVAL:g} s for {LONE_SECONDS:g} s, ms:")
    click.echo(f"{'':24}{'median':>10}{'p99':>10}")
    for _ in range(LONE_RUNS):
        for name, took in zip(("scrape", "floor: page ready"), beside_floor(LONE_INTERVAL, LONE_SECONDS), strict=True):
            click.echo(f"{name:24}{took.median_ms:10.2f}{took.p99_ms:10.2f}")
    large = steady(nodes, interval, seconds, _tell)
    click.echo(f"{nodes} nodes, {nodes * 8} GPUs, every {interval:g} s for {seconds:g} s, over HTTP:")
    click.echo(
        f"  {large.cores:.2f} cores, scrape {large.took.median_ms:.2f} ms median, {large.took.p99_ms:.2f} ms p99"
    )
    click.echo(f"  {large.took.scrapes} scrapes, {large.missed} of them more than an interval late")
    click.echo(f"  {large.mebibytes_before:.0f} MiB before, {large.mebibytes_after:.0f} MiB after")


if __name__ == "__main__":
    main()
