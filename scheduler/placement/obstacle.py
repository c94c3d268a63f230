"""Why a job fits nowhere: in one word of a short list, which can be counted, and in a sentence. Pure."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from enum import StrEnum

from .fleet import Candidate


class Obstacle(StrEnum):
    """What stands in the way; where it is several things, the one that waiting mends least."""

    #: All nodes together, empty and in service, would not do.
    TOO_LARGE = "too_large"
    #: Nodes that it needs are drained, paused, held or unreachable.
    UNAVAILABLE = "unavailable"
    #: GPUs that it needs are cordoned.
    CORDONED = "cordoned"
    #: It would fit, but for what is kept for a job that has waited longer.
    KEPT = "kept"
    #: As many GPUs as it needs are free, but not on one node.
    FRAGMENTED = "fragmented"
    #: Other jobs have the GPUs.
    BUSY = "busy"


@dataclass(frozen=True, slots=True)
class Reason:
    """Why jobs of one shape wait."""

    obstacle: Obstacle
    text: str

    @classmethod
    def of(cls, gpus: int, nodes: int, candidates: Sequence[Candidate]) -> "Reason":
        return cls(obstacle(gpus, nodes, candidates), why_not(gpus, nodes, candidates))


def obstacle(gpus: int, nodes: int, candidates: Sequence[Candidate]) -> Obstacle:
    """Of a job of this shape, which does not fit."""

    def enough(room: Iterable[int]) -> bool:
        return sum(each >= gpus // nodes for each in room) >= nodes

    in_service = [node for node in candidates if node.kept or node.why_not is None]
    if not enough(node.capacity for node in candidates):
        return Obstacle.TOO_LARGE
    if not enough(node.capacity for node in in_service):
        return Obstacle.UNAVAILABLE
    if not enough(node.capacity - len(node.cordoned) for node in in_service):
        return Obstacle.CORDONED
    if enough(len(node.free) for node in in_service):
        return Obstacle.KEPT
    free = sum(len(node.free) for node in in_service if not node.kept)
    return Obstacle.FRAGMENTED if free >= gpus else Obstacle.BUSY


def why_not(gpus: int, nodes: int, candidates: Sequence[Candidate]) -> str:
    """In words, why a job of this shape waits."""
    per_node = gpus // nodes
    where = "one node" if nodes == 1 else f"each of {nodes} nodes"
    needs = f"needs {per_node} GPU{'s' * (per_node != 1)} on {where}"
    if not candidates:
        return f"{needs}; there are no nodes"
    if sum(node.capacity >= per_node for node in candidates) < nodes:
        return f"{needs}; the largest node has {max(node.capacity for node in candidates)}"
    open_nodes = [node for node in candidates if node.why_not is None]
    if not open_nodes:
        reasons = Counter(node.why_not for node in candidates).most_common(3)
        return f"{needs}; no node takes work: " + ", ".join(f"{count} × {why}" for why, count in reasons)
    best = max(open_nodes, key=lambda node: len(node.free))
    fitting = sum(len(node.free) >= per_node for node in open_nodes)
    text = f"{needs}; best node has {len(best.free)} free"
    if nodes > 1:
        text = f"{needs}; {fitting} node{'s have' if fitting != 1 else ' has'} as many free"
    if best.cordoned:
        text += f", {len(best.cordoned)} cordoned ({best.cordoned[0]})"
    return text
