"""What the store promises, on both databases: one suite, run twice."""

import asyncio
import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any, TypeVar

import pytest

from scheduler.jobs import Job, JobState, JobType, Outcome, Priority, Share, Specification, TransitionError
from scheduler.nodes import Gpu, Owner
from scheduler.remediation import Policy
from scheduler.store import (
    Access,
    Store,
    Transaction,
    UnavailableError,
    alerts,
    attempts,
    events,
    jobs,
    nodes,
    reports,
    retention,
    tokens,
)
from scheduler.store.alerts import Alert
from scheduler.store.attempts import Ended, Placement, Started
from scheduler.store.jobs import FullQueueError, ReusedKeyError, Submission, UnknownJobError
from scheduler.store.migration import migrate, split
from scheduler.store.reports import Report, StaleReportError
from scheduler.store.retention import Keep

from .postgresql import Postgresql

T = TypeVar("T")
Item = TypeVar("Item")
SLEEP = Specification(JobType.SLEEP, 1)
_numbers = count(1)


class Opened:
    """A store whose calls wait for their answer."""

    def __init__(self, database: Path | str, access: Access = Access.OWN) -> None:
        self.database = database
        self.store = Store(database, access)

    def write(self, work: Callable[..., T], *args: Any) -> T:
        return asyncio.run(self.store.write(work, *args))

    def read(self, work: Callable[..., T], *args: Any) -> T:
        return asyncio.run(self.store.read(work, *args))

    def write_all(self, *works: Callable[[Transaction], object]) -> list[object]:
        """All at once, so that they share commits."""

        async def together() -> list[object]:
            return await asyncio.gather(*(self.store.write(work) for work in works), return_exceptions=True)

        return asyncio.run(together())

    def write_together(
        self, work: Callable[[Transaction, Sequence[Item]], Sequence[T]], items: Sequence[Item]
    ) -> list[object]:
        """The same, of what is done together."""

        async def together() -> list[object]:
            return await asyncio.gather(*(self.store.together(work, item) for item in items), return_exceptions=True)

        return asyncio.run(together())


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> Path | str:
    if request.param == "sqlite":
        return tmp_path / "database"
    server: Postgresql = request.getfixturevalue("postgresql")
    return server.create(f"store_{next(_numbers)}")


@pytest.fixture
def store(database: Path | str) -> Iterator[Opened]:
    opened = Opened(database)
    yield opened
    opened.store.close()


def told(tx: Transaction) -> list[tuple[int, str, str]]:
    found = events.after(tx, 0)
    return [(event.sequence, event.type, json.loads(event.data)["subject"]) for event in found]


def submit(tx: Transaction, wanted: Specification = SLEEP) -> str:
    return jobs.submit(tx, wanted).id


def place(tx: Transaction, job: str, gpu: int = 0) -> int:
    (fence,) = attempts.place(tx, [Placement(jobs.get(tx, job), (Share("n", (gpu,)),), "{}")])
    return fence


def report(tx: Transaction, fence: int, outcome: Outcome, reason: str | None = None) -> list[attempts.Happened]:
    (happened,) = reports.take(tx, [Report(fence, "n", outcome, reason, '{"x": 1}')])
    return happened


def accept(tx: Transaction, key: str, fingerprint: str) -> tuple[Job, bool]:
    (accepted,) = jobs.accept(tx, [Submission(SLEEP, key, fingerprint)])
    return accepted


def node(tx: Transaction, gpus: int = 2) -> None:
    nodes.register(tx, "n", "rack-1", "real", [Gpu(index) for index in range(gpus)])
    nodes.set_reachable(tx, "n", True)


def test_a_job_is_read_as_it_was_accepted(store: Opened) -> None:
    wanted = Specification(JobType.MATRIX, 4, nodes=2, name="ünï", duration_seconds=1.5, parameters='{"size": 3}')
    accepted = store.write(jobs.submit, wanted)
    assert store.read(jobs.get, accepted.id) == accepted
    assert accepted.specification == wanted
    with pytest.raises(UnknownJobError):
        store.read(jobs.get, "job-none")


def test_every_transition_is_told_in_the_commit_that_makes_it(store: Opened) -> None:
    store.write(node)
    job = store.write(submit)
    fence = store.write(place, job)
    store.write(attempts.apply, "n", frozenset({fence}))
    store.write(report, fence, Outcome.SUCCEEDED)
    assert store.read(told) == [
        (1, "node.registered", "n"),
        (2, "node.healthy", "n"),
        (3, "job.queued", job),
        (4, "job.assigned", job),
        (5, "job.running", job),
        (6, "job.succeeded", job),
    ]
    found = store.read(jobs.get, job, True)
    assert (found.state, found.result, found.attempts[0].fence) == (JobState.SUCCEEDED, '{"x": 1}', fence)


def test_what_fails_changes_nothing_and_costs_the_others_nothing(store: Opened) -> None:
    def fail(tx: Transaction) -> None:
        submit(tx)
        raise RuntimeError("no")

    works: list[Callable[[Transaction], object]] = [submit, fail]
    results = store.write_all(*works * 20)
    accepted = [result for result in results if isinstance(result, str)]
    assert len(accepted) == 20
    assert sum(isinstance(result, RuntimeError) for result in results) == 20
    assert [subject for _, _, subject in store.read(told)] == accepted
    assert [sequence for sequence, _, _ in store.read(told)] == list(range(1, 21))
    numbers = [store.read(jobs.get, job).number for job in accepted]
    assert numbers == list(range(1, 21))


def test_states_are_counted_as_they_change(store: Opened) -> None:
    store.write(node)
    names = [store.write(submit) for _ in range(4)]
    store.write(place, names[0])
    store.write(attempts.cancel, names[1])
    counts = {state: number for state, number in store.read(jobs.counts).items() if number}
    assert counts == {JobState.QUEUED: 2, JobState.ASSIGNED: 1, JobState.CANCELLED: 1}


def test_numbers_go_on_where_they_were(store: Opened) -> None:
    store.write(submit)
    store.store.close()
    again = Opened(store.database)
    assert again.read(jobs.get, again.write(submit)).number == 2
    assert again.read(events.newest) == 2
    store.store = again.store


def test_a_gpu_is_never_held_twice(store: Opened) -> None:
    store.write(node)
    first, second = store.write(submit), store.write(submit)
    fence, failure, third = store.write_all(lambda tx: place(tx, first), lambda tx: place(tx, second), submit)
    assert "unique" in str(failure).lower()
    assert [store.read(jobs.get, job).state for job in (first, second, third)] == ["assigned", "queued", "queued"]
    assert (fence, store.read(nodes.holders)) == (1, {("n", 0): first})
    with pytest.raises(Exception, match=r"(?i)unique"):
        store.write(place, second)


def test_the_fleet_is_read_with_the_gpus_that_are_held(store: Opened) -> None:
    store.write(node, 64)
    taken = {gpu for gpu in (0, 5, 29, 30, 63) if store.write(place, store.write(submit), gpu)}
    assert [each.held for each in store.read(nodes.get_all)] == [taken]


def test_reports_taken_together_are_taken_as_one_by_one(store: Opened) -> None:
    """Of attempts begun and not, of a gang, of one that failed, and on a node that is to be empty."""
    for name in ("n", "m", "drained"):
        store.write(nodes.register, name, None, "real", [Gpu(index) for index in range(8)])
        store.write(nodes.set_reachable, name, True)
    names = [store.write(submit) for _ in range(6)]
    on = [("n",), ("n",), ("n", "m"), ("m",), ("m",), ("drained",)]
    placements = [tuple(Share(name, (gpu,)) for name in where) for gpu, where in enumerate(on)]

    def all_placed(tx: Transaction) -> list[int]:
        return attempts.place(
            tx, [Placement(job, shares, "{}") for job, shares in zip(jobs.find(tx, names), placements, strict=True)]
        )

    fences = store.write(all_placed)
    store.write(attempts.apply, "n", frozenset({fences[1]}))
    store.write(nodes.drain, "drained", "upkeep", Owner.PERSON)
    before = store.read(events.newest)
    told = [Report(fence, name, Outcome.SUCCEEDED) for fence, where in zip(fences, on, strict=True) for name in where]
    told[4] = replace(told[4], outcome=Outcome.FAILED, reason="exit code 1")
    happened = [[type(each) for each in followed] for followed in store.write(reports.take, told)]
    both = [Started, Ended]
    assert happened == [both, [Ended], [Started], [Ended], both, both, both]
    found = store.read(jobs.find, names)
    assert [job.state for job in found] == ["succeeded"] * 3 + ["failed"] + ["succeeded"] * 2
    assert all(job.started_at and job.finished_at for job in found)
    assert store.read(nodes.holders) == {}
    seen = store.read(events.after, before)
    assert [event.sequence for event in seen] == list(range(before + 1, before + 13))
    kinds = {job: [event.type for event in seen if job in event.data] for job in names}
    ends = [["job.running", f"job.{job.state}"] for job in found]
    assert list(kinds.values()) == [ends[0], ends[1][1:], *ends[2:]]
    assert [event.type for event in seen if "upkeep" in event.data] == ["node.drained"]
    late = store.write_together(reports.take, told)
    assert all(isinstance(error, StaleReportError) for error in late)


def test_a_final_state_is_final(store: Opened) -> None:
    store.write(node)
    job = store.write(submit)
    fence = store.write(place, job)
    store.write(report, fence, Outcome.FAILED, "exit code 1")
    with pytest.raises(TransitionError):
        store.write(attempts.cancel, job)
    with pytest.raises(StaleReportError):
        store.write(report, fence, Outcome.SUCCEEDED)
    assert store.read(jobs.get, job).reason == "exit code 1"


def test_a_lost_job_avoids_the_node_that_lost_it(store: Opened) -> None:
    store.write(node)
    job = store.write(submit)
    store.write(place, job)
    store.write(attempts.lose_node, "n", "gone")
    found = store.read(jobs.get, job)
    assert (found.state, found.retries_used, found.avoid) == (JobState.QUEUED, 1, frozenset({"n"}))
    assert store.read(nodes.get, "n").held == frozenset()


def test_a_job_waits_until_it_starts_for_the_first_time(store: Opened) -> None:
    """Whatever happened before and happens afterwards, and however it is heard of."""
    store.write(node)
    job = store.write(submit)
    store.write(place, job)
    store.write(attempts.lose_node, "n", "gone before it began")
    fence = store.write(place, job)
    (started,) = store.write(attempts.apply, "n", frozenset({fence}))
    assert isinstance(started, Started)
    assert (started.priority, 0 <= started.waited_seconds < 60) == (Priority.NORMAL, True)
    store.write(attempts.lose_node, "n", "gone")
    fence = store.write(place, job)
    assert store.write(attempts.apply, "n", frozenset({fence})) == []
    fence = store.write(place, store.write(submit), 1)
    kinds = [type(each) for each in store.write(report, fence, Outcome.SUCCEEDED)]
    assert kinds == [Started, Ended]


def test_a_canary_waits_for_nothing(store: Opened) -> None:
    store.write(node)
    canary = store.write(jobs.submit, replace(SLEEP, origin=attempts.CANARY))
    fence = store.write(place, canary.id)
    assert store.write(attempts.apply, "n", frozenset({fence})) == []


def test_a_key_gives_its_own_job_again(store: Opened) -> None:
    first, _ = store.write(accept, "key", "print")
    again, repeated = store.write(accept, "key", "print")
    assert (again.id, repeated) == (first.id, True)
    with pytest.raises(ReusedKeyError):
        store.write(accept, "key", "other")


def test_a_full_queue_takes_no_more(store: Opened) -> None:
    answers = store.write_together(jobs.accept, [Submission(SLEEP, limit=2)] * 5)
    assert [isinstance(answer, FullQueueError) for answer in answers] == [False, False, True, True, True]
    assert str(answers[-1]) == "2 jobs wait already, and no more than 2 may"
    assert store.read(jobs.counts)[JobState.QUEUED] == 2


def test_the_first_of_each_shape_are_what_waits(store: Opened) -> None:
    for gpus, each in ((8, 1), (1, 5), (4, 2), (4, 4)):
        for _ in range(3):
            store.write(submit, Specification(JobType.SLEEP, gpus, nodes=each if gpus == 4 else 1))
    found = store.read(jobs.waiting, 2, 8)
    shapes = Counter((job.gpus, job.nodes) for job in found)
    assert shapes == {(1, 1): 2, (4, 2): 2, (4, 4): 2, (8, 1): 2}
    assert len(store.read(jobs.waiting, 200, 0)) == 4


def test_a_node_has_a_version_for_whatever_decides_about_work(store: Opened) -> None:
    store.write(node)
    seen = [store.read(nodes.get, "n").version]
    for change in (
        lambda tx: nodes.drain(tx, "n", "fans", Owner.PERSON),
        lambda tx: nodes.undrain(tx, "n", Owner.PERSON),
        lambda tx: nodes.cordon(tx, "n", 0, "score", "hot"),
        lambda tx: nodes.uncordon(tx, "n", 0, "score"),
        lambda tx: nodes.set_reachable(tx, "n", False, "silent"),
        node,
    ):
        store.write(change)
        seen.append(store.read(nodes.get, "n").version)
    assert seen == sorted(set(seen))
    store.write(nodes.cordon, "n", 0, "score", "hot")
    same = store.read(nodes.get, "n").version
    store.write(nodes.cordon, "n", 0, "score", "hot")
    assert store.read(nodes.get, "n").version == same
    with pytest.raises(nodes.ChangedNodeError, match=f"it is at version {same}"):
        store.write(nodes.expect, "n", frozenset({same - 1}))


def test_old_events_go_and_their_numbers_stay_used(store: Opened) -> None:
    for _ in range(10):
        store.write(submit)
    store.write(events.prune, 4, 3600.0)
    assert (store.read(events.oldest), store.read(events.newest)) == (7, 10)
    store.write(events.prune, 100, -1.0)
    assert (store.read(events.oldest), store.read(events.newest)) == (11, 10)
    store.write(submit)
    assert [sequence for sequence, _, _ in store.read(told)] == [11]


def test_ended_jobs_are_forgotten_whole_and_nothing_else_is(store: Opened) -> None:
    store.write(node, 1)
    done, remembered = store.write(submit), store.write(lambda tx: accept(tx, "key", "x")[0].id)
    waits = store.write(submit)
    fence = store.write(place, done)
    store.write(report, fence, Outcome.SUCCEEDED)
    store.write(attempts.cancel, remembered)
    store.write(retention.prune, Keep(jobs=2, seconds=3600.0))
    assert len(store.read(jobs.page, None, 10, 10)) == 3
    store.write(retention.prune, Keep(seconds=-1.0))
    for name in (done, remembered):
        with pytest.raises(UnknownJobError):
            store.read(jobs.get, name)
    assert store.read(lambda tx: tx.one("part", fence=fence, node="n")) is None
    assert store.write(lambda tx: accept(tx, "key", "y")[1]) is False
    assert {state: count for state, count in store.read(jobs.counts).items() if count} == {"queued": 2}
    assert store.read(jobs.get, waits).state == "queued"


def test_of_too_many_ended_jobs_the_oldest_go(store: Opened) -> None:
    names = [store.write(submit) for _ in range(5)]
    for name in names:
        store.write(attempts.cancel, name)
    store.write(retention.prune, Keep(jobs=2))
    assert [job.id for job in store.read(jobs.page, None, 100, 10)] == names[:2:-1]


def test_a_job_whose_gpus_are_still_held_is_remembered(store: Opened) -> None:
    store.write(node, 1)
    job = store.write(submit)
    fence = store.write(place, job)
    store.write(attempts.apply, "n", frozenset({fence}))
    store.write(attempts.cancel, job)
    store.write(retention.prune, Keep(seconds=-1.0))
    assert store.read(nodes.holders, "n") == {("n", 0): job}
    store.write(attempts.apply, "n", frozenset())
    store.write(retention.prune, Keep(seconds=-1.0))
    assert store.read(jobs.page, None, 100, 10) == []


def test_old_alerts_are_forgotten(store: Opened) -> None:
    alert = Alert("f", "firing", "2026-01-31T12:00:00Z", {"alertname": "a"}, {})
    store.write(alerts.receive, alert, 60.0, Policy())
    store.write(retention.prune, Keep(seconds=60.0))
    assert len(store.read(alerts.recent, 10)) == 1
    store.write(retention.prune, Keep(seconds=-1.0))
    assert store.read(alerts.recent, 10) == []


def test_of_a_token_only_the_hash_is_kept(store: Opened) -> None:
    token = store.write(tokens.create, "ci", ["read", "jobs:write"], 60.0)
    (kept,) = store.read(tokens.get_all)
    assert (kept.name, kept.scopes, kept.hash) == ("ci", frozenset({"read", "jobs:write"}), tokens.digest(token))
    with pytest.raises(tokens.KnownTokenError):
        store.write(tokens.create, "ci", ["read"], None)
    assert [store.write(tokens.revoke, "ci") for _ in range(2)] == [True, False]


def test_only_one_scheduler_works_on_a_database(store: Opened, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scheduler.store.postgresql.START_SECONDS", 0.5)
    with pytest.raises(UnavailableError, match="another scheduler works on"):
        Store(store.database)
    beside = Opened(store.database, Access.WRITE)
    beside.write(tokens.create, "ci", ["read"], None)
    beside.store.close()


def test_two_that_claim_one_lease_agree_on_the_winner(store: Opened) -> None:
    """Twenty times: the node is lost while its report arrives, from two threads behind one barrier."""
    store.write(node, 1)
    for _ in range(20):
        job = store.write(submit)
        fence = store.write(place, job)
        store.write(attempts.apply, "n", frozenset({fence}))
        barrier = threading.Barrier(2)

        def late(fence: int = fence, barrier: threading.Barrier = barrier) -> object:
            barrier.wait()
            try:
                return store.write(report, fence, Outcome.SUCCEEDED)
            except StaleReportError as error:
                return error

        def lost(barrier: threading.Barrier = barrier) -> object:
            barrier.wait()
            return store.write(attempts.lose_node, "n", "silent")

        with ThreadPoolExecutor(2) as pool:
            reporting, losses = pool.submit(late), pool.submit(lost)
            refused = isinstance(reporting.result(), StaleReportError)
            losses.result()
        found = store.read(jobs.get, job, True)
        assert (found.state, found.attempts[0].state) == (("queued", "lost") if refused else ("succeeded", "succeeded"))
        assert store.read(nodes.get, "n").held == frozenset()
        if refused:
            store.write(attempts.cancel, job)


def test_migrations_run_once_and_in_order(store: Opened) -> None:
    store.write(submit)
    migrate(store.store._connection)
    assert len(store.read(told)) == 1


def test_a_migration_is_split_at_the_ends_of_its_statements() -> None:
    assert split("-- why; so\nA (\n  x, -- y;z\n  y\n);\nB;\n") == ["A (\n  x, -- y;z\n  y\n)", "B"]


def test_a_database_that_cannot_be_opened_is_a_sentence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("scheduler.store.postgresql.START_SECONDS", 0.0)
    (tmp_path / "file").write_text("x")
    for where, said in (
        (tmp_path / "file" / "database", "cannot be opened"),
        ("mysql://host/x", "neither a file nor a postgresql:// URL"),
        ("postgresql://stethos:secret@127.0.0.1:1/x", "the PostgreSQL database cannot be used"),
    ):
        with pytest.raises(UnavailableError, match=said) as caught:
            Store(where)
        assert "secret" not in str(caught.value)
