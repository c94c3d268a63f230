"""What a job is, the states it can be in, and how it may go from one to the next."""

from collections.abc import Mapping
from dataclasses import dataclass
from enum import IntEnum, StrEnum


class JobState(StrEnum):
    QUEUED = "queued"
    ASSIGNED = "assigned"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"

    @property
    def final(self) -> bool:
        return not TRANSITIONS[self]


#: Back to queued only when the node, not the job, let go: node lost, GPU gone, agent handing back.
TRANSITIONS: Mapping[JobState, frozenset[JobState]] = {
    JobState.QUEUED: frozenset({JobState.ASSIGNED, JobState.CANCELLED}),
    JobState.ASSIGNED: frozenset(set(JobState) - {JobState.ASSIGNED}),
    JobState.RUNNING: frozenset(set(JobState) - {JobState.RUNNING, JobState.ASSIGNED}),
    JobState.SUCCEEDED: frozenset(),
    JobState.FAILED: frozenset(),
    JobState.CANCELLED: frozenset(),
    JobState.TIMED_OUT: frozenset(),
}


class AttemptState(StrEnum):
    ASSIGNED = "assigned"
    RUNNING = "running"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"
    TIMED_OUT = "timed_out"
    LOST = "lost"
    HANDED_BACK = "handed_back"


class PartState(StrEnum):
    """One node's share of an attempt. Its GPUs are held until it is done."""

    ASSIGNED = "assigned"
    RUNNING = "running"
    STOPPING = "stopping"
    DONE = "done"


class Outcome(StrEnum):
    """How an agent says that its part of an attempt ended."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    INFRASTRUCTURE = "infrastructure"
    STOPPED = "stopped"


class JobType(StrEnum):
    SLEEP = "sleep"
    COMPUTE = "compute"
    MATRIX = "matrix"
    FAULT = "fault"
    COMMAND = "command"


class Priority(IntEnum):
    LOW = 1
    NORMAL = 2
    HIGH = 3
    CRITICAL = 4


#: A job that has waited this long stands level with a fresh one of the next priority.
AGEING_SECONDS = 300.0


def rank(priority: Priority, submitted_at: float) -> float:
    """Who goes first: lower is sooner. Linear ageing makes it a constant, so the queue is an index."""
    return submitted_at - AGEING_SECONDS * priority


class TransitionError(ValueError):
    """A job cannot go from one state to the other."""

    def __init__(self, job: str, old: JobState, new: JobState) -> None:
        super().__init__(f"job {job} is {old} and cannot become {new}")


def check(job: str, old: JobState, new: JobState) -> None:
    """Raises TransitionError unless a job may go from `old` to `new`."""
    if new not in TRANSITIONS[old]:
        raise TransitionError(job, old, new)


@dataclass(frozen=True, slots=True)
class Share:
    """The GPUs of one node that an attempt has."""

    node: str
    gpus: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Specification:
    """What was asked for."""

    type: JobType
    gpus: int
    nodes: int = 1
    priority: Priority = Priority.NORMAL
    name: str | None = None
    timeout_seconds: float = 300.0
    retries: int = 3
    duration_seconds: float | None = None
    parameters: str = "{}"
    origin: str = "api"


@dataclass(frozen=True, slots=True)
class Attempt:
    fence: int
    state: AttemptState
    placement: tuple[Share, ...]
    placed_at: float
    started_at: float | None
    finished_at: float | None
    reason: str | None


@dataclass(frozen=True, slots=True)
class Job:
    id: str
    number: int
    name: str
    specification: Specification
    state: JobState
    retries_used: int
    avoid: frozenset[str]
    reason: str | None
    result: str | None
    submitted_at: float
    started_at: float | None
    finished_at: float | None
    placement: tuple[Share, ...]
    attempts: tuple[Attempt, ...] = ()


@dataclass(frozen=True, slots=True)
class Part:
    """One node's share of a live attempt, as the store has it."""

    fence: int
    node: str
    job: str
    gpus: tuple[int, ...]
    state: PartState


@dataclass(frozen=True, slots=True)
class Reconciliation:
    """What follows from a heartbeat: fences to offer, to stop, that began, that ended, that the node has lost."""

    offer: frozenset[int]
    stop: frozenset[int]
    began: frozenset[int]
    released: frozenset[int]
    missing: frozenset[int]


def reconcile(parts: list[Part], held: frozenset[int]) -> Reconciliation:
    """Compare one node's live parts with the fences its agent says it holds.

    An offer is repeated until the agent holds it, so a lost answer loses nothing; a running part
    that the agent does not hold died with an earlier agent.
    """
    known = {state: frozenset(p.fence for p in parts if p.state == state) for state in PartState}
    live = known[PartState.ASSIGNED] | known[PartState.RUNNING]
    return Reconciliation(
        offer=known[PartState.ASSIGNED] - held,
        stop=held - live,
        began=known[PartState.ASSIGNED] & held,
        released=known[PartState.STOPPING] - held,
        missing=known[PartState.RUNNING] - held,
    )
