"""kill -9 at random moments under load, compared with a log kept outside.

STETHOS_KILLS sets how often.
"""

import os
import random
import signal
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing

import httpx
import pytest

from .processes import Json, Scheduler, until

KILLS = int(os.environ.get("STETHOS_KILLS", "5"))
GPUS = 8


class Outside:
    """Submitters and an agent that go on whatever happens to the server, and note what it told them."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.accepted: list[str] = []
        #: fence → job of all that was begun, and the fences whose end the server has confirmed.
        self.begun: dict[int, str] = {}
        self.confirmed: list[int] = []
        self.wrong: list[str] = []
        self._url, self._headers = scheduler.url, dict(scheduler.http.headers)
        self._stop = threading.Event()
        self._submitting = threading.Event()
        self._submitting.set()
        self._threads = [threading.Thread(target=work) for work in (self._submit, self._submit, self._run)]

    def __enter__(self) -> "Outside":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._submitting.clear()
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def rest(self) -> None:
        self._submitting.clear()

    def _submit(self) -> None:
        with httpx.Client(base_url=self._url, headers=self._headers, timeout=10) as client:
            while self._submitting.is_set():
                answer = self._tried(lambda: client.post("/v1/jobs", json={"type": "sleep", "gpus": 1}))
                if answer is not None and answer.status_code == 201:
                    self.accepted.append(answer.json()["id"])

    def _run(self) -> None:
        with httpx.Client(base_url=self._url, headers=self._headers, timeout=10) as client:
            while not self._stop.is_set():
                for start in self._beat(client):
                    fence = start["fence"]
                    if self.begun.setdefault(fence, start["job"]) != start["job"]:
                        self.wrong.append(f"the fence {fence} was given to two jobs")
                    self._report(client, fence)

    def _beat(self, client: httpx.Client) -> list[Json]:
        body = {"nodes": [{"node": "n", "attempts": []}], "wait_seconds": 0.1}
        answer = self._tried(lambda: client.post("/v1/heartbeats", json=body))
        if answer is None or answer.status_code != 200:
            return []
        if "n" in answer.json()["unknown"]:
            self._tried(lambda: client.post("/v1/nodes", json={"node": "n", "gpus": GPUS}))
        found: list[Json] = answer.json()["start"]
        return found

    def _report(self, client: httpx.Client, fence: int) -> None:
        """Until the server says that it has it; a report whose answer was lost is stale when it comes again."""
        body = {"node": "n", "outcome": "succeeded"}
        sent = 0
        while not self._stop.is_set():
            sent += 1
            answer = self._tried(lambda: client.post(f"/v1/attempts/{fence}/report", json=body))
            if answer is not None and answer.status_code in (204, 409):
                if answer.status_code == 204:
                    self.confirmed.append(fence)
                elif sent == 1:
                    self.wrong.append(f"the first report of {fence} was refused: {answer.text}")
                return

    def _tried(self, ask: Callable[[], httpx.Response]) -> httpx.Response | None:
        try:
            answer = ask()
        except httpx.TransportError:
            time.sleep(0.02)
            return None
        if answer.status_code >= 500 and answer.status_code != 503:
            self.wrong.append(answer.text)
        return answer


@pytest.mark.slow
@pytest.mark.timeout(60 + 20 * KILLS)
def test_nothing_is_lost_or_counted_twice_when_the_server_is_killed(own_scheduler: Scheduler) -> None:
    scheduler = own_scheduler
    chance = random.Random(7)
    with Outside(scheduler) as outside:
        for _ in range(KILLS):
            before = len(outside.accepted)
            until(lambda before=before: len(outside.accepted) > before, 60)  # type: ignore[misc]
            time.sleep(chance.uniform(0.0, 0.4))
            scheduler.process.send(signal.SIGKILL)
            scheduler.start(scheduler.port)
        outside.rest()
        until(lambda: not any(waiting(scheduler).values()), 120)
    assert outside.wrong == []
    stored = {job: scheduler.job(job) for job in outside.accepted}
    assert Counter(job["state"] for job in stored.values()) == {"succeeded": len(stored)}
    for job in stored.values():
        ended = [attempt["fence"] for attempt in job["attempts"] if attempt["state"] == "succeeded"]
        assert len(ended) == 1
        assert outside.begun[ended[0]] == job["id"]
    assert len(set(outside.confirmed)) == len(outside.confirmed)
    assert_consistent(scheduler)


def waiting(scheduler: Scheduler) -> dict[str, int]:
    queue = scheduler.get("/v1/fleet?detail=none")["queue"]
    return {state: queue[state] for state in ("queued", "assigned", "running")}


def assert_consistent(scheduler: Scheduler) -> None:
    """What must hold of the database at every moment, whatever happened."""
    live = "SELECT job FROM attempts WHERE state IN ('assigned', 'running')"
    placed = "SELECT id FROM jobs WHERE state IN ('assigned', 'running')"
    held = "SELECT DISTINCT fence, node FROM holdings"
    ends = "SELECT subject FROM events WHERE type = 'job.succeeded'"
    counted = "SELECT 'jobs.' || state, count(*) FROM jobs GROUP BY state"
    forbidden = [
        f"{live} GROUP BY job HAVING count(*) > 1",
        f"{placed} EXCEPT {live}",
        f"{live} EXCEPT {placed}",
        f"{held} EXCEPT SELECT fence, node FROM parts WHERE state <> 'done'",  # noqa: S608
        f"{ends} GROUP BY subject HAVING count(*) > 1",
        f"{counted} EXCEPT SELECT name, value FROM counters",  # noqa: S608
        "SELECT * FROM (SELECT count(*) AS told, max(sequence) AS last FROM events) WHERE told <> last",
    ]
    with closing(sqlite3.connect(f"file:{scheduler.home}/scheduler.sqlite?mode=ro", uri=True)) as database:
        for query in forbidden:
            assert database.execute(query).fetchall() == [], query
