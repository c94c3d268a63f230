"""What every exporter's HTTP face has."""

import time

import httpx
import pytest
from prometheus_client.openmetrics import parser as openmetrics

from exporters.synthetic.fleet import build
from exporters.synthetic.source import SyntheticSource
from tests.exporters.conftest import Serving, synthetic_app
from tests.exporters.series import samples, value


@pytest.fixture
def client(serving: Serving) -> httpx.Client:
    return serving(synthetic_app(SyntheticSource(build(8, 8, 32, ["H100"], 7))))


def test_discovery_gives_back_the_address_it_was_asked_by(client: httpx.Client) -> None:
    groups = client.get("/discovery", headers={"Host": "exporters:9400"}).json()
    assert len(groups) == 8
    assert groups[4] == {
        "targets": ["exporters:9400"],
        "labels": {
            "__metrics_path__": "/nodes/node-05/metrics",
            "node": "node-05",
            "rack": "rack-2",
            "switch": "switch-1",
        },
    }


def test_a_page_has_its_gpus_and_tells_about_its_collectors(client: httpx.Client) -> None:
    answer = client.get("/nodes/node-01/metrics")
    assert answer.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert len(samples(answer.text, "DCGM_FI_DEV_GPU_TEMP")) == 8
    assert value(answer.text, "stethos_exporter_collector_success", collector="dcgm") == 1
    assert value(answer.text, "stethos_exporter_collector_duration_seconds", collector="dcgm") is not None
    age = value(answer.text, "stethos_exporter_reading_age_seconds", gpu="7")
    assert age is not None
    assert 0 <= age < 5


@pytest.mark.parametrize(
    ("accept", "given"),
    [
        ("application/openmetrics-text;version=1.0.0", "application/openmetrics-text"),
        ("application/openmetrics-text;version=1.0.0;q=0.5,text/plain;version=0.0.4;q=0.3,*/*;q=0.1", "text/plain"),
    ],
)
@pytest.mark.parametrize("path", ["/metrics", "/nodes/node-01/metrics"])
def test_openmetrics_is_for_who_takes_nothing_else(client: httpx.Client, path: str, accept: str, given: str) -> None:
    answer = client.get(path, headers={"Accept": accept})
    assert answer.headers["content-type"].startswith(given)
    assert answer.text.endswith("# EOF\n") == (given == "application/openmetrics-text")
    if answer.text.endswith("# EOF\n"):
        families = list(openmetrics.text_string_to_metric_families(answer.text))  # type: ignore[no-untyped-call]
        assert len(families) > 5


def test_the_process_tells_about_itself(client: httpx.Client) -> None:
    text = client.get("/metrics").text
    assert value(text, "stethos_exporter_nodes") == 8
    assert (value(text, "process_resident_memory_bytes") or 0) > 1e6


def test_the_index_links_everything(client: httpx.Client) -> None:
    text = client.get("/").text
    for link in ("/metrics", "/discovery", "/readyz", "/nodes/node-08/metrics"):
        assert f'href="{link}"' in text


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [("GET", "/nope", 404), ("GET", "/nodes/node-77/metrics", 404), ("POST", "/metrics", 405)],
)
def test_errors_are_problems(client: httpx.Client, method: str, path: str, status: int) -> None:
    answer = client.request(method, path)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert answer.json()["instance"] == path


def test_a_fleet_that_stops_is_not_ready() -> None:
    now = 0.0
    source = SyntheticSource(build(1, 8, 32, ["H100"], 7), monotonic=lambda: now)
    assert source.unready() is None
    now = 20.0
    assert source.unready() == "the fleet has not moved for 20 s"
    source.advance()
    assert source.unready() is None


def test_answers_on_a_kept_connection_do_not_wait_for_acknowledgements(client: httpx.Client) -> None:
    def seconds() -> float:
        began = time.perf_counter()
        client.get("/livez")
        return time.perf_counter() - began

    seconds()
    # With Nagle's algorithm on, every answer takes 40 ms however fast the machine.
    assert min(seconds() for _ in range(20)) < 0.03
