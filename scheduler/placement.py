"""Who goes where: waiting jobs and what the nodes have → assignments, each with its explanation. Pure.

A job takes the node where its cost is least: cost = leftover + HEALTH × penalty + AVOID × avoided.
`leftover` is the share of the node's GPUs that stays free (best fit: whole nodes are kept for those who
need them), `penalty` the mean of the chosen GPUs' health penalties in [0, 1], `avoided` is 1 where an
earlier attempt lost its machine. No shape of job stands in the way of another: when one does not fit, the
next is tried. Only the first that has starved has nodes kept for it, so that many small jobs cannot shut a
large one out for ever.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from math import isfinite
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from .jobs import Share
from .nodes import Node, NodeState

HEALTH = 2.0
AVOID = 10.0
#: As bad as a score of 0.5: what nobody has an opinion on is neither healthy nor ill.
UNKNOWN_PENALTY = 0.25
#: How many candidates an explanation names.
NAMED = 10


class Request(Protocol):
    """What placement reads of a job; `gpus` is the total over its `nodes`."""

    @property
    def id(self) -> str: ...
    @property
    def gpus(self) -> int: ...
    @property
    def nodes(self) -> int: ...
    @property
    def avoid(self) -> frozenset[str]: ...
    @property
    def starving(self) -> bool: ...


@dataclass(frozen=True, slots=True)
class Candidate:
    """A node as placement sees it: its free GPUs, healthiest first, with their penalties."""

    name: str
    capacity: int
    free: tuple[int, ...]
    penalties: tuple[float, ...]
    busy: int = 0
    cordoned: tuple[str, ...] = ()
    why_not: str | None = None


@dataclass(frozen=True, slots=True)
class Look:
    """How one candidate looked when the decision was made."""

    node: str
    chosen: bool
    fits: bool
    free: int
    gpus: tuple[int, ...]
    cost: float | None
    terms: dict[str, float]
    why_not: str | None


@dataclass(frozen=True, slots=True)
class Assignment:
    job: str
    shares: tuple[Share, ...]
    looks: tuple[Look, ...] = field(repr=False)


@dataclass(frozen=True, slots=True)
class Plan:
    assignments: tuple[Assignment, ...]
    #: (gpus, nodes) → why jobs of this shape wait.
    reasons: dict[tuple[int, int], str]


def penalty(score: float | None) -> float:
    """In [0, 1]: small for a healthy score's noise, steep towards the threshold."""
    return UNKNOWN_PENALTY if score is None else min(1.0, max(0.0, score)) ** 2


def candidate(node: Node, scores: dict[tuple[str, int], float]) -> Candidate:
    """A node with what is free on it now. Its scores only grade; cordons exclude."""
    free, cordoned = [], []
    for gpu in node.gpus:
        if cordon := node.cordon(gpu.index):
            cordoned.append(cordon.reason)
        elif gpu.index not in node.held:
            free.append((penalty(scores.get((node.name, gpu.index))), gpu.index))
    free.sort()
    why_not = None if node.placeable else (node.why or str(node.state))
    if node.state in (NodeState.DRAINING, NodeState.DRAINED):
        why_not = f"{node.state}: {node.why}"
    return Candidate(
        name=node.name,
        capacity=len(node.gpus),
        free=tuple(index for _, index in free),
        penalties=tuple(cost for cost, _ in free),
        busy=len(node.held),
        cordoned=tuple(cordoned),
        why_not=why_not,
    )


def plan(waiting: Sequence[Request], candidates: Sequence[Candidate], limit: int | None = None) -> Plan:
    """Place the jobs in the order given, at most `limit` of them. Never two on one GPU."""
    board = _Board(candidates)
    assignments: list[Assignment] = []
    reasons: dict[tuple[int, int], str] = {}
    kept = False
    for job in waiting:
        if limit is not None and len(assignments) >= limit:
            break
        per_node = job.gpus // job.nodes
        # What is free only shrinks in one pass: a shape that failed, fails again, and so do larger ones.
        hopeless = any(gpus // nodes <= per_node and nodes <= job.nodes for gpus, nodes in reasons)
        if not hopeless and (assignment := board.place(job)):
            assignments.append(assignment)
            continue
        reasons.setdefault((job.gpus, job.nodes), why_not(job.gpus, job.nodes, board.candidates))
        if job.starving and not kept:
            kept = board.keep(job)
    return Plan(tuple(assignments), reasons)


def explain(job: Request, candidates: Sequence[Candidate]) -> tuple[Look, ...]:
    """How every candidate looks to a job right now, best first."""
    board = _Board(candidates)
    cost = board.cost(job)
    return board.looks(job, cost, np.empty(0, dtype=np.intp))


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


class _Board:
    """The candidates as arrays, brought up to date with each job that is placed."""

    def __init__(self, candidates: Sequence[Candidate]) -> None:
        self.candidates = list(candidates)
        self._position = {node.name: row for row, node in enumerate(candidates)}
        widest = max((node.capacity for node in candidates), default=0)
        shape = (len(candidates), widest + 1)
        #: [node, k]: mean penalty of the k healthiest free GPUs; infinite where there are not k.
        self._health: NDArray[np.float64] = np.full(shape, np.inf)
        self._free: NDArray[np.float64] = np.zeros(shape[0])
        self._capacity = np.array([max(node.capacity, 1) for node in candidates], dtype=np.float64)
        for row in range(shape[0]):
            self._refresh(row)

    def cost(self, job: Request) -> NDArray[np.float64]:
        per_node = job.gpus // job.nodes
        if per_node >= self._health.shape[1]:
            return np.full(len(self.candidates), np.inf)
        cost = (self._free - per_node) / self._capacity + HEALTH * self._health[:, per_node]
        for node in job.avoid:
            if (row := self._position.get(node)) is not None:
                cost[row] += AVOID
        return cost

    def place(self, job: Request) -> Assignment | None:
        cost = self.cost(job)
        if cost.size < job.nodes:
            return None
        chosen = np.array([cost.argmin()]) if job.nodes == 1 else np.argsort(cost, kind="stable")[: job.nodes]
        if not np.isfinite(cost[chosen]).all():
            return None
        looks = self.looks(job, cost, chosen)
        per_node = job.gpus // job.nodes
        shares = []
        for row in chosen.tolist():
            node = self.candidates[row]
            shares.append(Share(node.name, tuple(sorted(node.free[:per_node]))))
            self.candidates[row] = replace(
                node,
                free=node.free[per_node:],
                penalties=node.penalties[per_node:],
                busy=node.busy + per_node,
            )
            self._refresh(row)
        return Assignment(job.id, tuple(shares), looks)

    def keep(self, job: Request) -> bool:
        """Keep the nodes that will be free soonest for a job that has starved. Whether there are any."""
        per_node = job.gpus // job.nodes
        able = [
            row
            for row, node in enumerate(self.candidates)
            if node.why_not is None and node.capacity - len(node.cordoned) >= per_node
        ]
        if len(able) < job.nodes:
            return False
        for row in sorted(able, key=lambda row: -len(self.candidates[row].free))[: job.nodes]:
            self.candidates[row] = replace(self.candidates[row], why_not=f"kept for {job.id}, which has waited long")
            self._refresh(row)
        return True

    def looks(self, job: Request, cost: NDArray[np.float64], chosen: NDArray[np.intp]) -> tuple[Look, ...]:
        per_node = job.gpus // job.nodes
        rows = np.argpartition(cost, NAMED)[:NAMED] if cost.size > NAMED else np.arange(cost.size)
        rows = rows[np.argsort(cost[rows], kind="stable")]
        leftover = (self._free[rows] - per_node) / self._capacity[rows]
        picked = set(chosen.tolist())
        return tuple(
            _look(self.candidates[row], per_node, job.avoid, each, rest, row in picked)
            for row, each, rest in zip(rows.tolist(), cost[rows].tolist(), leftover.tolist(), strict=True)
        )

    def _refresh(self, row: int) -> None:
        node = self.candidates[row]
        self._health[row] = np.inf
        self._free[row] = len(node.free)
        if node.why_not is None and node.free:
            counts = np.arange(1, len(node.free) + 1)
            self._health[row, 1 : len(node.free) + 1] = np.cumsum(node.penalties) / counts


def _look(node: Candidate, per_node: int, avoid: frozenset[str], cost: float, leftover: float, chosen: bool) -> Look:
    free = len(node.free)
    if not isfinite(cost):
        reason = node.why_not or f"{free} free, {node.busy} busy, {len(node.cordoned)} cordoned"
        return Look(node.name, False, False, free, (), None, {}, reason)
    avoided = AVOID if node.name in avoid else 0.0
    terms = {"leftover": leftover, "health": cost - leftover - avoided, "avoided": avoided}
    return Look(node.name, chosen, True, free, tuple(sorted(node.free[:per_node])), cost, terms, None)
