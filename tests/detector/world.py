"""A small fleet that a test breaks as it likes, scraped every second by a real Prometheus."""

from __future__ import annotations

import json
import signal
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
from prometheus_client.parser import text_string_to_metric_families

from detector import signals
from detector.fleet import Fleet
from detector.promql import Prometheus
from detector.service import Service
from detector.signals import Signals

from ..prometheus.servers import program
from .conftest import free_port

STEP = 1.0
NODES = ("node-01", "node-02", "node-03", "node-04")
PER_NODE = 4
READINGS = {
    "gpu:utilization:ratio": "0",
    "gpu:temperature:celsius": "31",
    "gpu:power:watts": "72",
    "gpu:sm_clock:hertz": "345000000",
    "gpu:ecc_corrected:total": "7",
}


@dataclass
class Exporter:
    """What each node reports; a node that is down answers 503."""

    readings: dict[tuple[str, str], dict[str, str]] = field(default_factory=dict)
    labels: dict[tuple[str, str], str] = field(default_factory=dict)
    more: list[tuple[str, str]] = field(default_factory=list)  # node and a line
    down: set[str] = field(default_factory=set)

    def reset(self) -> None:
        self.readings, self.labels, self.more, self.down = {}, {}, [], set()
        for node in NODES:
            self.add(node, PER_NODE)

    def add(self, node: str, gpus: int) -> None:
        for gpu in map(str, range(gpus)):
            self.readings[node, gpu] = dict(READINGS)
            self.labels[node, gpu] = f'uuid="GPU-{node}-{gpu}",model="H100",rack="rack-1"'

    def page(self, node: str) -> str:
        lines = [
            f'{name}{{gpu="{gpu}",{self.labels[of, gpu]}}} {value}'
            for (of, gpu), readings in list(self.readings.items())
            if of == node
            for name, value in list(readings.items())
        ]
        return "\n".join([*lines, *(line for of, line in self.more if of == node)]) + "\n"


@dataclass
class World:
    """The exporter, Prometheus, and how to stop, stall and start it."""

    folder: Path
    exporter: Exporter
    exporter_port: int
    port: int = field(default_factory=free_port)
    settings: dict[str, object] = field(default_factory=dict)
    process: subprocess.Popen[bytes] | None = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def start(self) -> None:
        self.folder.mkdir(exist_ok=True)
        targets = [
            {"targets": [f"127.0.0.1:{self.exporter_port}"], "labels": {"__metrics_path__": f"/{node}", "node": node}}
            for node in NODES
        ]
        scrape = {
            "job_name": "nodes",
            "static_configs": targets,
            "metric_relabel_configs": [{"action": "labeldrop", "regex": "instance|job"}],
        }
        configuration = {"global": {"scrape_interval": "1s", "scrape_timeout": "1s"}, "scrape_configs": [scrape]}
        (self.folder / "prometheus.yml").write_text(json.dumps(configuration | self.settings))
        with (self.folder / "log").open("w") as log:
            command = [
                program("prometheus"),
                f"--config.file={self.folder / 'prometheus.yml'}",
                f"--storage.tsdb.path={self.folder / 'data'}",
                f"--web.listen-address=127.0.0.1:{self.port}",
            ]
            self.process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)

    def stop(self) -> None:
        if self.process:
            self.process.kill()
            self.process.wait()
            self.process = None

    @contextmanager
    def stalled(self) -> Iterator[None]:
        """Connections are accepted, and nothing answers."""
        assert self.process
        self.process.send_signal(signal.SIGSTOP)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGCONT)


@contextmanager
def world(folder: Path, settings: dict[str, object] | None = None) -> Iterator[World]:
    exporter = Exporter()
    exporter.reset()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            node = self.path[1:]
            body = exporter.page(node).encode()
            self.send_response(503 if node in exporter.down else 200)
            self.send_header("Content-Type", "text/plain; version=0.0.4")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    made = World(folder, exporter, server.server_port, settings=settings or {})
    try:
        yield made
    finally:
        made.stop()
        server.shutdown()
        thread.join()
        server.server_close()


class Watch:
    """The service with a clock of its own, and what its page says."""

    def __init__(self, client: Prometheus, models: Path, wanted: Signals | None = None) -> None:
        self.ahead = 0.0
        fleet = Fleet(client, wanted or signals.load(), models / "models", STEP)
        self.service = Service(fleet, STEP, clock=self.now)

    def now(self) -> float:
        return time.time() + self.ahead

    def look(self) -> dict[str, float]:
        """One tick, and the samples of the page after it; those about a GPU end in `node/gpu`."""
        self.service.tick()
        return self.page()

    def page(self) -> dict[str, float]:
        found = {}
        for family in text_string_to_metric_families(self.service.metrics().decode()):
            for sample in family.samples:
                labels = dict(sample.labels)
                gpu = f"{labels.pop('node')}/{labels.pop('gpu')}" if "gpu" in labels else ""
                labels.pop("uuid", None)
                found[" ".join((sample.name, *labels.values(), gpu)).strip()] = sample.value
        return found

    def until(self, what: str, reached: Callable[[dict[str, float]], bool], seconds: float = 150.0) -> dict[str, float]:
        """Look every half step until the page is as wanted."""
        deadline = time.monotonic() + seconds
        while not reached(page := self.look()):
            if time.monotonic() > deadline:
                raise TimeoutError(f"{what}: not within {seconds:.0f} s; {page}")
            time.sleep(STEP / 2)
        return page


def scores(page: dict[str, float]) -> dict[str, float]:
    name = "stethos_anomaly_score "
    return {key.removeprefix(name): value for key, value in page.items() if key.startswith(name)}


def answers(url: str) -> bool:
    try:
        return httpx.get(f"{url}/-/ready").status_code == 200
    except httpx.HTTPError:
        return False
