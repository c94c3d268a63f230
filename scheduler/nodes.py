"""What a node is, and the state that follows from what is known of it."""

from collections.abc import Iterable
from dataclasses import dataclass
from enum import StrEnum
from typing import NamedTuple

#: The place of a cordon that holds a whole node, not one GPU.
WHOLE_NODE = -1


class NodeState(StrEnum):
    HEALTHY = "healthy"
    DRAINING = "draining"
    DRAINED = "drained"
    UNREACHABLE = "unreachable"


class Owner(StrEnum):
    PERSON = "person"
    STETHOS = "stethos"


class GpuHealth(StrEnum):
    """Where a GPU stands on the way out of service and back; derived from what is stored, like the node's state."""

    HEALTHY = "healthy"
    #: Its score is high, but not confirmed, or nobody may act on it (circuit breaker, dry run).
    SUSPECT = "suspect"
    #: No new work; what runs there may end.
    QUARANTINED = "quarantined"
    #: Its job is being taken away.
    DRAINING = "draining"
    #: No new work, and nothing runs there.
    DRAINED = "drained"
    #: The evidence is gone; a canary job has to succeed before other work comes.
    PROBATION = "probation"
    #: A person keeps it out of service.
    MAINTENANCE = "maintenance"
    UNREACHABLE = "unreachable"


#: Sources of cordons beside a person and `alert:FINGERPRINT`.
SCORE = "score"
FAST_FAIL = "fast-fail"
PROBATION = "probation"


def gpu_named(label: str) -> int | None:
    """The index of the GPU that a label of Prometheus or an alert names; None where it names none."""
    return int(label) if label.isascii() and label.isdigit() and len(label) < 5 else None


@dataclass(frozen=True, slots=True)
class Gpu:
    index: int
    uuid: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class Drain:
    reason: str
    owner: Owner
    since: float


@dataclass(frozen=True, slots=True)
class Cordon:
    """Keeps new work off one GPU (or, at WHOLE_NODE, off a node). Source: person, score, alert:FINGERPRINT,
    fast-fail, probation. `evict`: it takes away what runs there, too.
    """

    node: str
    gpu: int
    source: str
    reason: str
    since: float
    expires_at: float | None = None
    evict: bool = False

    @property
    def owner(self) -> Owner:
        return Owner.PERSON if self.source == Owner.PERSON else Owner.STETHOS

    @property
    def evidence(self) -> bool:
        """Whether it is there because something is wrong, not to make sure that all is well again."""
        return self.owner == Owner.STETHOS and self.source != PROBATION


class Node(NamedTuple):
    """A tuple, because it is made five times as fast as a frozen dataclass: each pass reads the whole fleet."""

    name: str
    rack: str | None
    kind: str
    gpus: tuple[Gpu, ...]
    reachable: bool
    reason: str | None
    drain: Drain | None
    cordons: tuple[Cordon, ...]
    #: The GPUs that jobs hold.
    held: frozenset[int]
    #: Changes with whatever decides what may be placed here.
    version: int = 1

    @property
    def state(self) -> NodeState:
        """Derived, so that it cannot contradict what it is derived from. A drain outlives unreachability."""
        if not self.reachable:
            return NodeState.UNREACHABLE
        if self.drain:
            return NodeState.DRAINING if self.held else NodeState.DRAINED
        return NodeState.HEALTHY

    @property
    def holds(self) -> tuple[Cordon, ...]:
        return tuple(cordon for cordon in self.cordons if cordon.gpu == WHOLE_NODE)

    @property
    def pause(self) -> Cordon | None:
        """A person's hold of the whole node, without a drain."""
        return next((hold for hold in self.holds if hold.owner == Owner.PERSON), None)

    @property
    def placeable(self) -> bool:
        return self.state == NodeState.HEALTHY and not self.holds

    @property
    def why(self) -> str | None:
        """Why no new work goes here, in words; None when it does."""
        if not self.reachable:
            return self.reason
        if self.drain:
            return self.drain.reason
        return "; ".join(hold.reason for hold in self.holds) or None

    def health(self, gpu: int, score: float | None, suspect_from: float) -> GpuHealth:
        """Where a GPU stands; `score` is its newest, None without an opinion."""
        if not self.reachable:
            return GpuHealth.UNREACHABLE
        mine = [cordon for cordon in self.cordons if cordon.gpu in (gpu, WHOLE_NODE)]
        if (self.drain and self.drain.owner == Owner.PERSON) or any(c.owner == Owner.PERSON for c in mine):
            return GpuHealth.MAINTENANCE
        if evidence := [cordon for cordon in mine if cordon.evidence]:
            if gpu not in self.held:
                return GpuHealth.DRAINED
            return GpuHealth.DRAINING if any(cordon.evict for cordon in evidence) else GpuHealth.QUARANTINED
        if mine:
            return GpuHealth.PROBATION
        return GpuHealth.HEALTHY if score is None or score < suspect_from else GpuHealth.SUSPECT

    def cordon(self, gpu: int) -> Cordon | None:
        """The cordon that speaks for a GPU: a person's before our own, the oldest first."""
        if not self.cordons:
            return None
        found = [cordon for cordon in self.cordons if cordon.gpu == gpu]
        return min(found, key=lambda c: (c.owner != Owner.PERSON, c.since), default=None)


def may_drain(current: Drain | None, owner: Owner) -> bool:
    """Whether `owner` may put its drain in the place of the current one: a person's is never overwritten."""
    return current is None or owner == Owner.PERSON


def may_undrain(current: Drain | None, owner: Owner) -> bool:
    """Whether `owner` may lift the current drain: automation lifts only its own."""
    return current is not None and (owner == Owner.PERSON or current.owner == owner)


def count_states(nodes: Iterable[Node]) -> dict[str, int]:
    counts = dict.fromkeys(NodeState, 0)
    for node in nodes:
        counts[node.state] += 1
    return {str(state): count for state, count in counts.items()}
