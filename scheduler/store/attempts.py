"""Attempts as stored: placed, begun, ended, lost. The fence says which attempt of a job is the current one."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from ..jobs import (
    AttemptState,
    Job,
    JobState,
    Outcome,
    Part,
    PartState,
    Priority,
    Share,
    TransitionError,
    reconcile,
)
from . import jobs
from .connection import Row
from .nodes import tell_if_drained
from .transaction import Transaction

#: The origin of jobs that only try a place out: they go nowhere else, and no node is praised or blamed for them.
CANARY = "probation"


class StaleReportError(ValueError):
    """The report is about an attempt that is over; it changes nothing."""


@dataclass(frozen=True, slots=True)
class Placement:
    """A decision: this job on these GPUs, and why (JSON)."""

    job: str
    shares: tuple[Share, ...]
    explanation: str


@dataclass(frozen=True, slots=True)
class Started:
    """For the metrics: a job that began for the first time, and how long it had waited for that."""

    priority: Priority
    waited_seconds: float


@dataclass(frozen=True, slots=True)
class Ended:
    """For the metrics: a job that came to its end, and how long it ran."""

    state: JobState
    seconds: float


Happened = Started | Ended


def place(tx: Transaction, placement: Placement) -> int:
    """Give a queued job its GPUs under a new fence. A GPU that is taken is an IntegrityError, at the latest at the end
    of the write.
    """
    job = jobs.move(tx, jobs.get(tx, placement.job), JobState.ASSIGNED, placement=placement.shares, reason=None)
    fence = tx.advance("fence")
    tx.send(
        "add_attempt",
        fence=fence,
        job=job.id,
        placement=jobs.dump(placement.shares),
        decision=placement.explanation,
        placed_at=tx.now,
    )
    shares = placement.shares
    tx.many("add_part", [{"fence": fence, "node": share.node, "gpus": json.dumps(share.gpus)} for share in shares])
    held = [(share.node, gpu) for share in shares for gpu in share.gpus]
    tx.many("hold_gpu", [{"node": node, "gpu": gpu, "fence": fence, "job": job.id} for node, gpu in held])
    if job.specification.origin != CANARY:
        count(tx, [share.node for share in placement.shares], attempts=1)
    return fence


def count(tx: Transaction, nodes: Iterable[str], attempts: int = 0, failures: int = 0, repairs: int = 0) -> None:
    """Note in the nodes' histories how they have served."""
    for node in nodes:
        tx.send("count_reliability", node=node, attempts=attempts, infrastructure_failures=failures, repairs=repairs)


def live_parts(tx: Transaction, node: str) -> list[Part]:
    return [_part(row) for row in tx.all("live_parts", node=node)]


def apply(tx: Transaction, node: str, held: frozenset[int]) -> list[Happened]:
    """Take note of what a heartbeat tells: begun, released, lost by the agent."""
    found = reconcile(live_parts(tx, node), held)
    begun = [_begin(tx, fence, node) for fence in sorted(found.began)]
    for fence in sorted(found.released):
        _release(tx, fence, node)
    lost = [_lose(tx, fence, node, f"the agent of {node} was restarted") for fence in sorted(found.missing)]
    return [each for each in (*begun, *lost) if each]


def report(
    tx: Transaction, fence: int, node: str, outcome: Outcome, reason: str | None, result: str | None
) -> list[Happened]:
    """An agent's word on how its part ended. Raises StaleReportError when the attempt is not live there."""
    row = tx.one("part", fence=fence, node=node)
    if row is None:
        raise StaleReportError(f"there is no attempt {fence} on {node}")
    part = _part(row)
    if part.state == PartState.STOPPING and outcome == Outcome.STOPPED:
        _release(tx, fence, node)
        return []
    if part.state not in (PartState.ASSIGNED, PartState.RUNNING):
        raise StaleReportError(f"attempt {fence} of {part.job} is over on {node}; the report is not taken")
    started = _begin(tx, fence, node) if part.state == PartState.ASSIGNED else None
    ended = _conclude(tx, fence, node, outcome, reason, result)
    return [each for each in (started, ended) if each]


def _conclude(
    tx: Transaction, fence: int, node: str, outcome: Outcome, reason: str | None, result: str | None
) -> Ended | None:
    match outcome:
        case Outcome.SUCCEEDED:
            _release(tx, fence, node)
            if tx.all("unfinished_parts", fence=fence):
                return None
            return _finish(tx, fence, AttemptState.SUCCEEDED, JobState.SUCCEEDED, reason, result)
        case Outcome.FAILED:
            _release(tx, fence, node)
            return _finish(tx, fence, AttemptState.FAILED, JobState.FAILED, reason, result)
        case Outcome.INFRASTRUCTURE | Outcome.STOPPED:
            return _lose(tx, fence, node, reason or f"stopped on {node}")


def release_stopped(tx: Transaction, fence: int, node: str) -> None:
    """After a late report: its attempt is over, but its GPUs are free from now on."""
    row = tx.one("part", fence=fence, node=node)
    if row and row["state"] == PartState.STOPPING:
        _release(tx, fence, node)


def take_back(tx: Transaction, fence: int, node: str, reason: str) -> Ended | None:
    """The machine is not to be trusted with it any more: as if the node had lost it, but its agent is told to stop."""
    return _give_up(tx, fence, [node], reason)


def cancel(tx: Transaction, name: str, reason: str = "cancelled on request") -> Job:
    """Cancelled at once; its GPUs stay held until the agents have let go. Cancelling twice is once."""
    job = jobs.get(tx, name)
    if job.state == JobState.CANCELLED:
        return job
    if job.state.final:
        raise TransitionError(name, job.state, JobState.CANCELLED)
    attempt = tx.one("live_attempt", job=name)
    if attempt:
        _finish(tx, attempt["fence"], AttemptState.CANCELLED, JobState.CANCELLED, reason, None)
        return jobs.get(tx, name)
    return jobs.move(tx, job, JobState.CANCELLED, reason=reason)


def expire(tx: Transaction, start_seconds: float) -> list[Ended]:
    """End what ran past its timeout; take back what no agent began within `start_seconds`."""
    ended: list[Ended | None] = []
    for row in tx.all("overdue_attempts", now=tx.now, start_seconds=start_seconds):
        fence = row["fence"]
        if row["state"] == AttemptState.RUNNING:
            reason = f"ran longer than {row['timeout_seconds']:g} s"
            ended.append(_finish(tx, fence, AttemptState.TIMED_OUT, JobState.TIMED_OUT, reason, None))
        else:
            late = [part["node"] for part in tx.all("unfinished_parts", fence=fence)]
            ended.append(_give_up(tx, fence, late, f"not begun within {start_seconds:g} s"))
    return [end for end in ended if end]


def lose_node(tx: Transaction, node: str, reason: str) -> list[Ended]:
    """A node is gone with all that ran on it: its GPUs are let go, its jobs queued again."""
    ended: list[Ended | None] = []
    for part in live_parts(tx, node):
        if part.state == PartState.STOPPING:
            _release(tx, part.fence, node)
        else:
            ended.append(_lose(tx, part.fence, node, reason))
    return [end for end in ended if end]


def leave_node(tx: Transaction, node: str) -> None:
    """The agent stops in good order: what it had is queued again, and that costs no retry."""
    for part in live_parts(tx, node):
        _release(tx, part.fence, node)
        if part.state == PartState.STOPPING:
            continue
        reason = f"handed back by {node}"
        if jobs.get(tx, part.job).specification.origin == CANARY:
            _finish(tx, part.fence, AttemptState.HANDED_BACK, JobState.CANCELLED, reason, None)
        else:
            _requeue(tx, part.fence, AttemptState.HANDED_BACK, reason)


def _begin(tx: Transaction, fence: int, node: str) -> Started | None:
    tx.send("move_part", fence=fence, node=node, state=PartState.RUNNING)
    if not tx.change("start_attempt", fence=fence, now=tx.now):
        return None
    job = _job_of(tx, fence)
    jobs.move(tx, job, JobState.RUNNING, started_at=tx.now)
    if job.specification.origin == CANARY or tx.one("started_before", job=job.id, fence=fence):
        return None
    return Started(job.specification.priority, max(0.0, tx.now - job.submitted_at))


def _release(tx: Transaction, fence: int, node: str) -> None:
    tx.send("move_part", fence=fence, node=node, state=PartState.DONE)
    tx.send("release_gpus", fence=fence, node=node)
    tell_if_drained(tx, node)


def _lose(tx: Transaction, fence: int, node: str, reason: str) -> Ended | None:
    _release(tx, fence, node)
    return _give_up(tx, fence, [node], reason)


def _give_up(tx: Transaction, fence: int, nodes: list[str], reason: str) -> Ended | None:
    """The machine failed the job: queue it again, away from `nodes`, while it has retries left."""
    job = _job_of(tx, fence)
    if job.specification.origin != CANARY:
        count(tx, nodes, failures=1)
    if job.retries_used >= job.specification.retries:
        reason = f"{reason}; no retries left ({job.retries_used} used)"
        return _finish(tx, fence, AttemptState.LOST, JobState.FAILED, reason, None)
    _requeue(tx, fence, AttemptState.LOST, reason, job.retries_used + 1, job.avoid | set(nodes))
    return None


def _requeue(
    tx: Transaction,
    fence: int,
    state: AttemptState,
    reason: str,
    retries_used: int | None = None,
    avoid: frozenset[str] | None = None,
) -> None:
    job = _job_of(tx, fence)
    tx.send("end_attempt", fence=fence, state=state, reason=reason, now=tx.now)
    tx.send("stop_parts", fence=fence)
    changes: Mapping[str, object] = {
        "retries_used": job.retries_used if retries_used is None else retries_used,
        "avoid": job.avoid if avoid is None else avoid,
    }
    jobs.move(tx, job, JobState.QUEUED, "job.requeued", reason=reason, placement=(), started_at=None, **changes)


def _finish(
    tx: Transaction, fence: int, attempt: AttemptState, end: JobState, reason: str | None, result: str | None
) -> Ended:
    job = _job_of(tx, fence)
    tx.send("end_attempt", fence=fence, state=attempt, reason=reason, now=tx.now)
    if end != JobState.SUCCEEDED:  # then every part is done
        tx.send("stop_parts", fence=fence)
    jobs.move(tx, job, end, reason=reason, result=result)
    return Ended(end, max(0.0, tx.now - job.started_at) if job.started_at else 0.0)


def _job_of(tx: Transaction, fence: int) -> Job:
    row = tx.one("job_of_attempt", fence=fence)
    assert row is not None, fence
    return jobs.read(row)


def _part(row: Row) -> Part:
    return Part(row["fence"], row["node"], row["job"], tuple(json.loads(row["gpus"])), PartState(row["state"]))
