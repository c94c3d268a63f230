"""A real Prometheus that already holds a fleet's history, so that minutes of telemetry cost no waiting."""

import socket
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Protocol

import httpx
import pytest

from detector.telemetry import IDLE, UNKNOWN, Telemetry

from ..prometheus.servers import program, running

RECORDED = {
    "utilization_ratio": "gpu:utilization:ratio",
    "temperature_celsius": "gpu:temperature:celsius",
    "power_watts": "gpu:power:watts",
    "sm_clock_hertz": "gpu:sm_clock:hertz",
    "ecc_corrected_total": "gpu:ecc_corrected:total",
    "power_limit_watts": "gpu:power_limit:watts",
}


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def openmetrics(fleet: Telemetry) -> Iterator[str]:
    """The telemetry as the recording rules would have left it, for promtool to import."""
    for signal, plane in zip(fleet.signals, fleet.values, strict=True):
        name = RECORDED[signal.name]
        yield f"# TYPE {name} gauge"
        for gpu, samples in zip(fleet.gpus, plane, strict=True):
            labels = f'node="{gpu.node}",gpu="{gpu.gpu}",uuid="{gpu.uuid}",model="{gpu.model}",rack="{gpu.rack}"'
            for at, value in zip(fleet.timestamps, samples.tolist(), strict=True):
                if value == value:
                    yield f"{name}{{{labels}}} {value!r} {at:.3f}"
    yield "# TYPE gpu:job:info gauge"
    for gpu, row in zip(fleet.gpus, fleet.job, strict=True):
        for at, job in zip(fleet.timestamps, row.tolist(), strict=True):
            if job != IDLE:
                role = f',role="{job}"' if fleet.jobs.count(fleet.jobs[job]) > 1 else ""
                yield f'gpu:job:info{{node="{gpu.node}",gpu="{gpu.gpu}",job="{fleet.jobs[job]}"{role}}} 1 {at:.3f}'
    yield "# TYPE gpu:nvlink:info gauge"
    for gpu in fleet.gpus:
        for at in fleet.timestamps if gpu.island else ():
            yield f'gpu:nvlink:info{{node="{gpu.node}",gpu="{gpu.gpu}",island="{gpu.island}"}} 1 {at:.3f}'
    yield "# TYPE gpu:software:info gauge"
    for gpu, row in zip(
        fleet.gpus, [] if fleet.software is None else fleet.software, strict=fleet.software is not None
    ):
        for at, code in zip(fleet.timestamps, row.tolist(), strict=True):
            if code != UNKNOWN:
                driver, vbios = fleet.releases[code].split(" ")
                labels = f'node="{gpu.node}",gpu="{gpu.gpu}",driver="{driver}",vbios="{vbios}"'
                yield f"gpu:software:info{{{labels}}} 1 {at:.3f}"
    yield "# TYPE up gauge"
    for node in sorted({gpu.node for gpu in fleet.gpus}):
        for at in fleet.timestamps:
            yield f'up{{node="{node}"}} 1 {at:.3f}'
    yield "# EOF"


class Serve(Protocol):
    def __call__(self, fleet: Telemetry, *flags: str) -> str: ...


@pytest.fixture
def prometheus(tmp_path: Path) -> Iterator[Serve]:
    """Starts a Prometheus that holds the given telemetry, with these flags; the call returns its URL."""
    servers = []

    def serve(fleet: Telemetry, *flags: str) -> str:
        port, history = free_port(), tmp_path / "history.om"
        history.write_text("\n".join(openmetrics(fleet)) + "\n")
        blocks = [program("promtool"), "tsdb", "create-blocks-from", "openmetrics", "-q", history, tmp_path / "data"]
        subprocess.run(list(map(str, blocks)), check=True, capture_output=True)
        (tmp_path / "prometheus.yml").write_text("global: {scrape_interval: 5s}\n")
        server = running(
            program("prometheus"),
            f"--config.file={tmp_path / 'prometheus.yml'}",
            f"--storage.tsdb.path={tmp_path / 'data'}",
            "--storage.tsdb.retention.time=100y",
            # A vanished series has no staleness mark in imported data: this ends it after one step.
            "--query.lookback-delta=4s",
            f"--web.listen-address=127.0.0.1:{port}",
            *flags,
            log=tmp_path / "prometheus.log",
        )
        server.__enter__()
        servers.append(server)
        url = f"http://127.0.0.1:{port}"
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            try:
                if httpx.get(f"{url}/-/ready").status_code in (200, 401):
                    return url
            except httpx.ConnectError:
                pass
            time.sleep(0.1)
        raise TimeoutError((tmp_path / "prometheus.log").read_text())

    yield serve
    for server in servers:
        server.__exit__(None, None, None)
