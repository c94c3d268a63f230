"""What the scheduler tells Prometheus of its queue and its decisions."""

from prometheus_client.parser import text_string_to_metric_families

from .processes import Scheduler, until

WAIT = "stethos_scheduler_job_wait_seconds"
UNPLACEABLE = "stethos_scheduler_unplaceable_total"
REASONS = {"too_large", "unavailable", "cordoned", "kept", "fragmented", "busy"}


def samples(scheduler: Scheduler, name: str, label: str) -> dict[str, float]:
    """A metric's values by one of its labels."""
    families = text_string_to_metric_families(scheduler.http.get("/metrics").text)
    found = (sample for family in families for sample in family.samples if sample.name == name)
    return {sample.labels[label]: sample.value for sample in found}


def test_waits_are_counted_by_priority(scheduler: Scheduler) -> None:
    before = samples(scheduler, f"{WAIT}_count", "priority")
    waited = samples(scheduler, f"{WAIT}_sum", "priority")
    assert before.keys() == {"LOW", "NORMAL", "HIGH", "CRITICAL"}
    scheduler.node("n", gpus=2)
    scheduler.submit(priority="HIGH")
    scheduler.beat({"n": [scheduler.offered("n")["fence"]]})
    assert samples(scheduler, f"{WAIT}_count", "priority") == before | {"HIGH": before["HIGH"] + 1}
    grown = {
        name: value for name, value in samples(scheduler, f"{WAIT}_sum", "priority").items() if value > waited[name]
    }
    assert grown.keys() == {"HIGH"}


def test_decisions_are_counted_by_what_stood_in_the_way(scheduler: Scheduler) -> None:
    assert samples(scheduler, UNPLACEABLE, "reason").keys() == REASONS
    scheduler.node("n", gpus=2)
    for reason, gpus in (("too_large", 3), ("cordoned", 2), ("unavailable", 1)):
        if reason == "cordoned":
            scheduler.post("/v1/nodes/n/gpus/0/cordon", {"reason": "fan"})
        if reason == "unavailable":
            scheduler.post("/v1/nodes/n/drain", {"reason": "fan"})
        before = samples(scheduler, UNPLACEABLE, "reason")[reason]
        scheduler.submit(gpus=gpus)
        until(lambda reason=reason, before=before: samples(scheduler, UNPLACEABLE, "reason")[reason] > before)  # type: ignore[misc]
