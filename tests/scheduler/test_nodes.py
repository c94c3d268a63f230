import asyncio
from pathlib import Path

import pytest

from scheduler.nodes import Drain, Gpu, NodeState, Owner, may_drain, may_undrain
from scheduler.store import Store, Transaction, nodes

from .processes import Scheduler, until


def test_a_drained_node_gets_nothing_and_finishes_what_it_has(scheduler: Scheduler) -> None:
    scheduler.node("n", gpus=2)
    running = scheduler.submit()
    fence = scheduler.offered("n")["fence"]
    scheduler.beat({"n": [fence]})
    node = scheduler.post("/v1/nodes/n/drain", {"reason": "new fans"})
    assert (node["state"], node["reason"], node["drain"]["owner"]) == ("draining", "new fans", "person")
    waiting = scheduler.submit()
    reason = "needs 1 GPU on one node; no node takes work: 1 × draining: new fans"
    until(lambda: scheduler.job(waiting["id"])["reason"] == reason)
    scheduler.post(f"/v1/attempts/{fence}/report", {"node": "n", "outcome": "succeeded"}, 204)
    assert scheduler.job(running["id"])["state"] == "succeeded"
    assert scheduler.get("/v1/nodes/n")["state"] == "drained"
    assert scheduler.post("/v1/nodes/n/undrain")["state"] == "healthy"
    scheduler.becomes(waiting, "assigned")


def test_a_drain_needs_a_reason(scheduler: Scheduler) -> None:
    scheduler.node("n")
    for body in ({}, {"reason": ""}, {"reason": 5}):
        scheduler.post("/v1/nodes/n/drain", body, 422)
    assert scheduler.get("/v1/nodes/n")["state"] == "healthy"


@pytest.mark.parametrize(
    "body",
    [
        {"node": "n"},
        {"node": "n", "gpus": 0},
        {"node": "", "gpus": 1},
        {"node": "a/b", "gpus": 1},
        {"node": "n", "gpus": []},
        {"node": "n", "gpus": [{"gpu": 0}, {"gpu": 0}]},
        {"node": "n", "gpus": 1, "kind": "virtual"},
    ],
)
def test_a_bad_node_is_refused(scheduler: Scheduler, body: object) -> None:
    scheduler.post("/v1/nodes", body, 422)
    assert scheduler.get("/v1/nodes")["nodes"] == []


def test_a_node_with_jobs_is_removed_only_by_force(scheduler: Scheduler) -> None:
    scheduler.node("n", gpus=1)
    job = scheduler.becomes(scheduler.submit(), "assigned")
    assert scheduler.http.delete("/v1/nodes/n").status_code == 409
    assert scheduler.http.delete("/v1/nodes/n?force=true").status_code == 204
    back = scheduler.becomes(job, "queued")
    assert back["attempts"][0]["reason"] == "node n was removed"
    assert scheduler.beat({"n": []})["unknown"] == ["n"]


def test_a_cordoned_gpu_gets_nothing_until_uncordoned(scheduler: Scheduler) -> None:
    scheduler.node("n", gpus=2)
    scheduler.post("/v1/nodes/n/gpus/0/cordon", {"reason": "noisy fan"})
    assert scheduler.becomes(scheduler.submit(), "assigned")["placement"] == [{"node": "n", "gpus": [1]}]
    waiting = scheduler.submit()
    reason = "needs 1 GPU on one node; best node has 0 free, 1 cordoned (noisy fan)"
    until(lambda: scheduler.job(waiting["id"])["reason"] == reason)
    scheduler.post("/v1/nodes/n/gpus/0/uncordon")
    assert scheduler.becomes(waiting, "assigned")["placement"] == [{"node": "n", "gpus": [0]}]
    scheduler.post("/v1/nodes/n/gpus/2/cordon", {"reason": "none"}, 404)


def test_a_late_report_is_refused_and_changes_nothing(scheduler: Scheduler) -> None:
    """The agent stalls, its node is taken away and comes back, the job runs again: the old fence is void."""
    scheduler.node("n", gpus=1)
    job = scheduler.submit()
    old = scheduler.offered("n")["fence"]
    scheduler.http.delete("/v1/nodes/n?force=true")
    scheduler.node("n", gpus=1)
    new = scheduler.offered("n")["fence"]
    assert new > old
    report = {"node": "n", "outcome": "succeeded"}
    answer = scheduler.http.post(f"/v1/attempts/{old}/report", json=report)
    assert (answer.status_code, answer.headers["content-type"]) == (409, "application/problem+json")
    assert scheduler.job(job["id"])["state"] == "assigned"
    assert {"node": "n", "fence": old} in scheduler.beat({"n": [old, new]})["stop"]
    scheduler.post(f"/v1/attempts/{new}/report", report, 204)
    scheduler.post(f"/v1/attempts/{new}/report", report, 409)
    assert scheduler.job(job["id"])["state"] == "succeeded"
    assert "late report refused" in (scheduler.home / "serve.log").read_text()


def test_a_job_fails_once_its_retries_are_used(scheduler: Scheduler) -> None:
    scheduler.node("n", gpus=1)
    job = scheduler.submit(retries=1)
    for _ in range(2):
        fence = scheduler.offered("n")["fence"]
        body = {"node": "n", "outcome": "infrastructure", "reason": "gpu off the bus"}
        scheduler.post(f"/v1/attempts/{fence}/report", body, 204)
    ended = scheduler.job(job["id"])
    assert (ended["state"], ended["reason"]) == ("failed", "gpu off the bus; no retries left (1 used)")


def test_a_gang_ends_when_its_last_part_does_and_fails_with_its_first(scheduler: Scheduler) -> None:
    for node in ("a", "b"):
        scheduler.node(node, gpus=2)
    good = scheduler.submit(gpus=4, nodes=2)
    fences = {node: scheduler.offered(node)["fence"] for node in ("a", "b")}
    assert len(set(fences.values())) == 1
    fence = fences["a"]
    scheduler.post(f"/v1/attempts/{fence}/report", {"node": "a", "outcome": "succeeded"}, 204)
    assert scheduler.job(good["id"])["state"] == "running"
    scheduler.post(f"/v1/attempts/{fence}/report", {"node": "b", "outcome": "succeeded"}, 204)
    assert scheduler.job(good["id"])["state"] == "succeeded"

    bad = scheduler.submit(gpus=4, nodes=2)
    fence = scheduler.offered("a")["fence"]
    scheduler.beat({"b": [fence]})
    body = {"node": "a", "outcome": "failed", "reason": "exit code 3"}
    scheduler.post(f"/v1/attempts/{fence}/report", body, 204)
    assert scheduler.job(bad["id"])["state"] == "failed"
    assert {"node": "b", "fence": fence} in scheduler.beat({"b": [fence]})["stop"]
    assert scheduler.get("/v1/fleet")["counts"]["gpus"]["busy"] == 2
    scheduler.beat({"b": []})
    assert scheduler.get("/v1/fleet")["counts"]["gpus"]["busy"] == 0


def test_a_change_meant_for_what_was_seen_is_not_made_on_something_else(scheduler: Scheduler) -> None:
    scheduler.node("n", gpus=2)
    seen = {"If-Match": scheduler.http.get("/v1/nodes/n").headers["etag"]}
    first = scheduler.http.post("/v1/nodes/n/drain", json={"reason": "mine"}, headers=seen)
    assert first.status_code == 200
    assert first.headers["etag"] != seen["If-Match"]
    for method, path, body in (
        ("POST", "/v1/nodes/n/undrain", None),
        ("POST", "/v1/nodes/n/drain", {"reason": "theirs"}),
        ("POST", "/v1/nodes/n/gpus/0/cordon", {"reason": "theirs"}),
        ("POST", "/v1/nodes/n/gpus/0/uncordon", None),
        ("DELETE", "/v1/nodes/n", None),
    ):
        answer = scheduler.http.request(method, path, json=body, headers=seen)
        assert (answer.status_code, answer.headers["content-type"]) == (412, "application/problem+json")
    assert scheduler.get("/v1/nodes/n")["reason"] == "mine"
    for tags in (f'"0", {first.headers["etag"]}', "*"):
        answer = scheduler.http.post("/v1/nodes/n/undrain", headers={"If-Match": tags})
        assert answer.status_code == 200
    for tags in (f"W/{answer.headers['etag']}", "mine", '"x"'):
        assert scheduler.http.post("/v1/nodes/n/undrain", headers={"If-Match": tags}).status_code == 412


def test_stethos_never_touches_a_drain_of_a_person(tmp_path: Path) -> None:
    store = Store(tmp_path / "db")

    def story(tx: Transaction) -> list[str]:
        nodes.register(tx, "n", None, "real", [Gpu(0)])
        nodes.set_reachable(tx, "n", True)
        nodes.drain(tx, "n", "mine", Owner.PERSON)
        seen = [nodes.drain(tx, "n", "score", Owner.STETHOS), nodes.undrain(tx, "n", Owner.STETHOS)]
        reasons = [node.drain.reason for node in seen if node.drain]
        nodes.undrain(tx, "n", Owner.PERSON)
        nodes.drain(tx, "n", "score", Owner.STETHOS)
        return [*reasons, str(nodes.undrain(tx, "n", Owner.STETHOS).state)]

    assert asyncio.run(store.write(story)) == ["mine", "mine", NodeState.HEALTHY]
    store.close()


def test_a_person_may_lift_any_drain() -> None:
    ours = Drain("score", Owner.STETHOS, 0.0)
    assert may_undrain(ours, Owner.PERSON)
    assert may_drain(ours, Owner.PERSON)
    assert not may_undrain(None, Owner.PERSON)
