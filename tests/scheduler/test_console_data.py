"""What the console asks for beside the fleet: a place's history, and the faults and nodes of a synthetic fleet."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from scheduler.server import listen

from .processes import ROOT, Process, Scheduler, until


def test_a_gpus_history_tells_what_ran_there_where_it_went_and_who_did_what(scheduler: Scheduler) -> None:
    scheduler.node("a", gpus=1)
    job = scheduler.becomes(scheduler.submit(name="wanderer"), "assigned")
    fence = scheduler.offered("a")["fence"]
    scheduler.node("b", gpus=1)
    gone = {"node": "a", "outcome": "infrastructure", "reason": "gpu off the bus"}
    scheduler.post(f"/v1/attempts/{fence}/report", gone, 204)
    until(lambda: scheduler.job(job["id"])["node"] == "b")
    scheduler.post("/v1/nodes/a/gpus/0/cordon", {"reason": "odd noise"})
    scheduler.post("/v1/nodes/a/gpus/0/uncordon")
    found = scheduler.get("/v1/nodes/a/history?gpu=0")
    (stay,) = found["jobs"]
    assert (stay["job"], stay["name"], stay["gpus"]) == (job["id"], "wanderer", [0])
    assert (stay["state"], stay["reason"], stay["job_state"]) == ("lost", "gpu off the bus", "assigned")
    assert stay["went_to"] == [{"node": "b", "gpus": [0]}]
    told = [(one["type"], one["owner"], one["reason"]) for one in found["changes"][:2]]
    assert told == [("gpu.uncordoned", "person", None), ("gpu.cordoned", "person", "odd noise")]
    assert found["changes"][-1]["type"] == "node.registered"
    assert len(scheduler.get("/v1/nodes/a/history?gpu=0&limit=1")["changes"]) == 1


def test_a_history_of_nothing_is_refused(scheduler: Scheduler) -> None:
    scheduler.node("idle", gpus=1)
    assert scheduler.get("/v1/nodes/idle/history")["jobs"] == []
    assert scheduler.http.get("/v1/nodes/none/history").status_code == 404
    answer = scheduler.http.get("/v1/nodes/idle/history?gpu=1")
    assert (answer.status_code, answer.json()["detail"]) == (404, "node idle has no GPU 1")
    assert scheduler.http.get("/v1/nodes/idle/history?limit=0").status_code == 422


def test_faults_are_of_a_synthetic_fleet_only(scheduler: Scheduler) -> None:
    answer = scheduler.http.get("/v1/synthetic/faults")
    assert answer.status_code == 404
    assert "--synthetic" in answer.json()["detail"]
    assert scheduler.http.post("/v1/synthetic/nodes", json={"node": "n"}).status_code == 404


@pytest.fixture(scope="module")
def port() -> int:
    socket = listen("127.0.0.1", 0)
    found: int = socket.getsockname()[1]
    socket.close()
    return found


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, port: int) -> Iterator[Scheduler]:
    found = Scheduler(tmp_path_factory.mktemp("faults"), "--synthetic", f"http://127.0.0.1:{port}")
    yield found
    found.close()


def test_a_fleet_that_does_not_answer_is_told(server: Scheduler) -> None:
    answer = server.http.get("/v1/synthetic/faults")
    assert answer.status_code == 502
    assert answer.json()["detail"].startswith("the synthetic fleet does not answer")


def test_faults_and_nodes_of_a_synthetic_fleet(server: Scheduler, port: int) -> None:
    options = ["--nodes", "1", "--gpus-per-node", "2", "--port", str(port)]
    log: Path = server.home / "fleet.log"
    with Process(["exporters", "synthetic", *options], server.home, log):
        until(lambda: server.http.get("/v1/synthetic/faults").is_success, 30)
        found = server.get("/v1/synthetic/faults")
        assert found["faults"] == []
        assert {"kind": "thermal_paste", "part": "gpu"} in found["kinds"]

        fault = {"kind": "thermal_paste", "node": "node-01", "gpu": 1, "severity": 0.5}
        made = server.post("/v1/synthetic/faults", fault, 201)
        assert made.items() >= fault.items()
        assert server.get("/v1/synthetic/faults")["faults"] == [made]
        refused = server.http.post("/v1/synthetic/faults", json=fault | {"node": "node-77"})
        assert (refused.status_code, "node-77" in refused.json()["detail"]) == (404, True)
        refused = server.http.post("/v1/synthetic/faults", json=fault | {"kind": "bad_mood"})
        assert (refused.status_code, "there is no such kind" in refused.json()["detail"]) == (422, True)
        assert server.http.post("/v1/synthetic/faults", json=fault | {"severity": 2}).status_code == 422
        assert server.http.delete(f"/v1/synthetic/faults/{made['id']}").status_code == 204
        assert server.http.delete("/v1/synthetic/faults/..%2Fnodes%2Fnode-01").status_code == 404
        assert server.get("/v1/synthetic/faults")["faults"] == []

        with server.agent("--synthetic", f"http://127.0.0.1:{port}"):
            server.post("/v1/synthetic/nodes", {"node": "node-09", "gpus": 1}, 202)
            until(lambda: len(server.get("/v1/nodes")["nodes"]) == 2)
            assert server.http.post("/v1/synthetic/nodes", json={"node": "node-09"}).status_code == 409
            assert server.http.delete("/v1/synthetic/nodes/node-09").status_code == 202
            until(lambda: len(server.get("/v1/nodes")["nodes"]) == 1)


def test_changing_a_synthetic_fleet_needs_the_scope(server: Scheduler) -> None:
    command = ["scheduler", "token", "create", "reader", "--scope", "read", "--home"]
    made = subprocess.run(
        [sys.executable, "-m", *command, str(server.home)], cwd=ROOT, check=True, capture_output=True, text=True
    )
    token = made.stdout.split()[-1]
    headers = {"Authorization": f"Bearer {token}"}
    refused = server.http.post("/v1/synthetic/nodes", json={"node": "n"}, headers=headers)
    assert (refused.status_code, "nodes:admin" in refused.json()["detail"]) == (403, True)
