"""What is refused changes nothing, and is told in a sentence that names it."""

import asyncio
import secrets
from collections.abc import Iterator

import pytest
from starlette.requests import Request
from starlette.types import Message

from scheduler.api.endpoint import read_body
from scheduler.api.problems import Problem
from scheduler.remediation import Policy
from scheduler.store import alerts
from scheduler.store.alerts import Alert

from .postgresql import Postgresql
from .processes import Json, Scheduler
from .test_store import Opened

PROBLEM = "application/problem+json"


@pytest.mark.parametrize("action", ["pause", "drain", "gpus/0/cordon"])
@pytest.mark.parametrize("reason", ["", " \t", "fans\nand more", "\x1b[31mred", "a\0b", "x" * 501, 5, None])
def test_a_reason_is_a_line_of_text(scheduler: Scheduler, action: str, reason: object) -> None:
    scheduler.node("n", gpus=1)
    before = scheduler.get("/v1/nodes/n")
    answer = scheduler.http.post(f"/v1/nodes/n/{action}", json={"reason": reason})
    (error,) = answer.json()["errors"]
    assert (answer.status_code, error["pointer"]) == (422, "/reason")
    assert repr(reason)[:60] in error["detail"]
    assert scheduler.get("/v1/nodes/n") == before


@pytest.mark.parametrize(
    ("path", "body", "pointer", "said"),
    [
        ("/v1/jobs", {"type": "sleep", "gpus": 1, "name": "\x1b[2J"}, "/name", "'\\x1b[2J'"),
        ("/v1/jobs", {"type": "sleep", "gpus": 1, "name": " "}, "/name", "' '"),
        ("/v1/nodes", {"node": "m", "gpus": 0}, "/gpus", "0"),
        ("/v1/nodes", {"node": "m", "gpus": []}, "/gpus", "[]"),
        ("/v1/nodes", {"node": "m", "gpus": [{"gpu": -1}]}, "/gpus/0/gpu", "-1"),
        ("/v1/nodes", {"node": "m", "gpus": 1, "rack": ""}, "/rack", "''"),
        ("/v1/nodes", {"node": "m", "gpus": 1, "rack": "r" * 254}, "/rack", "rrr"),
        ("/v1/nodes", {"node": "m", "gpus": 1, "model": "\0"}, "/model", "'\\x00'"),
        ("/v1/nodes", {"node": "m", "gpus": [{"gpu": 0, "uuid": "u" * 254}]}, "/gpus/0/uuid", "uuu"),
    ],
)
def test_names_are_lines_of_text_and_the_place_is_told(
    scheduler: Scheduler, path: str, body: Json, pointer: str, said: str
) -> None:
    answer = scheduler.http.post(path, json=body)
    assert (answer.status_code, answer.headers["content-type"]) == (422, PROBLEM)
    details = [error["detail"] for error in answer.json()["errors"] if error["pointer"] == pointer]
    assert details
    assert said in details[0]


@pytest.mark.parametrize("digits", ["99999999999999999999", "9" * 5000])
def test_a_number_that_nobody_can_count_to_is_no_crash(scheduler: Scheduler, digits: str) -> None:
    scheduler.node("n", gpus=1)
    cordon = scheduler.http.post(f"/v1/nodes/n/gpus/{digits}/cordon", json={"reason": "fan"})
    report = scheduler.http.post(f"/v1/attempts/{digits}/report", json={"node": "n", "outcome": "failed"})
    resumed = scheduler.http.get("/v1/events", headers={"Last-Event-ID": digits})
    for answer, status in ((cordon, 404), (report, 404), (resumed, 422)):
        assert (answer.status_code, answer.headers["content-type"]) == (status, PROBLEM)
        assert digits[:20] in answer.json()["detail"]


def test_who_leaves_in_the_middle_of_a_body_is_no_crash() -> None:
    messages: Iterator[Message] = iter(
        [{"type": "http.request", "body": b"{", "more_body": True}, {"type": "http.disconnect"}]
    )

    async def receive() -> Message:
        return next(messages)

    request = Request({"type": "http", "method": "POST", "path": "/", "headers": []}, receive)
    with pytest.raises(Problem, match="the client left after 1 bytes"):
        asyncio.run(read_body(request))


@pytest.mark.parametrize(("tags", "said"), [('"0"', "not at 0"), ('"7", "0"', "not at 0 or 7"), ("0", "any that is")])
def test_another_version_is_told(scheduler: Scheduler, tags: str, said: str) -> None:
    scheduler.node("n", gpus=1)
    answer = scheduler.http.post("/v1/nodes/n/resume", headers={"If-Match": tags})
    assert (answer.status_code, said in answer.json()["detail"]) == (412, True)


def test_the_heat_of_a_gpu_that_a_node_does_not_have_is_left_out(scheduler: Scheduler) -> None:
    scheduler.node("n", gpus=1)
    cooled = [{"gpu": gpu, "limit_watts": 200, "usual_watts": 700, "celsius": 91} for gpu in (0, 1)]
    scheduler.post("/v1/heartbeats", {"nodes": [{"node": "n", "attempts": [], "cooled": cooled}]})
    scheduler.post("/v1/nodes", {"node": "n", "gpus": 2}, 201)
    first, second = scheduler.get("/v1/nodes/n")["gpus"]
    assert first["cooling"]["limit_watts"] == 200
    assert second["cooling"] is None
    assert "n/1" not in [change["subject"] for change in scheduler.get("/v1/nodes/n/history?gpu=1")["changes"]]


def test_an_alert_without_end_costs_the_others_nothing(scheduler: Scheduler, postgresql: Postgresql) -> None:
    """An index of PostgreSQL takes 2,704 bytes, and a text by chance does not shrink."""
    long = secrets.token_hex(50_000)
    labels = {"alertname": long, "severity": "critical", "node": "n"}
    sent = [
        {"status": "firing", "labels": labels, "annotations": {"summary": long}, "startsAt": "2026-01-31T12:00:00Z"},
        {"status": "firing", "labels": labels, "startsAt": long},
        {"status": "firing", "labels": labels, "fingerprint": long},
    ]
    scheduler.node("n", gpus=1)
    assert scheduler.post("/v1/alerts", {"alerts": sent}) == {"accepted": 1, "invalid": 2}
    assert scheduler.get("/v1/nodes/n")["reason"] == long[:500]
    store = Opened(postgresql.create("long"))
    effect = store.write(alerts.receive, Alert("f", "firing", "s", labels, {}), 60.0, Policy())
    assert effect.text == "unknown node"
    store.store.close()
