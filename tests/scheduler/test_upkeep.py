"""Pause and resume of a node, and reset of a synthetic one."""

from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from scheduler.nodes import WHOLE_NODE, Owner
from scheduler.store import nodes

from .processes import Json, Scheduler, until
from .synthetic import Fleet, free_port
from .test_remediation import Place

PAUSE = {"reason": "a look at the cables"}


def test_a_paused_node_goes_on_with_what_it_has_and_gets_no_more(scheduler: Scheduler) -> None:
    scheduler.node("n", gpus=2)
    running = scheduler.offered("n") if scheduler.submit() else {}
    scheduler.beat({"n": [running["fence"]]})
    paused = scheduler.post("/v1/nodes/n/pause", PAUSE)
    assert (paused["state"], paused["placeable"], paused["reason"]) == ("healthy", False, PAUSE["reason"])
    assert paused["pause"]["until"] is None
    waits = scheduler.submit()
    until(lambda: PAUSE["reason"] in (scheduler.job(waits["id"])["reason"] or ""))
    assert waits["id"] not in [start["job"] for start in scheduler.beat({"n": [running["fence"]]})["start"]]
    assert scheduler.job(running["job"])["state"] == "running"
    resumed = scheduler.post("/v1/nodes/n/resume")
    assert (resumed["placeable"], resumed["pause"]) == (True, None)
    assert until(lambda: scheduler.beat({"n": [running["fence"]]}, 0.2)["start"])[0]["job"] == waits["id"]
    changes = [change["type"] for change in scheduler.get("/v1/nodes/n/history")["changes"]]
    assert changes[:2] == ["node.released", "node.held"]


def test_a_pause_ends_by_itself_when_told_so(scheduler: Scheduler) -> None:
    scheduler.node("n", gpus=1)
    assert scheduler.post("/v1/nodes/n/pause", PAUSE | {"seconds": 0.2})["pause"]["until"]
    until(lambda: scheduler.get("/v1/nodes/n")["placeable"])


def test_the_end_of_a_pause_is_no_repair(tmp_path: Path) -> None:
    place = Place(tmp_path)
    place.do(nodes.cordon, "a", WHOLE_NODE, Owner.PERSON, "mine", 1.0)
    place.watch()
    assert place.node().cordons == ()
    assert place.events()[-1] == "node.released"
    place.store.close()


def test_resuming_leaves_a_drain_and_lifts_what_automation_holds(scheduler: Scheduler) -> None:
    scheduler.node("n", gpus=1)
    labels = {"alertname": "NodeBroken", "severity": "critical", "node": "n"}
    alert = {"status": "firing", "labels": labels, "startsAt": "2026-01-31T12:00:00Z"}
    scheduler.post("/v1/alerts", {"version": "4", "alerts": [alert]})
    scheduler.post("/v1/nodes/n/drain", {"reason": "new fans"})
    assert scheduler.post("/v1/nodes/n/resume")["drain"]["reason"] == "new fans"
    assert scheduler.post("/v1/nodes/n/undrain")["placeable"] is True


@pytest.mark.parametrize(
    ("body", "said"),
    [({}, "required"), (PAUSE | {"seconds": 0}, "0"), (PAUSE | {"seconds": -1}, "-1"), (PAUSE | {"until": 1}, "until")],
)
def test_a_bad_pause_changes_nothing(scheduler: Scheduler, body: Json, said: str) -> None:
    scheduler.node("n", gpus=1)
    answer = scheduler.http.post("/v1/nodes/n/pause", json=body)
    assert (answer.status_code, said in answer.text) == (422, True)
    assert scheduler.get("/v1/nodes/n")["placeable"] is True


@pytest.mark.parametrize("action", ["pause", "resume", "reset"])
def test_a_change_of_an_unknown_or_another_node_is_refused(scheduler: Scheduler, action: str) -> None:
    def ask(node: str, tag: str = "*") -> httpx.Response:
        body = PAUSE if action == "pause" else None
        return scheduler.http.post(f"/v1/nodes/{node}/{action}", json=body, headers={"If-Match": tag})

    assert ask("none").status_code == 404
    scheduler.node("n", gpus=1)
    assert ask("n", '"0"').status_code == 412


def test_a_real_node_cannot_be_reset(scheduler: Scheduler) -> None:
    scheduler.node("n", gpus=1)
    answer = scheduler.http.post("/v1/nodes/n/reset")
    assert (answer.status_code, "node n is not one of a synthetic fleet" in answer.text) == (409, True)


@pytest.fixture
def fleet(tmp_path: Path) -> Iterator[tuple[Scheduler, Fleet]]:
    port = free_port()
    scheduler = Scheduler(tmp_path, "--synthetic", f"http://127.0.0.1:{port}", "--canary-seconds", "0")
    with Fleet(scheduler.home, scheduler.token, port=port) as found, scheduler.agent("--synthetic", found.url):
        until(lambda: scheduler.get("/v1/fleet")["counts"]["nodes"]["healthy"] == 2, 60)
        yield scheduler, found
    scheduler.close()


def test_a_reset_mends_a_synthetic_node_and_nothing_a_person_holds(fleet: tuple[Scheduler, Fleet]) -> None:
    scheduler, found = fleet
    job = scheduler.becomes(scheduler.submit(gpus=1, duration_seconds=60), "running")
    node, gpu = job["node"], job["placement"][0]["gpus"][0]
    found.fault("fan_failure", node, gpu)
    found.fault("straggler", node, 1 - gpu)
    elsewhere = found.fault("straggler", "node-01" if node == "node-02" else "node-02", 0)
    labels = {"alertname": "GpuAnomalous", "severity": "critical", "node": node, "gpu": str(gpu)}
    alert = {"status": "firing", "labels": labels, "startsAt": "2026-01-31T12:00:00Z"}
    scheduler.post("/v1/alerts", {"version": "4", "alerts": [alert]})
    scheduler.post(f"/v1/nodes/{node}/gpus/{1 - gpu}/cordon", {"reason": "mine"})
    reset = scheduler.post(f"/v1/nodes/{node}/reset")
    assert [each["cordon"] and each["cordon"]["owner"] for each in reset["gpus"]] == (
        [None, "person"] if gpu == 0 else ["person", None]
    )
    assert [fault["id"] for fault in found.http.get("/v1/faults").json()["faults"]] == [elsewhere]
    assert scheduler.job(job["id"])["state"] == "running"
    scheduler.post("/v1/alerts", {"version": "4", "alerts": [alert]})
    assert scheduler.get(f"/v1/nodes/{node}")["gpus"][gpu]["cordon"] is None
    changes = scheduler.get(f"/v1/nodes/{node}/history")["changes"]
    assert "node.reset" in [change["type"] for change in changes]


def test_a_reset_without_an_answer_of_the_fleet_mends_nothing(tmp_path: Path) -> None:
    scheduler = Scheduler(tmp_path, "--synthetic", f"http://127.0.0.1:{free_port()}")
    scheduler.node("s", gpus=1, kind="synthetic")
    answer = scheduler.http.post("/v1/nodes/s/reset")
    scheduler.close()
    assert (answer.status_code, answer.headers["content-type"]) == (502, "application/problem+json")
