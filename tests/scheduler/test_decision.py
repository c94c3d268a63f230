"""Why a job went where it went, as the API tells it."""

import json

from .processes import Scheduler


def test_a_decision_names_candidates_terms_and_why_not_the_others(scheduler: Scheduler) -> None:
    scheduler.node("wide", gpus=8)
    scheduler.node("fitting", gpus=2)
    scheduler.node("small", gpus=1)
    scheduler.node("draining", gpus=8)
    scheduler.post("/v1/nodes/draining/drain", {"reason": "fans"})
    job = scheduler.becomes(scheduler.submit(gpus=2), "assigned")
    found = scheduler.get(f"/v1/jobs/{job['id']}/decision")
    assert found["counts"] == {"fits": 2, "too few GPUs free": 1, "drained: fans": 1}
    chosen, other, *rest = found["candidates"]
    assert (chosen["node"], chosen["chosen"], other["node"]) == ("fitting", True, "wide")
    assert chosen["terms"].keys() == {"packing", "health", "history", "avoided"}
    assert abs(sum(chosen["terms"].values()) - chosen["cost"]) < 1e-9
    assert {look["node"]: look["why_not"] for look in rest} == {
        "small": "1 free, 0 busy, 0 cordoned",
        "draining": "drained: fans",
    }


def test_a_decision_stays_small_on_a_large_fleet(scheduler: Scheduler) -> None:
    for number in range(30):
        scheduler.node(f"n{number}")
    job = scheduler.becomes(scheduler.submit(gpus=1), "assigned")
    found = scheduler.get(f"/v1/jobs/{job['id']}/decision")
    assert len(found["candidates"]) == 5
    assert found["counts"] == {"fits": 30, "too few GPUs free": 0}
    assert len(json.dumps(found)) < 2000
