"""The control API over real HTTP: what it does, and what it refuses without changing anything."""

import math
import time
from collections.abc import Iterator

import httpx
import pytest

from exporters.synthetic.fleet import build
from exporters.synthetic.source import SyntheticSource
from tests.exporters.conftest import TOKEN, Serving, running, synthetic_app, until
from tests.exporters.series import samples, value

TEMPERATURE = "DCGM_FI_DEV_GPU_TEMP"


@pytest.fixture
def source() -> SyntheticSource:
    return SyntheticSource(build(2, 8, 32, ["H100"], 7), speed=40.0, interval_seconds=0.1)


@pytest.fixture
def api(serving: Serving, source: SyntheticSource, bearer: dict[str, str]) -> httpx.Client:
    client = serving(synthetic_app(source))
    client.headers.update(bearer)
    return client


def temperature(api: httpx.Client, gpu: int) -> float:
    return value(api.get("/nodes/node-01/metrics").text, TEMPERATURE, gpu=str(gpu)) or math.nan


def test_a_load_heats_its_gpus_while_time_passes_by_itself(api: httpx.Client) -> None:
    answer = api.post(
        "/v1/loads", json={"node": "node-01", "gpus": [0, 1], "kind": "matrix", "utilization": 0.95, "job": "j-1"}
    )
    assert answer.status_code == 201
    load = answer.json()
    assert api.get(f"/v1/loads/{load['id']}").json()["state"] == "running"
    assert until(lambda: temperature(api, 0) > 55)
    assert temperature(api, 2) < 35
    assert api.delete(f"/v1/loads/{load['id']}").status_code == 204
    assert api.get(f"/v1/loads/{load['id']}").status_code == 404
    assert until(lambda: temperature(api, 0) < 40)


def test_a_fault_comes_and_goes_and_only_truth_remembers(api: httpx.Client) -> None:
    answer = api.post("/v1/faults", json={"kind": "thermal_paste", "node": "node-01", "gpu": 3, "severity": 0.8})
    assert answer.status_code == 201
    fault = answer.json()
    assert [each["id"] for each in api.get("/v1/faults").json()["faults"]] == [fault["id"]]
    pages = api.get("/nodes/node-01/metrics").text + api.get("/metrics").text
    assert "fault" not in pages
    assert "thermal_paste" not in pages
    assert api.delete(f"/v1/faults/{fault['id']}").status_code == 204
    assert api.get("/v1/faults").json() == {"faults": []}
    told = api.get("/v1/truth").json()["faults"]
    assert [(each["kind"], each["gpu"], each["start"] <= each["end"]) for each in told] == [("thermal_paste", 3, True)]


def test_a_fault_with_a_recovery_mends_itself(api: httpx.Client) -> None:
    wanted = {"kind": "clock_stuck", "node": "node-01", "gpu": 0, "recovery_seconds": 20}
    fault = api.post("/v1/faults", json=wanted).json()
    assert fault["recovery_seconds"] == 20
    assert until(lambda: api.get("/v1/faults").json() == {"faults": []})
    told = api.get("/v1/truth").json()["faults"][0]
    assert told["id"] == fault["id"]
    assert told["end"] > told["start"]


def test_nodes_come_and_go(api: httpx.Client) -> None:
    assert api.post("/v1/nodes", json={"node": "node-09", "gpus": 4, "model": "A100"}).status_code == 201
    listed = {each["node"]: each for each in api.get("/v1/nodes").json()["nodes"]}
    assert listed["node-09"]["state"] == "up"
    assert [gpu["gpu"] for gpu in listed["node-09"]["gpus"]] == [0, 1, 2, 3]
    assert until(lambda: len(samples(api.get("/nodes/node-09/metrics").text, TEMPERATURE)) == 4)
    assert "node-09" in api.get("/discovery").text
    assert api.delete("/v1/nodes/node-09").status_code == 204
    assert api.get("/nodes/node-09/metrics").status_code == 404


def test_a_crashed_node_answers_503_and_returns(api: httpx.Client) -> None:
    load = api.post("/v1/loads", json={"node": "node-01", "gpus": [0], "kind": "compute"}).json()
    fault = api.post("/v1/faults", json={"kind": "node_crash", "node": "node-01"}).json()
    assert api.get("/nodes/node-01/metrics").status_code == 503
    assert api.get("/nodes/node-02/metrics").status_code == 200
    assert api.get("/v1/nodes").json()["nodes"][0]["state"] == "down"
    assert "node-01" in api.get("/discovery").text
    assert until(lambda: api.get(f"/v1/loads/{load['id']}").json()["state"] == "interrupted")
    api.delete(f"/v1/faults/{fault['id']}")
    assert until(lambda: len(samples(api.get("/nodes/node-01/metrics").text, TEMPERATURE)) == 8)


def test_off_the_bus_makes_the_series_vanish(api: httpx.Client) -> None:
    api.post("/v1/faults", json={"kind": "off_the_bus", "node": "node-01", "gpu": 3})
    xid = "DCGM_FI_DEV_XID_ERRORS"
    assert until(lambda: value(api.get("/nodes/node-01/metrics").text, xid, gpu="3") == 79)
    assert until(lambda: value(api.get("/nodes/node-01/metrics").text, xid, gpu="3") is None)
    page = api.get("/nodes/node-01/metrics").text
    lost = [line for line in page.splitlines() if 'gpu="3"' in line and line.startswith("DCGM_")]
    assert lost == []
    assert len(samples(page, xid)) == 7
    assert value(page, "stethos_gpu_xid_errors_total", gpu="3", xid="79") == 1
    seen = value(page, "stethos_gpu_xid_last_seen_timestamp_seconds", gpu="3", xid="79")
    assert seen is not None
    assert abs(seen - time.time()) < 30


FAULT = {"kind": "thermal_paste", "node": "node-01", "gpu": 3, "severity": 0.8}
LOAD = {"node": "node-01", "gpus": [0], "kind": "matrix"}


@pytest.fixture(scope="module")
def untouched() -> Iterator[httpx.Client]:
    """One server for all requests that are refused, since none of them changes anything."""
    with running(synthetic_app(SyntheticSource(build(2, 8, 32, ["H100"], 7)))) as client:
        client.headers["Authorization"] = f"Bearer {TOKEN}"
        yield client


@pytest.mark.parametrize(
    ("path", "body", "status", "said"),
    [
        ("/v1/faults", FAULT | {"kind": "gremlins"}, 422, "gremlins"),
        ("/v1/faults", FAULT | {"node": "node-77"}, 404, "node-77"),
        ("/v1/faults", FAULT | {"gpu": 8}, 404, "no GPU 8"),
        ("/v1/faults", FAULT | {"gpu": -1}, 422, "-1"),
        ("/v1/faults", FAULT | {"gpu": None}, 422, "befalls a GPU"),
        ("/v1/faults", FAULT | {"kind": "node_crash"}, 422, "befalls a node"),
        ("/v1/faults", FAULT | {"kind": "hot_inlet"}, 422, "befalls a rack"),
        ("/v1/faults", {"kind": "hot_inlet", "rack": "rack-9"}, 404, "rack-9"),
        ("/v1/faults", {"kind": "hang", "gpu": 1}, 422, "befalls a GPU"),
        ("/v1/faults", FAULT | {"severity": 0}, 422, "given: 0"),
        ("/v1/faults", FAULT | {"severity": 1.5}, 422, "1.5"),
        ("/v1/faults", FAULT | {"severity": "much"}, 422, "much"),
        ("/v1/faults", FAULT | {"onset": "creeping", "ramp_seconds": 0}, 422, "ramp_seconds"),
        ("/v1/faults", FAULT | {"recovery_seconds": -5}, 422, "given: -5"),
        ("/v1/faults", FAULT | {"gpu": True}, 422, "given: True"),
        ("/v1/faults", FAULT | {"colour": "red"}, 422, "colour"),
        ("/v1/faults", FAULT | {"node": "x" * 900_000}, 404, "'xxxx"),
        ("/v1/faults", FAULT | {"kind": "x" * 900_000}, 422, "no such kind"),
        ("/v1/faults", FAULT | {"node": "x" * 1_100_000}, 413, "larger than 1000000 bytes"),
        ("/v1/loads", LOAD | {"gpus": ["x"] * 100_000}, 422, "gpus"),
        ("/v1/loads", LOAD | {"kind": "mining"}, 422, "mining"),
        ("/v1/loads", LOAD | {"gpus": []}, 422, "gpus"),
        ("/v1/loads", LOAD | {"gpus": [0, 0]}, 422, "twice"),
        ("/v1/loads", LOAD | {"gpus": [0, 9]}, 404, "no GPU 9"),
        ("/v1/loads", LOAD | {"utilization": 1.01}, 422, "1.01"),
        ("/v1/nodes", {"node": "node-01"}, 409, "node-01"),
        ("/v1/nodes", {"node": "../etc"}, 422, "../etc"),
        ("/v1/nodes", {"node": "node-09", "model": "H900"}, 422, "H900"),
        ("/v1/nodes", {"node": "node-09", "gpus": 17}, 422, "17"),
    ],
)
def test_bad_input_is_named_and_changes_nothing(
    untouched: httpx.Client, path: str, body: dict[str, object], status: int, said: str
) -> None:
    before = untouched.get(path).json()
    answer = untouched.post(path, json=body)
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    problem = answer.json()
    assert problem["status"] == status
    assert problem["instance"] == path
    assert said in problem["detail"]
    assert len(answer.content) < 20_000
    assert untouched.get(path).json() == before


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"",
        b"[]",
        b"[" * 100_000,
        b"\xff\xfe",
        b'{"kind":"hang","node":"\\ud800","gpu":1}',
        b'{"kind":"hang","node":"node-01","gpu":1,"severity":NaN}',
        b'{"kind":"hang","node":"node-01","gpu":1,"severity":1e999}',
        b'{"kind":"hang","node":"node-01","gpu":%s}' % (b"9" * 5000),
    ],
)
def test_malformed_json_is_422(untouched: httpx.Client, body: bytes) -> None:
    answer = untouched.post("/v1/faults", content=body)
    assert answer.status_code == 422
    assert answer.headers["content-type"] == "application/problem+json"


def test_a_second_load_on_a_gpu_names_the_first(api: httpx.Client) -> None:
    first = api.post("/v1/loads", json=LOAD).json()
    answer = api.post("/v1/loads", json=LOAD | {"gpus": [1, 0]})
    assert answer.status_code == 409
    assert first["id"] in answer.json()["detail"]
    assert len(api.get("/v1/loads").json()["loads"]) == 1


def test_the_same_fault_twice_names_the_first(api: httpx.Client) -> None:
    first = api.post("/v1/faults", json=FAULT).json()
    answer = api.post("/v1/faults", json=FAULT | {"severity": 0.2})
    assert answer.status_code == 409
    assert first["id"] in answer.json()["detail"]


@pytest.mark.parametrize("path", ["/v1/faults/fault-9", "/v1/loads/load-9", "/v1/nodes/node-99"])
def test_deleting_what_is_not_there_is_404(untouched: httpx.Client, path: str) -> None:
    assert untouched.delete(path).status_code == 404


@pytest.mark.parametrize("given", ["", "Bearer wrong", "Basic a-token-for-tests"])
@pytest.mark.parametrize("path", ["/v1/truth", "/v1/faults", "/v1"])
def test_without_the_token_the_control_api_is_closed(untouched: httpx.Client, path: str, given: str) -> None:
    answer = httpx.get(untouched.base_url.join(path), headers={"Authorization": given} if given else {})
    assert answer.status_code == 401
    assert answer.headers["www-authenticate"] == "Bearer"
    assert answer.headers["content-type"] == "application/problem+json"


def test_on_loopback_reads_are_open(untouched: httpx.Client) -> None:
    assert httpx.get(untouched.base_url.join("/nodes/node-01/metrics")).status_code == 200


def test_beyond_loopback_only_the_probes_are_open(
    serving: Serving, source: SyntheticSource, bearer: dict[str, str]
) -> None:
    client = serving(synthetic_app(source, open_reads=False))
    for path in ("/", "/metrics", "/discovery", "/nodes/node-01/metrics"):
        assert client.get(path).status_code == 401
        assert client.get(path, headers=bearer).status_code == 200
    assert client.get("/livez").status_code == 200
    assert client.get("/readyz").status_code == 200


def test_chaos_breaks_and_mends_and_stops(api: httpx.Client) -> None:
    assert api.get("/v1/chaos").json() == {"enabled": False}
    told = api.put("/v1/chaos", json={"rates_percent_per_minute": [99, 50], "kinds": ["fan_failure", "hot_inlet"]})
    assert told.status_code == 200
    assert told.json()["rates_percent_per_minute"] == {"node-01": 99, "node-02": 50}
    assert told.json()["recovery_seconds"] == 30
    assert until(lambda: any(each["end"] for each in api.get("/v1/truth").json()["faults"]), 20)
    assert api.delete("/v1/chaos").status_code == 204
    assert until(lambda: api.get("/v1/faults").json() == {"faults": []})
    kinds = {each["kind"] for each in api.get("/v1/truth").json()["faults"]}
    assert kinds <= {"fan_failure", "hot_inlet"}


def test_chaos_without_a_body_is_the_demo(api: httpx.Client) -> None:
    assert api.put("/v1/chaos").json()["rates_percent_per_minute"] == {"node-01": 5, "node-02": 8}


@pytest.mark.parametrize(
    ("body", "status", "said"),
    [
        ({"rates_percent_per_minute": [101]}, 422, "101"),
        ({"rates_percent_per_minute": []}, 422, "rates_percent_per_minute"),
        ({"kinds": ["gremlins"]}, 422, "gremlins"),
        ({"nodes": {"node-77": 5}}, 404, "node-77"),
        ({"recovery_seconds": 0}, 422, "recovery_seconds"),
        ({"severity_min": 0.9, "severity_max": 0.2}, 422, "severity_min 0.9 is above"),
    ],
)
def test_bad_chaos_changes_nothing(untouched: httpx.Client, body: dict[str, object], status: int, said: str) -> None:
    answer = untouched.put("/v1/chaos", json=body)
    assert answer.status_code == status
    assert said in answer.json()["detail"]
    assert untouched.get("/v1/chaos").json() == {"enabled": False}


def test_a_hanging_exporter_keeps_the_asker_waiting(api: httpx.Client) -> None:
    fault = api.post("/v1/faults", json={"kind": "exporter_hang", "node": "node-01", "severity": 0.9}).json()
    with pytest.raises(httpx.ReadTimeout):
        api.get("/nodes/node-01/metrics", timeout=0.3)
    assert api.get("/nodes/node-02/metrics").status_code == 200
    api.delete(f"/v1/faults/{fault['id']}")
    assert until(lambda: len(samples(api.get("/nodes/node-01/metrics").text, TEMPERATURE)) == 8)


def test_an_exporter_that_hangs_a_little_tells_old_readings_and_their_age(api: httpx.Client) -> None:
    api.post("/v1/faults", json={"kind": "exporter_hang", "node": "node-01", "severity": 0.3})

    def energy() -> float | None:
        return value(api.get("/nodes/node-01/metrics").text, "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION", gpu="0")

    age = "stethos_exporter_reading_age_seconds"
    assert until(lambda: (value(api.get("/nodes/node-01/metrics").text, age, gpu="0") or 0) > 0.3)
    before = energy()
    time.sleep(0.3)
    assert energy() == before


def test_a_power_limit_is_kept_to_until_the_node_is_reset(api: httpx.Client) -> None:
    api.post("/v1/loads", json={"node": "node-01", "gpus": [0], "kind": "matrix", "utilization": 0.95})

    def limit(gpu: int) -> dict[str, float]:
        gpus = api.get("/v1/power-limits").json()["gpus"]
        return next(each for each in gpus if (each["node"], each["gpu"]) == ("node-01", gpu))

    assert until(lambda: limit(0)["power_watts"] > 500)
    assert (limit(0)["limit_watts"], limit(0)["least_watts"]) == (700, 210)
    assert api.put("/v1/nodes/node-01/gpus/0/power-limit", json={"watts": 300}).status_code == 204
    assert until(lambda: limit(0)["power_watts"] < 330)
    page = api.get("/nodes/node-01/metrics").text
    assert value(page, "DCGM_FI_DEV_ENFORCED_POWER_LIMIT", gpu="0") == 300
    assert limit(1)["limit_watts"] == 700
    assert api.post("/v1/nodes/node-01/reset").json() == {"mended": []}
    assert limit(0)["limit_watts"] == 700


@pytest.mark.parametrize(
    ("path", "watts", "status"),
    [
        ("node-01/gpus/0", 100, 409),
        ("node-01/gpus/0", 701, 409),
        ("node-01/gpus/9", 500, 404),
        ("node-01/gpus/" + "9" * 5000, 500, 404),
        ("node-01/gpus/-1", 500, 404),
        ("nowhere/gpus/0", 500, 404),
        ("node-01/gpus/0", -1, 422),
        ("node-01/gpus/0", "300", 422),
    ],
)
def test_a_power_limit_that_no_board_takes_is_refused(api: httpx.Client, path: str, watts: object, status: int) -> None:
    answer = api.put(f"/v1/nodes/{path}/power-limit", json={"watts": watts})
    assert answer.status_code == status
    assert {each["limit_watts"] for each in api.get("/v1/power-limits").json()["gpus"]} == {700}


def test_a_reset_mends_what_is_wrong_with_one_node_alone(api: httpx.Client) -> None:
    for wanted in (
        {"kind": "off_the_bus", "node": "node-01", "gpu": 2},
        {"kind": "node_crash", "node": "node-02"},
        {"kind": "hot_inlet", "rack": "rack-1"},
    ):
        assert api.post("/v1/faults", json=wanted).status_code == 201
    mended = api.post("/v1/nodes/node-01/reset").json()["mended"]
    assert [fault["kind"] for fault in mended] == ["off_the_bus"]
    assert [fault["kind"] for fault in api.get("/v1/faults").json()["faults"]] == ["node_crash", "hot_inlet"]
    assert api.post("/v1/nodes/nowhere/reset").status_code == 404
