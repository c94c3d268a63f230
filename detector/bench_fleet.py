"""A fleet of any size for the benchmark: an exporter that a real Prometheus scrapes, and that Prometheus."""

from __future__ import annotations

import asyncio
import json
import multiprocessing
import os
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx
import numpy as np
import psutil

from detector import signals
from detector.telemetry import IDLE, Gpu, Telemetry

PER_NODE = 8
LOOKBACK_STEPS = 4  # for so long a sample stands
_NODES_PER_RACK = 4
_NODES_PER_JOB = 8  # every other job of that size is idle
_PHASES = 24  # different pages a node has, one after the other: with a few, their mean would be a lasting deviation
_READY_SECONDS = 120.0
# How a busy H100 reads, what being idle takes off, and the noise of a reading; as prometheus/rules records them.
_READINGS = {
    "utilization_ratio": ("gpu:utilization:ratio", 0.95, 0.95, 0.01),
    "tensor_active_ratio": ("gpu:tensor_active:ratio", 0.55, 0.55, 0.02),
    "dram_active_ratio": ("gpu:dram_active:ratio", 0.4, 0.4, 0.02),
    "memory_used_ratio": ("gpu:memory_used:ratio", 0.8, 0.78, 0.001),
    "temperature_celsius": ("gpu:temperature:celsius", 62.0, 30.0, 0.5),
    "memory_temperature_celsius": ("gpu:memory_temperature:celsius", 70.0, 32.0, 0.5),
    "power_watts": ("gpu:power:watts", 640.0, 560.0, 6.0),
    "power_limit_watts": ("gpu:power_limit:watts", 700.0, 0.0, 0.0),
    "sm_clock_hertz": ("gpu:sm_clock:hertz", 1.98e9, 1.6e9, 0.0),
    "memory_clock_hertz": ("gpu:memory_clock:hertz", 2.6e9, 0.0, 0.0),
    "nvlink_bytes_per_second": ("gpu:nvlink:bytes_per_second", 2e11, 2e11, 5e9),
    "ecc_corrected_total": ("gpu:ecc_corrected:total", 3.0, 0.0, 0.0),
    "pcie_tx_bytes_per_second": ("gpu:pcie_tx:bytes_per_second", 6e9, 6e9, 2e8),
    "pcie_rx_bytes_per_second": ("gpu:pcie_rx:bytes_per_second", 6e9, 6e9, 2e8),
    "throttle_power_ratio": ("gpu:throttle_power:ratio", 0.02, 0.02, 0.005),
    "throttle_thermal_ratio": ("gpu:throttle_thermal:ratio", 0.0, 0.0, 0.0),
}
SIGNALS = len(_READINGS)


def telemetry(gpus: int, kinds: int, steps: int, step: float, seed: int = 0) -> Telemetry:
    """The same fleet as arrays: what a model for it can be trained on."""
    random = np.random.default_rng(seed)
    names = list(_READINGS)[:kinds]
    fleet = tuple(_gpu(place // PER_NODE, place % PER_NODE) for place in range(gpus))
    working = np.array([_busy(place // PER_NODE) for place in range(gpus)])
    values = np.stack([_draw(random, name, working[:, None], (gpus, steps)) for name in names])
    job = np.array([_job(place // PER_NODE) for place in range(gpus)], np.int32)
    described = signals.load()
    return Telemetry(
        tuple(described.describe(name) for name in names),
        fleet,
        1.7e9 + step * np.arange(steps, dtype=np.float64),
        values.astype(np.float32),
        np.repeat(np.where(working, job, IDLE).astype(np.int32)[:, None], steps, axis=1),
        tuple(f"job-{number}" for number in range(int(job.max()) + 1)),
    )


@dataclass(frozen=True, slots=True)
class Server:
    """A running Prometheus."""

    url: str
    pid: int

    def cpu_seconds(self) -> float:
        """What it has used so far."""
        used = psutil.Process(self.pid).cpu_times()
        return float(used.user + used.system)


@contextmanager
def scraped(folder: Path, gpus: int, kinds: int, interval: float, push_to: str | None = None) -> Iterator[Server]:
    """A Prometheus that scrapes such a fleet, one target a node, and may push it to a URL."""
    nodes = -(-gpus // PER_NODE)
    listener = socket.create_server(("127.0.0.1", 0), backlog=1024)
    port = listener.getsockname()[1]
    exporter = multiprocessing.get_context("fork").Process(target=_serve, args=(listener, gpus, kinds), daemon=True)
    exporter.start()
    listener.close()
    try:
        with _prometheus(folder, port, nodes, interval, push_to) as server:
            yield server
    finally:
        exporter.terminate()
        exporter.join()


@contextmanager
def _prometheus(folder: Path, exporter: int, nodes: int, interval: float, push_to: str | None) -> Iterator[Server]:
    port = _free_port()
    targets = [
        {
            "targets": [f"127.0.0.1:{exporter}"],
            "labels": {"__metrics_path__": f"/{node}", "node": _node(node), "rack": _rack(node)},
        }
        for node in range(nodes)
    ]
    (folder / "targets.json").write_text(json.dumps(targets))
    configuration: dict[str, object] = {
        "global": {"scrape_interval": f"{interval:g}s", "scrape_timeout": f"{interval:g}s"},
        "scrape_configs": [
            {
                "job_name": "nodes",
                "file_sd_configs": [{"files": [str(folder / "targets.json")]}],
                # As if recorded by rules: nothing of the scrape is left in the labels.
                "metric_relabel_configs": [
                    {"action": "labeldrop", "regex": "instance|job"},
                    {"action": "labelmap", "regex": "exported_(job)"},
                    {"action": "labeldrop", "regex": "exported_job"},
                ],
            }
        ],
    }
    if push_to:
        configuration["remote_write"] = [
            {
                "url": push_to,
                "queue_config": {"batch_send_deadline": "1s", "max_samples_per_send": 2000},
                "write_relabel_configs": [{"source_labels": ["__name__"], "regex": "gpu:.*", "action": "keep"}],
            }
        ]
    (folder / "prometheus.yml").write_text(json.dumps(configuration))
    command = [
        _program(),
        f"--config.file={folder / 'prometheus.yml'}",
        f"--storage.tsdb.path={folder / 'data'}",
        f"--web.listen-address=127.0.0.1:{port}",
        f"--query.lookback-delta={LOOKBACK_STEPS * interval:g}s",
        "--log.level=error",
    ]
    with (folder / "prometheus.log").open("w") as output:
        server = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)  # noqa: S603
    try:
        url = f"http://127.0.0.1:{port}"
        _await_ready(url, folder / "prometheus.log")
        yield Server(url, server.pid)
    finally:
        server.terminate()
        server.wait()


def _await_ready(url: str, output: Path) -> None:
    deadline = time.monotonic() + _READY_SECONDS
    while time.monotonic() < deadline:
        try:
            if httpx.get(f"{url}/-/ready").status_code == 200:
                return
        except httpx.ConnectError:
            time.sleep(0.1)
    raise TimeoutError(f"Prometheus did not become ready: {output.read_text()}")


def _program() -> str:
    """Prometheus as scripts/servers left it, or the one on PATH."""
    ours = Path(os.environ.get("STETHOS_HOME") or ".stethos").absolute() / "bin" / "prometheus"
    found = str(ours) if os.access(ours, os.X_OK) else shutil.which("prometheus")
    if found is None:
        raise FileNotFoundError(f"there is no {ours} and no prometheus on PATH: scripts/servers puts it there")
    return found


def _serve(listener: socket.socket, gpus: int, kinds: int) -> None:
    asyncio.run(_answer(listener, _pages(gpus, kinds)))


async def _answer(listener: socket.socket, pages: list[list[bytes]]) -> None:
    async def connected(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        asked: dict[int, int] = {}
        try:
            while request := await reader.readuntil(b"\r\n\r\n"):
                node = int(request.split(b" ", 2)[1][1:])
                asked[node] = asked.get(node, -1) + 1
                body = pages[node][asked[node] % _PHASES]
                head = f"HTTP/1.1 200 OK\r\nContent-Type: text/plain; version=0.0.4\r\nContent-Length: {len(body)}\r\n"
                writer.write(head.encode() + b"\r\n" + body)
        except (asyncio.IncompleteReadError, ConnectionError):
            writer.close()

    server = await asyncio.start_server(connected, sock=listener)
    async with server:
        await server.serve_forever()


def _pages(gpus: int, kinds: int) -> list[list[bytes]]:
    """What each node answers, phase after phase."""
    random = np.random.default_rng(1)
    return [
        [_page(random, node, min(PER_NODE, gpus - node * PER_NODE), kinds) for _ in range(_PHASES)]
        for node in range(-(-gpus // PER_NODE))
    ]


def _page(random: np.random.Generator, node: int, count: int, kinds: int) -> bytes:
    lines = []
    labels = []
    for index in range(count):
        gpu = _gpu(node, index)
        labels.append(f'gpu="{gpu.gpu}",uuid="{gpu.uuid}",model="{gpu.model}"')
    working = np.full(count, _busy(node))
    for name in list(_READINGS)[:kinds]:
        values = _draw(random, name, working, (count,)).tolist()
        metric = _READINGS[name][0]
        lines += [f"{metric}{{{label}}} {value:.6g}" for label, value in zip(labels, values, strict=True)]
    if _busy(node):
        lines += [f'gpu:job:info{{gpu="{index}",exported_job="job-{_job(node)}"}} 1' for index in range(count)]
    return ("\n".join(lines) + "\n").encode()


def _draw(
    random: np.random.Generator, name: str, working: np.ndarray, shape: tuple[int, ...]
) -> np.ndarray[tuple[int, ...], np.dtype[np.float64]]:
    _, busy, less, noise = _READINGS[name]
    return np.maximum(busy - less * ~working + noise * random.standard_normal(shape), 0.0)


def _gpu(node: int, index: int) -> Gpu:
    uuid = f"GPU-{node:08x}-0000-4000-8000-{index:012x}"
    return Gpu(_node(node), str(index), uuid, "NVIDIA H100 80GB HBM3", _rack(node))


def _node(node: int) -> str:
    return f"node-{node + 1:05d}"


def _rack(node: int) -> str:
    return f"rack-{node // _NODES_PER_RACK + 1}"


def _job(node: int) -> int:
    return node // _NODES_PER_JOB


def _busy(node: int) -> bool:
    return _job(node) % 2 == 0


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
