"""Why a job fits nowhere: in one word of a short list, which can be counted, and in a sentence. Pure."""

from collections import Counter
from collections.abc import Sequence
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


class Room:
    """What the nodes have at one moment, counted once for all shapes: how many nodes there are with so many GPUs."""

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        takers = [node for node in candidates if node.why_not is None]
        serving = takers + [node for node in candidates if node.kept]
        self._all = Counter(node.capacity for node in candidates)
        self._serving = Counter(node.capacity for node in serving)
        self._sound = Counter(node.capacity - len(node.cordoned) for node in serving)
        self._free = Counter(len(node.free) for node in serving)
        self._offered = Counter(len(node.free) for node in takers)
        self._best = max(takers, key=lambda node: len(node.free), default=None)
        self._closed = Counter(node.why_not for node in candidates)

    def reason(self, gpus: int, nodes: int) -> Reason:
        """Of a job of this shape, which does not fit."""
        return Reason(self._obstacle(gpus, nodes), self._text(gpus // nodes, nodes))

    def _obstacle(self, gpus: int, nodes: int) -> Obstacle:
        per_node = gpus // nodes
        if _fitting(self._all, per_node) < nodes:
            return Obstacle.TOO_LARGE
        if _fitting(self._serving, per_node) < nodes:
            return Obstacle.UNAVAILABLE
        if _fitting(self._sound, per_node) < nodes:
            return Obstacle.CORDONED
        if _fitting(self._free, per_node) >= nodes:
            return Obstacle.KEPT
        free = sum(size * count for size, count in self._offered.items())
        return Obstacle.FRAGMENTED if free >= gpus else Obstacle.BUSY

    def _text(self, per_node: int, nodes: int) -> str:
        where = "one node" if nodes == 1 else f"each of {nodes} nodes"
        needs = f"needs {per_node} GPU{'s' * (per_node != 1)} on {where}"
        if not self._all:
            return f"{needs}; there are no nodes"
        if _fitting(self._all, per_node) < nodes:
            return f"{needs}; the largest node has {max(self._all)}"
        if self._best is None:
            reasons = ", ".join(f"{count} × {why}" for why, count in self._closed.most_common(3))
            return f"{needs}; no node takes work: {reasons}"
        fitting = _fitting(self._offered, per_node)
        text = f"{needs}; best node has {len(self._best.free)} free"
        if nodes > 1:
            text = f"{needs}; {fitting} node{'s have' if fitting != 1 else ' has'} as many free"
        if cordoned := self._best.cordoned:
            text += f", {len(cordoned)} cordoned ({cordoned[0]})"
        return text


def _fitting(sizes: Counter[int], per_node: int) -> int:
    """How many nodes have at least so many."""
    return sum(count for size, count in sizes.items() if size >= per_node)
