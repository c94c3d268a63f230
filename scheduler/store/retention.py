"""What is forgotten after a while: events, ended jobs with their attempts, and alerts. A few at a time, so that none
waits for it.
"""

from dataclasses import dataclass

from ..jobs import JobState
from . import events, jobs
from .transaction import Transaction

JOBS_AT_ONCE = 500


@dataclass(frozen=True, slots=True)
class Keep:
    """How many at most, and for how long. Jobs count from their end, alerts from when they were last received."""

    events: int = 1_000_000
    jobs: int = 1_000_000
    seconds: float = 30 * 86_400.0


def prune(tx: Transaction, keep: Keep) -> None:
    """Forget what is older or beyond."""
    events.prune(tx, keep.events, keep.seconds)
    forget_jobs(tx, tx.now - keep.seconds, JOBS_AT_ONCE)
    ended = sum(count for state, count in jobs.counts(tx).items() if state.final)
    if ended > keep.jobs:
        forget_jobs(tx, tx.now + 1, min(JOBS_AT_ONCE, ended - keep.jobs))
    tx.change("forget_alerts", before=tx.now - keep.seconds)


def forget_jobs(tx: Transaction, before: float, limit: int) -> None:
    """The jobs that ended first, with all that was kept of them; not while their GPUs are held, or a probation asks."""
    old = tx.all("ended_jobs", before=before, limit=limit)
    for statement in ("forget_parts_of", "forget_attempts_of", "forget_answers_of", "forget_job"):
        tx.many(statement, [{"job": row["id"]} for row in old])
    for row in old:
        jobs.uncount(tx, JobState(row["state"]))
