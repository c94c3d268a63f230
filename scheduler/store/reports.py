"""What agents say of the ends of attempts, taken together as they come."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from ..jobs import AttemptState, JobState, Outcome, PartState
from . import attempts, jobs
from .connection import Row, Values
from .transaction import Transaction


class StaleReportError(ValueError):
    """The report is about an attempt that is over; it changes nothing."""


@dataclass(frozen=True, slots=True)
class Report:
    """An agent's word on how its part of an attempt ended; `result` is JSON."""

    fence: int
    node: str
    outcome: Outcome
    reason: str | None = None
    result: str | None = None


def take(tx: Transaction, reports: Sequence[Report]) -> list[list[attempts.Happened]]:
    """What followed from each report. Most are of a job that is done with that: those are taken together."""
    found = tx.each("reported", [{"fence": each.fence, "node": each.node} for each in reports])
    once = Counter(each.fence for each in reports)
    done = {
        each.fence: (each, rows[0])
        for each, rows in zip(reports, found, strict=True)
        if once[each.fence] == 1 and rows and _completes(each, rows[0])
    }
    happened = _succeed(tx, list(done.values()))
    return [happened[each.fence] if each.fence in done else report(tx, each) for each in reports]


def _completes(told: Report, row: Row) -> bool:
    """Whether a job has succeeded with it, and nobody waits for its node to be empty."""
    live = row["part"] in (PartState.ASSIGNED, PartState.RUNNING)
    return told.outcome == Outcome.SUCCEEDED and live and row["unfinished"] == 1 and not row["drain_owner"]


def _succeed(tx: Transaction, done: Sequence[tuple[Report, Row]]) -> dict[int, list[attempts.Happened]]:
    """The end of these attempts, and the beginning of those that no heartbeat has told of; by their fences."""
    happened: dict[int, list[attempts.Happened]] = {}
    moves = []
    for told, row in done:
        before = job = jobs.read(row)
        started = None
        if job.state == JobState.ASSIGNED:
            job = jobs.step(tx, job, JobState.RUNNING, started_at=tx.now)
            started = attempts.start_of(tx, job, bool(row["started_before"]))
        job = jobs.step(tx, job, JobState.SUCCEEDED, reason=told.reason, result=told.result)
        moves.append((before, job))
        happened[told.fence] = [each for each in (started, attempts.end_of(tx, job)) if each]
    jobs.save(tx, moves)
    tx.many("succeed_attempt", [{"fence": told.fence, "reason": told.reason, "now": tx.now} for told, _ in done])
    places: list[Values] = [{"fence": told.fence, "node": told.node} for told, _ in done]
    tx.many("move_part", [{**place, "state": PartState.DONE} for place in places])
    tx.many("release_gpus", places)
    return happened


def report(tx: Transaction, told: Report) -> list[attempts.Happened]:
    """An agent's word on how its part ended. Raises StaleReportError when the attempt is not live there."""
    fence, node, outcome = told.fence, told.node, told.outcome
    row = tx.one("part", fence=fence, node=node)
    if row is None:
        raise StaleReportError(f"there is no attempt {fence} on {node}")
    part = attempts.read_part(row)
    if part.state == PartState.STOPPING and outcome == Outcome.STOPPED:
        attempts.release(tx, fence, node)
        return []
    if part.state not in (PartState.ASSIGNED, PartState.RUNNING):
        raise StaleReportError(f"attempt {fence} of {part.job} is over on {node}; the report is not taken")
    started = attempts.begin(tx, fence, node) if part.state == PartState.ASSIGNED else None
    ended = _conclude(tx, told)
    return [each for each in (started, ended) if each]


def _conclude(tx: Transaction, told: Report) -> attempts.Ended | None:
    fence, node, reason, result = told.fence, told.node, told.reason, told.result
    match told.outcome:
        case Outcome.SUCCEEDED:
            attempts.release(tx, fence, node)
            if tx.all("unfinished_parts", fence=fence):
                return None
            return attempts.finish(tx, fence, AttemptState.SUCCEEDED, JobState.SUCCEEDED, reason, result)
        case Outcome.FAILED:
            attempts.release(tx, fence, node)
            return attempts.finish(tx, fence, AttemptState.FAILED, JobState.FAILED, reason, result)
        case Outcome.INFRASTRUCTURE | Outcome.STOPPED:
            return attempts.lose(tx, fence, node, reason or f"stopped on {node}")


def release_stopped(tx: Transaction, fence: int, node: str) -> None:
    """After a late report: its attempt is over, but its GPUs are free from now on."""
    row = tx.one("part", fence=fence, node=node)
    if row and row["state"] == PartState.STOPPING:
        attempts.release(tx, fence, node)
