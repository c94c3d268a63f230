"""What a scrape over HTTP takes, of a real exporter process and beside the floor."""

from __future__ import annotations

import asyncio
import logging
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from http import HTTPStatus
from http.client import HTTPConnection
from multiprocessing.connection import Connection

import click
import httpx
import numpy as np
import structlog

from exporters import server, service
from exporters.discovery import Place

_SETTLE_SECONDS = 1.0
_TELL_SECONDS = 60.0
_PAGE = "/nodes/node-01/metrics"

Tell = Callable[[float, float, float], None]


@dataclass(frozen=True, slots=True)
class Spread:
    """Of some scrapes: milliseconds of the wall clock."""

    median_ms: float
    p99_ms: float
    scrapes: int


@dataclass(frozen=True, slots=True)
class Steady:
    """One exporter under a steady scrape: its share of a core, memory, how long scrapes took, how many came late."""

    cores: float
    mebibytes_before: float
    mebibytes_after: float
    took: Spread
    missed: int


def beside_floor(interval: float, seconds: float) -> tuple[Spread, Spread]:
    """One node, scraped once in every `interval`, and in turns with it a server that has the same page ready.

    The stack is the same, so what the second takes is due to the machine, the stack and the client.
    """
    with _exporter(1) as (client, own), _floor(client.get(_PAGE).text) as ready:
        took: tuple[list[float], list[float]] = ([], [])
        began = time.perf_counter()
        for turn in range(2 * round(seconds / interval)):
            time.sleep(max(began + turn * interval / 2 - time.perf_counter(), 0.0))
            took[turn % 2].append(_scrape((own, ready)[turn % 2], _PAGE))
        return _spread(took[0]), _spread(took[1])


def steady(nodes: int, interval: float, seconds: float, tell: Tell) -> Steady:
    """A real process with `nodes` nodes of 8 GPUs, each scraped once in every `interval`.

    `tell` hears the seconds so far, the cores and the MiB once a minute.
    """
    with _exporter(nodes) as (client, wire):
        paths = [each["labels"]["__metrics_path__"] for each in client.get("/discovery").json()]
        for path in paths:  # labels are written once and kept; growth after that would be a leak
            client.get(path).raise_for_status()
        time.sleep(_SETTLE_SECONDS)
        cpu, memory = _own(client)
        took: list[float] = []
        late = 0
        began = told = time.perf_counter()
        while (due := len(took) * interval / len(paths)) < seconds:
            if time.perf_counter() - told >= _TELL_SECONDS:
                told = time.perf_counter()
                cpu_now, memory_now = _own(client)
                tell((told - began), (cpu_now - cpu) / (told - began), memory_now / 2**20)
            wait = began + due - time.perf_counter()
            late += wait < -interval
            time.sleep(max(wait, 0.0))
            took.append(_scrape(wire, paths[len(took) % len(paths)]))
        elapsed = time.perf_counter() - began
        cpu_after, memory_after = _own(client)
        return Steady((cpu_after - cpu) / elapsed, memory / 2**20, memory_after / 2**20, _spread(took), late)


class _Ready:
    """A source whose only page is there already."""

    def __init__(self, page: str) -> None:
        self._page = page

    def places(self) -> list[Place]:
        return []

    def page(self, node: str) -> str:
        return self._page

    def about(self) -> str:
        return ""

    def unready(self) -> str | None:
        return None

    async def run(self) -> None:
        await asyncio.Event().wait()


@contextmanager
def _floor(page: str) -> Iterator[HTTPConnection]:
    spawning = multiprocessing.get_context("spawn")
    here, there = spawning.Pipe()
    process = spawning.Process(target=_serve_ready, args=(page, there), daemon=True)
    process.start()
    try:
        with closing(HTTPConnection("127.0.0.1", here.recv())) as wire:
            yield wire
    finally:
        process.terminate()
        process.join()


def _serve_ready(page: str, port: Connection) -> None:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
    listener = server.listen("127.0.0.1", 0)
    port.send(listener.getsockname()[1])
    server.serve(service.build(_Ready(page), token="", open_reads=True, title="floor"), listener)


@contextmanager
def _exporter(nodes: int) -> Iterator[tuple[httpx.Client, HTTPConnection]]:
    """A client for the questions, and the standard library's for the scrapes: the exporter counts, not who asks."""
    with tempfile.TemporaryDirectory() as home:
        command = [sys.executable, "-m", "exporters", "synthetic", "--nodes", str(nodes), "--port", "0"]
        environment = os.environ | {"STETHOS_HOME": home, "STETHOS_LOG": "json"}
        with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=environment) as process:  # noqa: S603
            try:
                assert process.stderr is not None
                found = re.search(r"http://([0-9.]+):([0-9]+)", process.stderr.readline())
                if found is None:
                    raise click.ClickException("the exporter did not start")
                with (
                    httpx.Client(base_url=found[0], timeout=30) as client,
                    closing(HTTPConnection(found[1], int(found[2]))) as wire,
                ):
                    yield client, wire
            finally:
                process.terminate()


def _scrape(wire: HTTPConnection, path: str) -> float:
    """Seconds until the whole page was there."""
    asked = time.perf_counter()
    try:
        wire.request("GET", path)
        answer = wire.getresponse()
    except (ConnectionResetError, BrokenPipeError):  # it lay idle for five seconds, as when the machine stands still
        wire.close()
        return _scrape(wire, path)
    answer.read()
    if answer.status != HTTPStatus.OK:
        raise click.ClickException(f"a scrape was answered with {answer.status}")
    return time.perf_counter() - asked


def _spread(took: list[float]) -> Spread:
    median, p99 = np.percentile(np.array(took) * 1e3, [50, 99])
    return Spread(float(median), float(p99), len(took))


def _own(client: httpx.Client) -> tuple[float, float]:
    text = client.get("/metrics").text
    names = ("process_cpu_seconds_total", "process_resident_memory_bytes")
    cpu, memory = (float(re.search(rf"^{name} (\S+)$", text, re.MULTILINE)[1]) for name in names)  # type: ignore[index]
    return cpu, memory
