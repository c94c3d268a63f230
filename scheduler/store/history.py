"""What a place has been through, as stored: the attempts that ran there and where their jobs went, and its states."""

import json
from dataclasses import dataclass

from ..jobs import AttemptState, JobState, JobType, Share
from . import events, jobs
from .events import Event
from .transaction import Transaction

#: Attempts of a node that are looked through for those of one of its GPUs.
_LOOKED_THROUGH = 500


@dataclass(frozen=True, slots=True)
class Stay:
    """An attempt's time on a node. `went_to`: where the job's next attempt was placed, if there was one."""

    job: str
    name: str
    type: JobType
    job_state: JobState
    state: AttemptState
    gpus: tuple[int, ...]
    placed_at: float
    started_at: float | None
    finished_at: float | None
    reason: str | None
    went_to: tuple[Share, ...]


def stays(tx: Transaction, node: str, gpu: int | None, limit: int) -> list[Stay]:
    """What ran on a node, or on one of its GPUs, newest first."""
    found: list[Stay] = []
    for row in tx.all("parts_on", node=node, limit=limit if gpu is None else _LOOKED_THROUGH):
        gpus = tuple(json.loads(row["gpus"]))
        if gpu is not None and gpu not in gpus:
            continue
        found.append(
            Stay(
                job=row["job"],
                name=row["name"],
                type=JobType(row["type"]),
                job_state=JobState(row["job_state"]),
                state=AttemptState(row["state"]),
                gpus=gpus,
                placed_at=row["placed_at"],
                started_at=row["started_at"],
                finished_at=row["finished_at"],
                reason=row["reason"],
                went_to=jobs.load(row["next"]) if row["next"] else (),
            )
        )
        if len(found) == limit:
            break
    return found


def states(tx: Transaction, node: str, gpu: int | None, limit: int) -> list[Event]:
    """The events of a node and of one of its GPUs, newest first."""
    subjects = [node] if gpu is None else [node, f"{node}/{gpu}"]
    found = [event for subject in subjects for event in events.of_place(tx, subject, limit)]
    return sorted(found, key=lambda event: -event.sequence)[:limit]
