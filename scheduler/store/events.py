"""Events and settings, as stored."""

import json
from dataclasses import dataclass

from ..clock import rfc3339
from .connection import Row
from .transaction import Transaction

PRUNED_AT_ONCE = 5000


@dataclass(frozen=True, slots=True)
class Event:
    sequence: int
    type: str
    #: What a listener gets: sequence, time, type, subject and the type's own fields, as JSON.
    data: str


def after(tx: Transaction, sequence: int, limit: int = 500) -> list[Event]:
    return [_event(row) for row in tx.all("events_after", after=sequence, limit=limit)]


def of_place(tx: Transaction, subject: str, limit: int) -> list[Event]:
    """What happened to a node ("node-01") or a GPU ("node-01/3"), newest first."""
    return [_event(row) for row in tx.all("events_of_place", subject=subject, limit=limit)]


def newest(tx: Transaction) -> int:
    row = tx.one("read_counter", name="event")
    return int(row["value"]) if row else 0


def oldest(tx: Transaction) -> int:
    """The first that is still there, or the next to come where there is none."""
    row = tx.one("oldest_event")
    return int(row["sequence"]) if row and row["sequence"] is not None else newest(tx) + 1


def prune(tx: Transaction, keep: int, seconds: float) -> None:
    """Forget what is older than so many seconds or beyond the newest `keep`; a few at a time, so that none waits."""
    first = oldest(tx)
    reach = first + PRUNED_AT_ONCE
    tx.change("forget_old_events", below=reach, before=tx.now - seconds)
    tx.change("forget_events", below=min(reach, newest(tx) - keep + 1))


def _event(row: Row) -> Event:
    fixed = {
        "sequence": row["sequence"],
        "time": rfc3339(row["time"]),
        "type": row["type"],
        "subject": row["subject"],
    }
    return Event(row["sequence"], row["type"], json.dumps(fixed | json.loads(row["data"])))


def workload_rate(tx: Transaction) -> float:
    row = tx.one("setting", name="jobs_per_minute")
    return float(row["value"]) if row else 0.0


def set_workload_rate(tx: Transaction, jobs_per_minute: float) -> None:
    if jobs_per_minute != workload_rate(tx):
        tx.change("put_setting", name="jobs_per_minute", value=repr(jobs_per_minute))
        tx.event("workload.changed", "workload", jobs_per_minute=jobs_per_minute)
