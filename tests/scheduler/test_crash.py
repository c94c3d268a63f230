"""kill -9 at any moment: what was accepted is still there, and no GPU has two jobs."""

import signal
import sqlite3
import threading
import time
from contextlib import closing

import httpx
import pytest

from .processes import Scheduler, until


@pytest.mark.slow
def test_nothing_accepted_is_lost_when_the_server_is_killed_under_load(own_scheduler: Scheduler) -> None:
    scheduler = own_scheduler
    accepted: list[str] = []
    stop = threading.Event()
    url, headers = scheduler.url, dict(scheduler.http.headers)

    def load() -> None:
        with httpx.Client(base_url=url, headers=headers, timeout=5) as client:
            while not stop.is_set():
                try:
                    body = {"type": "sleep", "gpus": 1, "duration_seconds": 0.0}
                    answer = client.post("/v1/jobs", json=body)
                    if answer.status_code == 201:
                        accepted.append(answer.json()["id"])
                except httpx.TransportError:
                    time.sleep(0.05)

    with scheduler.agent("--node", "n", "--gpus", "2"):
        threads = [threading.Thread(target=load) for _ in range(2)]
        for thread in threads:
            thread.start()
        for pause in (0.3, 0.15, 0.45):
            before = len(accepted)
            until(lambda before=before: len(accepted) > before + 5)  # type: ignore[misc]
            time.sleep(pause)
            scheduler.process.send(signal.SIGKILL)
            scheduler.start(scheduler.port)
        stop.set()
        for thread in threads:
            thread.join()
        stored: set[str] = set()
        cursor = ""
        while True:
            page = scheduler.get(f"/v1/jobs?limit=1000{cursor}")
            stored |= {job["id"] for job in page["jobs"]}
            if not page["cursor"]:
                break
            cursor = f"&cursor={page['cursor']}"
        assert set(accepted) <= stored
        until(lambda: scheduler.get("/v1/fleet")["queue"]["succeeded"] >= 3)
    assert_consistent(scheduler)


def assert_consistent(scheduler: Scheduler) -> None:
    """What must hold of the database at every moment, whatever happened."""
    live = "SELECT job FROM attempts WHERE state IN ('assigned', 'running')"
    placed = "SELECT id FROM jobs WHERE state IN ('assigned', 'running')"
    held = "SELECT DISTINCT fence, node FROM holdings"
    ends = "SELECT subject FROM events WHERE type = 'job.succeeded'"
    forbidden = [
        f"{live} GROUP BY job HAVING count(*) > 1",
        f"{placed} EXCEPT {live}",
        f"{live} EXCEPT {placed}",
        f"{held} EXCEPT SELECT fence, node FROM parts WHERE state <> 'done'",  # noqa: S608
        f"{ends} GROUP BY subject HAVING count(*) > 1",
        "SELECT * FROM (SELECT count(*) AS told, max(sequence) AS last FROM events) WHERE told <> last",
    ]
    with closing(sqlite3.connect(f"file:{scheduler.home}/scheduler.sqlite?mode=ro", uri=True)) as database:
        for query in forbidden:
            assert database.execute(query).fetchall() == [], query
