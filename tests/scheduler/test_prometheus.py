"""The scores as a real Prometheus has them, from a small server that it scrapes."""

import os
import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
import uvicorn
from prometheus_client import CollectorRegistry, Gauge, start_http_server

from scheduler.api import Configuration, application
from scheduler.cycle import Settings
from scheduler.health import Thresholds
from scheduler.remediation import Policy
from scheduler.server import listen
from scheduler.store import Store

from .processes import ROOT, Json, until

FAST = Settings(
    lost_seconds=120, health_every=0.3, thresholds=Thresholds(clear_seconds=1.0), policy=Policy(canary_seconds=0)
)


def binary() -> str:
    found = (
        os.environ.get("STETHOS_PROMETHEUS")
        or shutil.which("prometheus", path=ROOT / ".stethos" / "bin")
        or shutil.which("prometheus")
    )
    if not found:
        pytest.skip("no Prometheus here: run scripts/servers, or set STETHOS_PROMETHEUS")
    return found


class Detector:
    """What the detector exposes, at values that the test sets."""

    def __init__(self) -> None:
        registry = CollectorRegistry()
        self.score = Gauge("stethos_anomaly_score", "1 is the threshold", ["node", "gpu", "uuid"], registry=registry)
        labels = ["node", "gpu", "uuid"]
        self.contribution = Gauge("stethos_anomaly_contribution", "share", [*labels, "signal"], registry=registry)
        self.cause = Gauge("stethos_anomaly_cause", "1", [*labels, "cause"], registry=registry)
        self._server, self._thread = start_http_server(0, "127.0.0.1", registry)
        self.port = self._server.server_port

    def set(self, gpu: int, score: float) -> None:
        self.score.labels("n", str(gpu), f"GPU-{gpu}").set(score)

    def explain(self, gpu: int, cause: str, **shares: float) -> None:
        labels = "n", str(gpu), f"GPU-{gpu}"
        self.cause.labels(*labels, cause).set(1)
        for signal, share in shares.items():
            self.contribution.labels(*labels, signal).set(share)

    def close(self) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join()


class Prometheus:
    def __init__(self, home: Path, target: int) -> None:
        socket = listen("127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{socket.getsockname()[1]}"
        socket.close()
        config = home / "prometheus.yml"
        config.write_text(
            "scrape_configs: [{job_name: detector, scrape_interval: 500ms, scrape_timeout: 400ms, "
            f"static_configs: [{{targets: ['127.0.0.1:{target}']}}]}}]\n"
        )
        with (home / "prometheus.log").open("wb") as log:
            self.child = subprocess.Popen(
                [
                    binary(),
                    f"--config.file={config}",
                    f"--storage.tsdb.path={home / 'tsdb'}",
                    f"--web.listen-address={self.url.removeprefix('http://')}",
                ],
                stdout=log,
                stderr=log,
            )

    def stop(self) -> None:
        self.child.kill()
        self.child.wait()


@pytest.fixture(scope="module")
def detector() -> Iterator[Detector]:
    found = Detector()
    yield found
    found.close()


@pytest.fixture(scope="module")
def prometheus(tmp_path_factory: pytest.TempPathFactory, detector: Detector) -> Iterator[Prometheus]:
    found = Prometheus(tmp_path_factory.mktemp("prometheus"), detector.port)
    yield found
    found.stop()


@pytest.fixture
def http(tmp_path: Path, prometheus: Prometheus) -> Iterator[httpx.Client]:
    """A scheduler in this process, with short intervals, that reads the real Prometheus."""
    listening = listen("127.0.0.1", 0)
    app = application(
        Configuration(Store(tmp_path / "db"), "secret", tmp_path / "token", prometheus=prometheus.url, settings=FAST)
    )
    server = uvicorn.Server(uvicorn.Config(app, log_config=None, lifespan="on", timeout_graceful_shutdown=1))
    thread = threading.Thread(target=server.run, kwargs={"sockets": [listening]})
    thread.start()
    url = f"http://127.0.0.1:{listening.getsockname()[1]}"
    with httpx.Client(base_url=url, headers={"Authorization": "Bearer secret"}, timeout=10) as client:
        until(lambda: server.started)
        client.post("/v1/nodes", json={"node": "n", "gpus": 2})
        client.post("/v1/heartbeats", json={"nodes": [{"node": "n", "attempts": []}]})
        yield client
    server.should_exit = True
    thread.join()
    listening.close()


def gpus(http: httpx.Client) -> list[Json]:
    found: list[Json] = http.get("/v1/nodes/n").json()["gpus"]
    return found


def test_a_high_score_comes_with_its_reasons_and_a_low_one_without(http: httpx.Client, detector: Detector) -> None:
    for gpu in (0, 1):
        detector.explain(gpu, "cooling", power_watts=0.25, temperature_celsius=0.75)
    detector.set(0, 0.2)
    detector.set(1, 1.4)
    found = until(lambda: gpus(http)[1]["anomaly"] and gpus(http)[1]["score"] == 1.4 and gpus(http)[1]["anomaly"])
    assert found == {
        "cause": "cooling",
        "contributions": [
            {"signal": "temperature_celsius", "share": 0.75},
            {"signal": "power_watts", "share": 0.25},
        ],
    }
    assert gpus(http)[0]["score"] == 0.2
    assert gpus(http)[0]["anomaly"] is None
    assert [gpu["anomaly"] for gpu in http.get("/v1/fleet").json()["nodes"][0]["gpus"]] == [None, found]


def test_a_bad_score_keeps_work_off_and_a_lasting_good_one_brings_it_back(
    http: httpx.Client, detector: Detector
) -> None:
    detector.set(0, 0.1)
    detector.set(1, 1.4)
    # An earlier test's scores are still in Prometheus, and cordon as well.
    until(lambda: [(gpu["state"], gpu["score"]) for gpu in gpus(http)] == [("free", 0.1), ("cordoned", 1.4)])
    assert gpus(http)[1]["cordon"] | {"since": 0} == {"reason": "score 1.40", "owner": "stethos", "since": 0}
    jobs = [http.post("/v1/jobs", json={"type": "sleep", "gpus": 1}).json() for _ in range(2)]
    first, second = (until(lambda job=job: placed_or_told(http, job["id"])) for job in jobs)  # type: ignore[misc]
    assert first["placement"] == [{"node": "n", "gpus": [0]}]
    assert second["reason"] == "needs 1 GPU on one node; best node has 0 free, 1 cordoned (score 1.40)"

    detector.set(1, 0.8)
    time.sleep(2)
    assert gpus(http)[1]["state"] == "cordoned"
    detector.set(1, 0.2)
    until(lambda: gpus(http)[1]["state"] == "busy")
    assert http.get(f"/v1/jobs/{second['id']}").json()["placement"] == [{"node": "n", "gpus": [1]}]


def placed_or_told(http: httpx.Client, job: str) -> Json | None:
    found: Json = http.get(f"/v1/jobs/{job}").json()
    return found if found["placement"] or found["reason"] else None


def test_work_goes_on_when_prometheus_is_gone(http: httpx.Client, prometheus: Prometheus, detector: Detector) -> None:
    detector.set(0, 0.1)
    detector.set(1, 0.1)
    until(lambda: http.get("/v1/fleet").json()["health"]["scores"] == 2)
    assert "stethos_scheduler_health_up 1.0" in http.get("/metrics").text
    prometheus.stop()
    until(lambda: http.get("/v1/fleet").json()["health"]["state"] == "unreachable")
    assert "stethos_scheduler_health_up 0.0" in http.get("/metrics").text
    job = http.post("/v1/jobs", json={"type": "sleep", "gpus": 2}).json()
    until(lambda: http.get(f"/v1/jobs/{job['id']}").json()["placement"])
