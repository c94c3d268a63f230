import json
from collections.abc import Iterator
from contextlib import contextmanager

import httpx_sse

from .processes import Json, Scheduler


@contextmanager
def stream(scheduler: Scheduler, query: str = "", **headers: str) -> Iterator[Iterator[Json]]:
    with httpx_sse.connect_sse(scheduler.http, "GET", f"/v1/events{query}", headers=headers) as source:
        yield ({"id": event.id, "event": event.event, **json.loads(event.data)} for event in source.iter_sse())


def test_a_job_is_told_from_its_acceptance_to_its_end(scheduler: Scheduler) -> None:
    scheduler.node("n", gpus=1)
    with stream(scheduler) as events:
        job = scheduler.submit()
        fence = scheduler.offered("n")["fence"]
        scheduler.beat({"n": [fence]})
        scheduler.post(f"/v1/attempts/{fence}/report", {"node": "n", "outcome": "succeeded"}, 204)
        seen = [next(events) for _ in range(4)]
    assert [event["event"] for event in seen] == ["job.queued", "job.assigned", "job.running", "job.succeeded"]
    assert {event["subject"] for event in seen} == {job["id"]}
    assert all(event["id"] == str(event["sequence"]) for event in seen)


def test_a_stream_resumes_without_a_gap(scheduler: Scheduler) -> None:
    after = scheduler.get("/v1/fleet")["sequence"]
    jobs = [scheduler.submit(gpus=3)["id"] for _ in range(3)]
    with stream(scheduler, f"?after={after}") as events:
        first = next(events)
    with stream(scheduler, **{"Last-Event-ID": first["id"]}) as events:
        rest = [next(events) for _ in range(2)]
    assert [first["subject"], *(event["subject"] for event in rest)] == jobs
    assert [event["sequence"] for event in (first, *rest)] == [after + 1, after + 2, after + 3]


def test_last_event_id_wins_over_the_query(scheduler: Scheduler) -> None:
    after = scheduler.get("/v1/fleet")["sequence"]
    scheduler.submit(gpus=3)
    second = scheduler.submit(gpus=3)
    with stream(scheduler, "?after=0", **{"Last-Event-ID": str(after + 1)}) as events:
        assert next(events)["subject"] == second["id"]


def test_a_wrong_last_event_id_is_refused(scheduler: Scheduler) -> None:
    answer = scheduler.http.get("/v1/events", headers={"Last-Event-ID": "yesterday"})
    assert answer.status_code == 422
    assert "yesterday" in answer.json()["detail"]
