import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import numpy as np
import pytest
import uvicorn
from click.testing import CliRunner
from prometheus_client.parser import text_string_to_metric_families

from detector import signals
from detector.__main__ import cli
from detector.findings import Findings
from detector.fleet import Fleet
from detector.promql import Prometheus
from detector.service import Service, application
from detector.state import Snapshot
from detector.telemetry import Gpu

STEP = 5.0
SICK = Gpu("node-01", "3", "GPU-x", "H100", "rack-1")


@contextmanager
def served(tmp_path: Path, token: str | None = None) -> Iterator[tuple[Service, httpx.Client]]:
    """The detector's pages over HTTP, its Prometheus out of reach, its ticks left to the test (no lifespan)."""
    listener = socket.create_server(("127.0.0.1", 0))
    with Prometheus("http://127.0.0.1:9", timeout=0.5) as prometheus:
        service = Service(Fleet(prometheus, signals.load(), tmp_path, STEP), STEP)
        app = application(service, STEP, token)
        server = uvicorn.Server(uvicorn.Config(app, lifespan="off", log_config=None))
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}") as client:
                yield service, client
        finally:
            server.should_exit = True
            thread.join()
            listener.close()


def snapshot(at: float) -> Snapshot:
    found = Findings(
        (SICK,),
        ("temperature_celsius", "power_watts"),
        np.array([1.7], np.float32),
        np.array([[0, 1, -1]]),
        np.array([[0.9, 0.1, 0.0]], np.float32),
        {0: "cooling"},
    )
    rack = ("rack", "rack-1")
    return Snapshot(at, found, {rack: 1.4}, {rack: "cooling"}, {"model": 1}, 1.0, "v1", at - 60)


def samples(text: str) -> dict[str, float]:
    return {
        sample.name + "".join(sorted(f",{value}" for value in sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def test_a_verdict_becomes_a_score_its_contributions_and_its_cause(tmp_path: Path) -> None:
    with served(tmp_path) as (service, client):
        service.publish(snapshot(time.time()))
        found = samples(client.get("/metrics").text)
    assert found["stethos_anomaly_score,3,GPU-x,node-01"] == 1.7
    assert found["stethos_anomaly_contribution,3,GPU-x,node-01,temperature_celsius"] == 0.9
    assert found["stethos_anomaly_cause,3,GPU-x,cooling,node-01"] == 1
    assert found["stethos_group_anomaly_score,rack,rack-1"] == 1.4
    assert found["stethos_group_anomaly_cause,cooling,rack,rack-1"] == 1
    assert found["stethos_detector_model_info,model,v1"] == 1


def test_a_stale_score_is_not_there_and_the_detector_says_so(tmp_path: Path) -> None:
    with served(tmp_path) as (service, client):
        service.publish(snapshot(time.time() - 4 * STEP))
        page = client.get("/metrics").text
        assert "stethos_anomaly_score{" not in page
        assert "stethos_detector_input_coverage_ratio" not in page
        assert "stethos_detector_last_success_timestamp_seconds" in page
        answer = client.get("/readyz")
    assert answer.status_code == 503
    assert "the last look was" in answer.json()["detail"]


def test_without_prometheus_it_lives_counts_the_failures_and_is_not_ready(tmp_path: Path) -> None:
    with served(tmp_path) as (service, client):
        service.tick()
        service.tick()
        assert samples(client.get("/metrics").text)["stethos_detector_ticks_total,failed"] == 2
        assert client.get("/livez").status_code == 200
        assert "does not answer" in client.get("/readyz").json()["detail"]


def test_beyond_loopback_only_the_probes_go_without_the_token(tmp_path: Path) -> None:
    with served(tmp_path, token="secret") as (_, client):  # noqa: S106
        refused = client.get("/metrics")
        assert refused.status_code == 401
        assert refused.headers["www-authenticate"] == "Bearer"
        assert client.get("/livez").status_code == 200
        assert client.get("/metrics", headers={"Authorization": "Bearer secret"}).status_code == 200
        assert client.get("/metrics", headers={"Authorization": "Bearer other"}).status_code == 401


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["train"], "either --recording or --prometheus"),
        (["train", "--prometheus", "http://127.0.0.1:9"], "needs --start and a later --end"),
        (
            ["train", "--prometheus", "http://127.0.0.1:9", "--start", "2026-01-02", "--end", "2026-01-01"],
            "needs --start and a later --end",
        ),
        (["train", "--recording", "/nowhere.parquet"], "'/nowhere.parquet' does not exist"),
        (["train", "--recording", __file__], "is not a readable Parquet file"),
        (["run", "--prometheus", "127.0.0.1:9"], "'127.0.0.1:9' is not a URL"),
        (["run", "--prometheus", "http://127.0.0.1:port"], "'http://127.0.0.1:port' is not a URL"),
        (["run", "--prometheus", "http://127.0.0.1:9", "--step", "0"], "0.0 is not in the range"),
        (["run", "--prometheus", "http://127.0.0.1:9", "--signals", __file__], "is not YAML"),
    ],
)
def test_bad_input_is_one_sentence_that_names_it(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(cli, arguments)
    assert result.exit_code != 0
    assert said in result.output
    assert "Traceback" not in result.output
