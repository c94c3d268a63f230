"""Attempts as stored: placed, begun, ended, lost. The fence says which attempt of a job is the current one."""

import json
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..jobs import (
    AttemptState,
    Job,
    JobState,
    Part,
    PartState,
    Priority,
    Share,
    TransitionError,
    reconcile,
)
from . import jobs
from .connection import Row, Values
from .nodes import tell_if_drained
from .transaction import Transaction

#: The origin of jobs that only try a place out: they go nowhere else, and no node is praised or blamed for them.
CANARY = "probation"


@dataclass(frozen=True, slots=True)
class Placement:
    """A decision: this job on these GPUs, and why (JSON)."""

    job: Job
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


def place(tx: Transaction, placements: Sequence[Placement]) -> list[int]:
    """Give queued jobs their GPUs, each under a new fence. A GPU that is taken is an IntegrityError, at the latest at
    the end of the write.
    """
    fences = [tx.advance("fence") for _ in placements]
    numbered = list(zip(fences, placements, strict=True))
    jobs.save(tx, [(each.job, _assigned(tx, each)) for each in placements])
    tx.many("add_attempt", [_attempt(tx, fence, each) for fence, each in numbered])
    tx.many("add_part", [part for fence, each in numbered for part in _parts(fence, each)])
    tx.many("hold_gpu", [held for fence, each in numbered for held in _holdings(fence, each)])
    counted = [each.shares for each in placements if each.job.specification.origin != CANARY]
    count(tx, [share.node for shares in counted for share in shares], attempts=1)
    return fences


def _assigned(tx: Transaction, placement: Placement) -> Job:
    return jobs.step(tx, placement.job, JobState.ASSIGNED, placement=placement.shares, reason=None)


def _attempt(tx: Transaction, fence: int, placement: Placement) -> Values:
    return {
        "fence": fence,
        "job": placement.job.id,
        "placement": jobs.dump(placement.shares),
        "decision": placement.explanation,
        "placed_at": tx.now,
    }


def _parts(fence: int, placement: Placement) -> Iterable[Values]:
    return ({"fence": fence, "node": share.node, "gpus": json.dumps(share.gpus)} for share in placement.shares)


def _holdings(fence: int, placement: Placement) -> Iterable[Values]:
    held = ((share.node, gpu) for share in placement.shares for gpu in share.gpus)
    return ({"node": node, "gpu": gpu, "fence": fence, "job": placement.job.id} for node, gpu in held)


def count(tx: Transaction, nodes: Iterable[str], attempts: int = 0, failures: int = 0, repairs: int = 0) -> None:
    """Note in the nodes' histories how they have served, once for each time that one is named."""
    served = {"attempts": attempts, "infrastructure_failures": failures, "repairs": repairs}
    times = sorted(Counter(nodes).items())
    tx.many("count_reliability", [{"node": node, **{k: n * by for k, by in served.items()}} for node, n in times])


def live_parts(tx: Transaction, nodes: Sequence[str]) -> dict[str, list[Part]]:
    """What each of the nodes holds, or is to begin."""
    found = tx.each("live_parts", [{"node": node} for node in nodes])
    return {node: [read_part(row) for row in rows] for node, rows in zip(nodes, found, strict=True)}


def apply(tx: Transaction, node: str, held: frozenset[int]) -> list[Happened]:
    """Take note of what a heartbeat tells: begun, released, lost by the agent."""
    found = reconcile(live_parts(tx, [node])[node], held)
    begun = [begin(tx, fence, node) for fence in sorted(found.began)]
    for fence in sorted(found.released):
        release(tx, fence, node)
    lost = [lose(tx, fence, node, f"the agent of {node} was restarted") for fence in sorted(found.missing)]
    return [each for each in (*begun, *lost) if each]


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
        finish(tx, attempt["fence"], AttemptState.CANCELLED, JobState.CANCELLED, reason, None)
        return jobs.get(tx, name)
    return jobs.move(tx, job, JobState.CANCELLED, reason=reason)


def expire(tx: Transaction, start_seconds: float) -> list[Ended]:
    """End what ran past its timeout; take back what no agent began within `start_seconds`."""
    ended: list[Ended | None] = []
    for row in tx.all("overdue_attempts", now=tx.now, start_seconds=start_seconds):
        fence = row["fence"]
        if row["state"] == AttemptState.RUNNING:
            reason = f"ran longer than {row['timeout_seconds']:g} s"
            ended.append(finish(tx, fence, AttemptState.TIMED_OUT, JobState.TIMED_OUT, reason, None))
        else:
            late = [part["node"] for part in tx.all("unfinished_parts", fence=fence)]
            ended.append(_give_up(tx, fence, late, f"not begun within {start_seconds:g} s"))
    return [end for end in ended if end]


def lose_node(tx: Transaction, node: str, reason: str) -> list[Ended]:
    """A node is gone with all that ran on it: its GPUs are let go, its jobs queued again."""
    ended: list[Ended | None] = []
    for part in live_parts(tx, [node])[node]:
        if part.state == PartState.STOPPING:
            release(tx, part.fence, node)
        else:
            ended.append(lose(tx, part.fence, node, reason))
    return [end for end in ended if end]


def leave_node(tx: Transaction, node: str) -> None:
    """The agent stops in good order: what it had is queued again, and that costs no retry."""
    for part in live_parts(tx, [node])[node]:
        release(tx, part.fence, node)
        if part.state == PartState.STOPPING:
            continue
        reason = f"handed back by {node}"
        if jobs.get(tx, part.job).specification.origin == CANARY:
            finish(tx, part.fence, AttemptState.HANDED_BACK, JobState.CANCELLED, reason, None)
        else:
            _requeue(tx, part.fence, AttemptState.HANDED_BACK, reason)


def begin(tx: Transaction, fence: int, node: str) -> Started | None:
    tx.send("move_part", fence=fence, node=node, state=PartState.RUNNING)
    if not tx.change("start_attempt", fence=fence, now=tx.now):
        return None
    job = _job_of(tx, fence)
    jobs.move(tx, job, JobState.RUNNING, started_at=tx.now)
    return start_of(tx, job, tx.one("started_before", job=job.id, fence=fence) is not None)


def start_of(tx: Transaction, job: Job, before: bool) -> Started | None:
    if before or job.specification.origin == CANARY:
        return None
    return Started(job.specification.priority, max(0.0, tx.now - job.submitted_at))


def release(tx: Transaction, fence: int, node: str) -> None:
    tx.send("move_part", fence=fence, node=node, state=PartState.DONE)
    tx.send("release_gpus", fence=fence, node=node)
    tell_if_drained(tx, node)


def lose(tx: Transaction, fence: int, node: str, reason: str) -> Ended | None:
    release(tx, fence, node)
    return _give_up(tx, fence, [node], reason)


def _give_up(tx: Transaction, fence: int, nodes: list[str], reason: str) -> Ended | None:
    """The machine failed the job: queue it again, away from `nodes`, while it has retries left."""
    job = _job_of(tx, fence)
    if job.specification.origin != CANARY:
        count(tx, nodes, failures=1)
    if job.retries_used >= job.specification.retries:
        reason = f"{reason}; no retries left ({job.retries_used} used)"
        return finish(tx, fence, AttemptState.LOST, JobState.FAILED, reason, None)
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


def finish(
    tx: Transaction, fence: int, attempt: AttemptState, end: JobState, reason: str | None, result: str | None
) -> Ended:
    job = _job_of(tx, fence)
    tx.send("end_attempt", fence=fence, state=attempt, reason=reason, now=tx.now)
    if end != JobState.SUCCEEDED:  # then every part is done
        tx.send("stop_parts", fence=fence)
    return end_of(tx, jobs.move(tx, job, end, reason=reason, result=result))


def end_of(tx: Transaction, job: Job) -> Ended:
    return Ended(job.state, max(0.0, tx.now - job.started_at) if job.started_at else 0.0)


def _job_of(tx: Transaction, fence: int) -> Job:
    row = tx.one("job_of_attempt", fence=fence)
    assert row is not None, fence
    return jobs.read(row)


def read_part(row: Row) -> Part:
    return Part(row["fence"], row["node"], row["job"], tuple(json.loads(row["gpus"])), PartState(row["state"]))
