"""The measurements, each on a scheduler of its own."""

import asyncio
import gc
import itertools
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx

from ..cycle import Cycle, Settings
from ..exposition import Metrics
from ..jobs import JobState, JobType, Specification
from ..nodes import Gpu
from ..queue import Queue
from ..remediation import Policy
from ..store import Store, Transaction, jobs, nodes
from . import load
from .server import Server, running

JOB = {"type": "sleep", "gpus": 1, "duration_seconds": 1.0}
SHAPES = ((1, 1), (2, 1), (4, 1), (8, 1), (16, 2), (32, 4))

Figures = dict[str, float]


def accept(home: Path, database: str | None, seconds: float, connections: int, rate: float) -> dict[str, Figures]:
    """Accepted jobs over HTTP: as many as it takes, and at a given rate."""
    with running(home, *(("--database", database) if database else ())) as server:
        message = load.request("/v1/jobs", server.token, JOB)

        def run(seconds: float, per_second: float | None = None) -> Figures:
            before = server.cpu_seconds()
            sent = asyncio.run(load.run("127.0.0.1", server.port, lambda: message, seconds, connections, per_second))
            taken = server.cpu_seconds() - before
            return sent.figures(201) | {"server_cpu_ms_each": round(1000 * taken / len(sent.latencies), 3)}

        run(1.0)
        return {"as fast as it goes": run(seconds), f"at {rate:g} per second": run(seconds, rate)}


def tick(home: Path, queued: int, node_count: int, passes: int) -> dict[str, Figures]:
    """A placement pass over a long queue: while nodes have room, and once every GPU is taken."""
    gc.freeze()  # as the server does
    with closing(Store(home / "scheduler.sqlite")) as store:
        return asyncio.run(_tick(store, queued, node_count, passes))


async def _tick(store: Store, queued: int, node_count: int, passes: int) -> dict[str, Figures]:
    await _fill(store, queued)
    await store.write(_register, node_count)
    queue = Queue(store, Metrics(), Policy())
    cycle = Cycle(queue, None, Settings())
    filling: dict[int, list[float]] = {}
    placed = -1
    while placed:
        before = (await store.read(jobs.counts))[JobState.QUEUED]
        took = await _timed(cycle)
        placed = before - (await store.read(jobs.counts))[JobState.QUEUED]
        filling.setdefault(placed, []).append(took)
    full = [await _timed(cycle) for _ in range(passes)]
    batch = max(filling)
    return {f"{batch} placed in one pass": _percentiles(filling[batch]), "every GPU taken": _percentiles(full)}


async def _timed(cycle: Cycle) -> float:
    """Processor seconds of this process, which other load on the machine does not stretch."""
    started = time.process_time()
    await cycle.place()
    return time.process_time() - started


def _percentiles(took: list[float]) -> Figures:
    return {f"p{percent}_cpu_ms": round(1000 * load.quantile(sorted(took), percent / 100), 2) for percent in (50, 99)}


def alerts(home: Path, rate: float, seconds: float) -> dict[str, Figures]:
    """From sending an alert to hearing, over the event stream, that its GPU is cordoned."""
    # Every GPU is to be cordoned, so the circuit breaker must not step in.
    with running(home, "--hold-share", "1", "--hold-rack-share", "1") as server:
        names = [f"node-{index:04}" for index in range(1 + int(rate * seconds) // 8)]
        with server.client() as client:
            for name in names:
                client.post("/v1/nodes", json={"node": name, "gpus": 8}).raise_for_status()
            start = client.get("/v1/fleet?detail=none").json()["sequence"]
        sent: dict[str, float] = {}
        heard: dict[str, float] = {}
        listener = threading.Thread(target=_listen, args=(server, start, int(rate * seconds), heard))
        listener.start()
        messages = _alerts(server.token, itertools.product(names, range(8)), sent)
        asked = asyncio.run(load.run("127.0.0.1", server.port, lambda: next(messages), seconds, 16, rate))
        listener.join()
    took = sorted(heard[place] - sent[place] for place in sent if place in heard)
    found = {f"p{percent}_ms": round(1000 * load.quantile(took, percent / 100), 1) for percent in (50, 99, 100)}
    return {f"alert to cordon at {rate:g} per second": found | {"cordoned": len(took), "sent": len(asked.latencies)}}


def _alerts(token: str, places: Iterator[tuple[str, int]], sent: dict[str, float]) -> Iterator[bytes]:
    for node, gpu in places:
        labels = {"alertname": "GpuAnomalous", "severity": "critical", "node": node, "gpu": str(gpu)}
        alert = {"status": "firing", "labels": labels, "startsAt": "2026-01-31T12:00:00Z"}
        sent[f"{node}/{gpu}"] = time.perf_counter()
        yield load.request("/v1/alerts", token, {"version": "4", "alerts": [alert]})


def _listen(server: Server, after: int, wanted: int, heard: dict[str, float]) -> None:
    """Note when each cordon is told, until all are or nothing comes any more."""
    with server.client() as client, client.stream("GET", f"/v1/events?after={after}", timeout=5) as stream:
        kind = ""
        try:
            for line in stream.iter_lines():
                name, _, value = line.partition(": ")
                kind = value if name == "event" else kind
                if name == "data" and kind == "gpu.cordoned":
                    heard[value.partition('"subject": "')[2].partition('"')[0]] = time.perf_counter()
                if len(heard) == wanted:
                    return
        except httpx.ReadTimeout:
            return


def recovery(home: Path, stored: int) -> dict[str, Figures]:
    """kill -9 under load with so many jobs stored: until the restarted server is ready, and takes a job."""
    with closing(Store(home / "scheduler.sqlite")) as store:
        asyncio.run(_fill(store, stored))
    with running(home) as server:
        message = load.request("/v1/jobs", server.token, JOB)
        kill = threading.Timer(2.0, server.process.kill)
        kill.start()
        try:
            asyncio.run(load.run("127.0.0.1", server.port, lambda: message, 10.0))
        except ConnectionError:
            kill.join()
    started = time.perf_counter()
    with running(home) as again, again.client() as client:
        client.post("/v1/jobs", json=JOB).raise_for_status()
        ended = time.perf_counter()
        return {
            f"{stored} jobs stored": {
                "ready_seconds": round(again.ready_seconds, 2),
                "accepting_seconds": round(ended - started, 2),
                "server_cpu_seconds": round(again.cpu_seconds(), 2),
            }
        }


async def _fill(store: Store, count: int) -> None:
    for start in range(0, count, 5000):
        await store.write(_submit, start, min(count, start + 5000))


def _submit(tx: Transaction, start: int, end: int) -> None:
    for number in range(start, end):
        gpus, spread = SHAPES[number % len(SHAPES)]
        jobs.submit(tx, Specification(JobType.SLEEP, gpus, nodes=spread))


def _register(tx: Transaction, count: int) -> None:
    for index in range(count):
        name = f"node-{index:04}"
        nodes.register(tx, name, None, "real", [Gpu(gpu) for gpu in range(8)])
        nodes.set_reachable(tx, name, True)
