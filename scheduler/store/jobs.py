"""Jobs as stored: accepted, read, placed, ended. Every transition tells an event in its own commit."""

import json
import secrets
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

from ..jobs import (
    AGEING_SECONDS,
    Attempt,
    AttemptState,
    Job,
    JobState,
    JobType,
    Priority,
    Share,
    Specification,
    check,
    rank,
)
from ..names import readable_name
from .connection import Row, Values
from .transaction import Transaction


class UnknownJobError(LookupError):
    """There is no such job."""


class ReusedKeyError(ValueError):
    """The Idempotency-Key came before, with another job."""


class FullQueueError(Exception):
    """As many jobs wait as may wait."""


@dataclass(frozen=True, slots=True)
class Waiting:
    """What placement needs to know of a queued job. `gpus` is the total over all its nodes."""

    id: str
    gpus: int
    nodes: int
    rank: float
    avoid: frozenset[str]
    starving: bool = False


@dataclass(frozen=True, slots=True)
class Submission:
    """A job that is asked for, under an Idempotency-Key or none; no more than `limit` may wait."""

    wanted: Specification
    key: str | None = None
    fingerprint: str = ""
    limit: int | None = None


def submit(tx: Transaction, wanted: Specification) -> Job:
    ((job, _),) = accept(tx, [Submission(wanted)])
    return job


def accept(tx: Transaction, submissions: Sequence[Submission]) -> list[tuple[Job, bool]]:
    """The accepted jobs, and whether that only repeats an earlier answer to the same key.

    Raises FullQueueError, ReusedKeyError; and an IntegrityError where two have one key.
    """
    answers = [_earlier(tx, each) or (_new(tx, each), False) for each in submissions]
    new = [(job, each) for (job, repeated), each in zip(answers, submissions, strict=True) if not repeated]
    tx.many("add_job", [_row(job) for job, _ in new])
    keyed = [(job, each) for job, each in new if each.key is not None]
    tx.many(
        "remember_answer",
        [{"key": each.key, "fingerprint": each.fingerprint, "job": job.id, "now": tx.now} for job, each in keyed],
    )
    return answers


def _earlier(tx: Transaction, asked: Submission) -> tuple[Job, bool] | None:
    row = tx.one("remembered_answer", key=asked.key) if asked.key is not None else None
    if row and row["fingerprint"] != asked.fingerprint:
        raise ReusedKeyError(f"the key {asked.key!r} was used before, with another job")
    return (get(tx, row["job"]), True) if row else None


def _new(tx: Transaction, asked: Submission) -> Job:
    """Numbered, counted and told."""
    wanted, limit = asked.wanted, asked.limit
    if limit is not None and (waiting := tx.counter(_tally(JobState.QUEUED))) >= limit:
        raise FullQueueError(f"{waiting} jobs wait already, and no more than {limit} may")
    number = tx.advance("job")
    job = Job(
        id=f"job-{secrets.token_hex(6)}",
        number=number,
        name=wanted.name or readable_name(number),
        specification=wanted,
        state=JobState.QUEUED,
        retries_used=0,
        avoid=frozenset(),
        reason=None,
        result=None,
        submitted_at=tx.now,
        started_at=None,
        finished_at=None,
        placement=(),
    )
    tx.advance(_tally(JobState.QUEUED))
    tx.event("job.queued", job.id, name=job.name, state=job.state)
    return job


def _row(job: Job) -> Values:
    wanted = job.specification
    return {
        "id": job.id,
        "number": job.number,
        "name": job.name,
        "type": wanted.type,
        "gpus": wanted.gpus,
        "nodes": wanted.nodes,
        "priority": wanted.priority,
        "timeout_seconds": wanted.timeout_seconds,
        "retries": wanted.retries,
        "duration_seconds": wanted.duration_seconds,
        "parameters": wanted.parameters,
        "origin": wanted.origin,
        "rank": rank(wanted.priority, job.submitted_at),
        "submitted_at": job.submitted_at,
    }


def get(tx: Transaction, name: str, attempts: bool = False) -> Job:
    row = tx.one("job", id=name)
    if row is None:
        raise UnknownJobError(f"there is no job {name!r}")
    job = read(row)
    if attempts:
        job = replace(job, attempts=tuple(_attempt(row) for row in tx.all("attempts_of", job=name)))
    return job


def find(tx: Transaction, names: Sequence[str]) -> list[Job]:
    """Those of them that there are, in order."""
    return [read(row) for rows in tx.each("job", [{"id": name} for name in names]) for row in rows]


def page(tx: Transaction, state: JobState | None, before: int, limit: int) -> list[Job]:
    """Newest first, below the number `before`."""
    if state is None:
        rows = tx.all("jobs_before", before=before, limit=limit)
    else:
        rows = tx.all("jobs_in_state_before", state=state, before=before, limit=limit)
    return [read(row) for row in rows]


def counts(tx: Transaction) -> dict[JobState, int]:
    found = {row["name"]: int(row["value"]) for row in tx.all("job_counts")}
    return {state: found[_tally(state)] for state in JobState}


def uncount(tx: Transaction, state: JobState) -> None:
    """A job in this state was forgotten."""
    tx.advance(_tally(state), -1)


def _tally(state: JobState) -> str:
    """The counter of the jobs in a state."""
    return f"jobs.{state}"


def oldest_waiting(tx: Transaction) -> float | None:
    row = tx.one("oldest_waiting")
    return row["submitted_at"] if row else None


def finished_since(tx: Transaction, since: float) -> int:
    row = tx.one("finished_since", since=since)
    return int(row["jobs"]) if row else 0


def waiting(tx: Transaction, limit: int, free: int) -> list[Waiting]:
    """The first of the queue, of each shape apart: jobs that fit nowhere hide no others.

    Of each shape one more than `free` GPUs could take, and at most `limit`.
    """
    found = [
        Waiting(
            row["id"],
            row["gpus"],
            row["nodes"],
            row["rank"],
            _names(row["avoid"]),
            tx.now - row["submitted_at"] > AGEING_SECONDS,
        )
        for shape in tx.all("waiting_shapes")
        for row in tx.all(
            "waiting_of_shape", gpus=shape["gpus"], nodes=shape["nodes"], limit=min(limit, free // shape["gpus"] + 1)
        )
    ]
    return sorted(found, key=lambda job: job.rank)


@lru_cache(maxsize=4096)
def _names(text: str) -> frozenset[str]:
    """The nodes that a job avoids; mostly none."""
    return frozenset(json.loads(text))


def decision(tx: Transaction, name: str) -> str | None:
    """The explanation (JSON) of the newest attempt's placement."""
    rows = tx.all("attempts_of", job=name)
    return rows[-1]["decision"] if rows else None


def move(tx: Transaction, job: Job, new: JobState, told: str | None = None, **changes: object) -> Job:
    """Take a job to its next state and tell of it. Raises TransitionError where there is no such way."""
    moved = step(tx, job, new, told, **changes)
    save(tx, [(job, moved)])
    return moved


def save(tx: Transaction, moves: Sequence[tuple[Job, Job]]) -> None:
    """Of each job how it was and how it is after a `step` or several."""
    tx.exactly("move_job", [_change(old, new) for old, new in moves])


def _change(old: Job, new: Job) -> Values:
    return {
        "id": old.id,
        "old": old.state,
        "new": new.state,
        "reason": new.reason,
        "result": new.result,
        "placement": dump(new.placement),
        "avoid": json.dumps(sorted(new.avoid)),
        "retries_used": new.retries_used,
        "started_at": new.started_at,
        "finished_at": new.finished_at,
    }


def step(tx: Transaction, job: Job, new: JobState, told: str | None = None, **changes: object) -> Job:
    """The job in its next state, counted and told, to be saved. Raises TransitionError where there is no such way."""
    check(job.id, job.state, new)
    moved = replace(job, state=new, finished_at=tx.now if new.final else None, **changes)  # type: ignore[arg-type]
    tx.advance(_tally(job.state), -1)
    tx.advance(_tally(new))
    tx.event(
        told or f"job.{new}",
        job.id,
        name=job.name,
        state=new,
        reason=moved.reason,
        placement=_plain(moved.placement) or None,
    )
    return moved


def dump(placement: Iterable[Share]) -> str:
    return json.dumps(_plain(placement))


def _plain(placement: Iterable[Share]) -> list[dict[str, object]]:
    return [{"node": share.node, "gpus": list(share.gpus)} for share in placement]


def load(text: str) -> tuple[Share, ...]:
    return tuple(Share(share["node"], tuple(share["gpus"])) for share in json.loads(text))


def _attempt(row: Row) -> Attempt:
    return Attempt(
        row["fence"],
        AttemptState(row["state"]),
        load(row["placement"]),
        row["placed_at"],
        row["started_at"],
        row["finished_at"],
        row["reason"],
    )


def read(row: Row) -> Job:
    """A row of the jobs."""
    wanted = Specification(
        type=JobType(row["type"]),
        gpus=row["gpus"],
        nodes=row["nodes"],
        priority=Priority(row["priority"]),
        name=row["name"],
        timeout_seconds=row["timeout_seconds"],
        retries=row["retries"],
        duration_seconds=row["duration_seconds"],
        parameters=row["parameters"],
        origin=row["origin"],
    )
    return Job(
        id=row["id"],
        number=row["number"],
        name=row["name"],
        specification=wanted,
        state=JobState(row["state"]),
        retries_used=row["retries_used"],
        avoid=_names(row["avoid"]),
        reason=row["reason"],
        result=row["result"],
        submitted_at=row["submitted_at"],
        started_at=row["started_at"],
        finished_at=row["finished_at"],
        placement=load(row["placement"]),
    )
