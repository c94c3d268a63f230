"""The database full, locked, read-only or away: a clear 503 while it lasts, and no restart needed after it."""

import resource
import sqlite3
import threading
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from itertools import count
from pathlib import Path

import httpx
import psutil
import pytest

from .postgresql import Postgresql
from .processes import Json, Scheduler, until

JOB = {"type": "sleep", "gpus": 1}
_numbers = count(1)


def refused(scheduler: Scheduler) -> Json | None:
    answer = scheduler.http.post("/v1/jobs", json=JOB)
    if answer.status_code == 201:
        return None
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json"), answer.text
    assert int(answer.headers["retry-after"]) > 0
    found: Json = answer.json()
    return found


def accepts(scheduler: Scheduler) -> bool:
    return scheduler.http.post("/v1/jobs", json=JOB).status_code == 201 and scheduler.http.get("/readyz").is_success


@contextmanager
def full(scheduler: Scheduler) -> Iterator[None]:
    """No file of the server's grows any more."""
    server = psutil.Process(scheduler.process.pid)
    largest = max(path.stat().st_size for path in scheduler.home.iterdir() if path.is_file())
    server.rlimit(resource.RLIMIT_FSIZE, (largest, resource.RLIM_INFINITY))
    try:
        yield
    finally:
        server.rlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))


def test_a_full_disk_refuses_jobs_and_takes_them_again_by_itself(own_scheduler: Scheduler) -> None:
    before = own_scheduler.submit()
    # Room in the log, so that the database is what is full.
    while (own_scheduler.home / "scheduler.sqlite-wal").stat().st_size < 100_000:
        own_scheduler.submit()
    with full(own_scheduler):
        problem = until(lambda: refused(own_scheduler))
        assert "disk" in problem["detail"]
        assert own_scheduler.http.get("/readyz").status_code == 503
        assert own_scheduler.http.get("/livez").status_code == 200
        assert own_scheduler.job(before["id"])["state"] == "queued"
    until(lambda: accepts(own_scheduler))


def test_a_locked_database_refuses_and_goes_on(own_scheduler: Scheduler) -> None:
    with closing(sqlite3.connect(own_scheduler.home / "scheduler.sqlite", isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        problem = until(lambda: refused(own_scheduler))
        assert problem["detail"] == "database is locked"
        other.execute("ROLLBACK")
    until(lambda: accepts(own_scheduler))


@pytest.fixture
def away(postgresql: Postgresql, tmp_path: Path) -> Iterator[Scheduler]:
    """A scheduler on PostgreSQL, with a node that its agent serves."""
    scheduler = Scheduler(tmp_path, "--database", postgresql.create(f"outage_{next(_numbers)}"))
    with scheduler.agent("--node", "n", "--gpus", "4"):
        until(lambda: scheduler.get("/v1/fleet")["counts"]["nodes"]["healthy"] == 1)
        yield scheduler
    scheduler.close()


class Load:
    """Submits from two threads until told to stop, and remembers what was accepted."""

    def __init__(self, scheduler: Scheduler) -> None:
        self.accepted: list[str] = []
        self.statuses: set[int] = set()
        self._stop = threading.Event()
        self._url, self._headers = scheduler.url, dict(scheduler.http.headers)
        self._threads = [threading.Thread(target=self._run) for _ in range(2)]

    def _run(self) -> None:
        with httpx.Client(base_url=self._url, headers=self._headers, timeout=20) as client:
            while not self._stop.is_set():
                answer = client.post("/v1/jobs", json=JOB | {"duration_seconds": 0.0})
                self.statuses.add(answer.status_code)
                if answer.status_code == 201:
                    self.accepted.append(answer.json()["id"])
                time.sleep(0.01)

    def __enter__(self) -> "Load":
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()

    def grows(self) -> None:
        before = len(self.accepted)
        until(lambda: len(self.accepted) > before + 10, 30)


@pytest.mark.slow
def test_nothing_is_lost_when_postgresql_goes_and_comes(away: Scheduler, postgresql: Postgresql) -> None:
    with Load(away) as load:
        for _ in range(3):
            load.grows()
            postgresql.kill_connections()
        load.grows()
        postgresql.stop()
        until(lambda: 503 in load.statuses)
        postgresql.start()
        load.grows()
    assert load.statuses <= {201, 503}
    until(lambda: away.get("/v1/fleet?detail=none")["queue"]["queued"] == 0, 60)
    until(lambda: away.get("/v1/fleet?detail=none")["queue"]["running"] == 0, 30)
    for job in load.accepted:
        found = away.job(job)
        assert found["state"] == "succeeded", found
        assert [attempt["state"] for attempt in found["attempts"]].count("succeeded") == 1


def test_a_read_only_database_refuses_and_goes_on(away: Scheduler, postgresql: Postgresql) -> None:
    postgresql.set("default_transaction_read_only", "on")
    try:
        # Sessions that are open take the setting up at their next statement, so that a job may still be accepted.
        problem = until(lambda: refused(away))
        assert "read-only transaction" in problem["detail"]
        before = away.get("/v1/jobs")["jobs"]
        assert refused(away)
        assert away.get("/v1/jobs")["jobs"] == before
    finally:
        postgresql.set("default_transaction_read_only", "off")
    until(lambda: accepts(away))
