"""Real servers with the shipped configuration: what is scraped is recorded, and alerts arrive at the webhook."""

import json
import socket
import time
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import httpx
import pytest

from tests.prometheus.servers import CONFIGURATION, program, running

TOKEN = "a-token-for-the-test"  # noqa: S105
PAGE = """\
# TYPE DCGM_FI_DEV_GPU_TEMP gauge
DCGM_FI_DEV_GPU_TEMP{gpu="0",UUID="GPU-1",device="nvidia0",modelName="NVIDIA H100",Hostname="own-name"} 61
"""


class Stethos(ThreadingHTTPServer):
    """Stands at the other end: an exporter with one node, and the scheduler's webhook."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = f"127.0.0.1:{self.server_port}"
        self.delivered: list[dict[str, Any]] = []


class Handler(BaseHTTPRequestHandler):
    server: Stethos

    def answer(self, status: int, body: str = "", kind: str = "text/plain; version=0.0.4") -> None:
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.end_headers()
        self.wfile.write(body.encode())

    def authorized(self) -> bool:
        return self.headers["Authorization"] == f"Bearer {TOKEN}"

    def do_GET(self) -> None:
        if not self.authorized():
            self.answer(401)
        elif self.path == "/discovery":
            labels = {"__metrics_path__": "/nodes/n1/metrics", "node": "n1", "rack": "r1", "switch": "s1"}
            targets = [{"targets": [self.server.address], "labels": labels}]
            self.answer(200, json.dumps(targets), "application/json")
        else:
            self.answer(200, PAGE if self.path == "/nodes/n1/metrics" else "")

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.authorized() and self.path == "/v1/alerts":
            self.server.delivered += json.loads(body)["alerts"]
        self.answer(200)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        """Quiet."""


@pytest.fixture
def stethos() -> Iterator[Stethos]:
    with Stethos() as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield server
        server.shutdown()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def configuration(name: str, folder: Path, stethos: Stethos) -> Path:
    """The shipped file with the test's addresses, a test's patience and everything else as it is."""
    text = (CONFIGURATION / name).read_text()
    for service in ("exporters:9400", "scheduler:8080", "detector:9401"):
        text = text.replace(service, stethos.address)
    text = text.replace("/run/stethos/token", str(folder / "token")).replace(
        "  - rules/", f"  - {CONFIGURATION}/rules/"
    )
    text = text.replace("  - alerts/", f"  - {CONFIGURATION}/alerts/")
    text = text.replace("scrape_timeout: 4s", "scrape_timeout: 1s").replace("_interval: 5s", "_interval: 1s")
    (folder / "token").write_text(TOKEN)
    (folder / name).write_text(text)
    return folder / name


def eventually(what: Callable[[], Any], seconds: float = 20) -> Any:
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        try:
            if found := what():
                return found
        except (httpx.TransportError, ValueError):  # not there yet, or not answering in JSON yet
            pass
        time.sleep(0.2)
    return pytest.fail(f"nothing within {seconds} s")


def test_what_an_exporter_shows_is_recorded(tmp_path: Path, stethos: Stethos) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    file = configuration("prometheus.yml", tmp_path, stethos)
    flags = [f"--config.file={file}", f"--storage.tsdb.path={tmp_path}/data", f"--web.listen-address={url[7:]}"]

    def ask(query: str) -> list[dict[str, Any]]:
        answer = httpx.get(f"{url}/api/v1/query", params={"query": query}).json()
        result: list[dict[str, Any]] = answer.get("data", {}).get("result", [])
        return result

    with running(program("prometheus"), *flags, log=tmp_path / "log"):
        (recorded,) = eventually(lambda: ask("gpu:temperature:celsius"))
        (target,) = ask('up{job="nodes"}')
    identity = {"gpu": "0", "uuid": "GPU-1", "model": "NVIDIA H100", "rack": "r1"}
    assert recorded["metric"] == {"__name__": "gpu:temperature:celsius", "node": "n1", **identity}
    assert recorded["value"][1] == "61"
    labels = {"job": "nodes", "instance": "n1", "node": "n1", "rack": "r1", "switch": "s1"}
    assert target["metric"] == {"__name__": "up", **labels}
    assert target["value"][1] == "1"


def test_alerts_reach_the_webhook_except_those_another_explains(tmp_path: Path, stethos: Stethos) -> None:
    url = f"http://127.0.0.1:{free_port()}"
    file = configuration("alertmanager.yml", tmp_path, stethos)
    flags = [f"--config.file={file}", f"--storage.path={tmp_path}/data", f"--web.listen-address={url[7:]}"]
    alerts = [
        {"alertname": "NodeDown", "severity": "critical", "node": "n1"},
        {"alertname": "GpuAnomalous", "severity": "warning", "node": "n1", "gpu": "0"},
        {"alertname": "GpuAnomalous", "severity": "warning", "node": "n2", "gpu": "0"},
        {"alertname": "GroupAnomalous", "severity": "warning", "group_type": "rack", "group": "r1", "rack": "r1"},
        {"alertname": "GpuAnomalous", "severity": "warning", "node": "n3", "gpu": "0", "rack": "r1"},
        {"alertname": "GpuAnomalousSevere", "severity": "critical", "node": "n3", "gpu": "0", "rack": "r1"},
        {"alertname": "GroupAnomalous", "severity": "warning", "group_type": "job", "group": "j1", "job": "j1"},
        {"alertname": "GpuAnomalous", "severity": "warning", "node": "n4", "gpu": "0", "rack": "r2", "job": "j1"},
        {"alertname": "GpuAnomalous", "severity": "warning", "node": "n5", "gpu": "0", "rack": "r2", "job": "j2"},
    ]

    def delivered() -> list[tuple[str, str]]:
        found = (each["labels"] for each in stethos.delivered)
        return sorted((labels["alertname"], labels.get("node") or labels["group"]) for labels in found)

    with running(program("alertmanager"), *flags, "--cluster.listen-address=", log=tmp_path / "log"):
        eventually(lambda: httpx.get(f"{url}/-/ready").is_success)
        httpx.post(f"{url}/api/v2/alerts", json=[{"labels": labels} for labels in alerts]).raise_for_status()
        eventually(lambda: len(delivered()) >= 5)
        time.sleep(1.5)  # longer than group_wait: what was held back until now stays held back
    assert delivered() == [
        ("GpuAnomalous", "n2"),
        ("GpuAnomalous", "n5"),
        ("GroupAnomalous", "j1"),
        ("GroupAnomalous", "r1"),
        ("NodeDown", "n1"),
    ]
