"""The live fleet in the scoring core: candidates, what they cost a job, and how the choice is told."""

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from math import isfinite
from typing import NamedTuple, Protocol

import numpy as np

from ..jobs import Share
from .board import WHOLE, Board, Floats, Integers, Shape
from .mix import Mix
from .policies import POLICIES
from .ranking import Ranking

#: What a penalty of 1 and a risk of 1 cost, in GPUs of fragments per GPU of the job: whatever node fails, all
#: of a gang is lost, so it is the large jobs that get the best nodes.
HEALTH = 2.0
HISTORY = 1.0
#: What a place costs where the job failed before.
AVOID = 1000.0
#: What an emptier rack saves a gang that no single rack can take, at most, per node.
SPREAD = 1.0
#: Sizes that space is kept for before any job has come.
USUAL = (1, 2, 4, 8)
#: How many candidates an explanation names.
NAMED = 5


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


class Candidate(NamedTuple):
    """A node as placement sees it: its free GPUs, healthiest first, with their penalties in [0, 1].

    A tuple, because it is made five times as fast as a frozen dataclass, and a pass makes thousands.
    """

    name: str
    capacity: int
    free: tuple[int, ...]
    penalties: tuple[float, ...]
    busy: int = 0
    cordoned: tuple[str, ...] = ()
    why_not: str | None = None
    rack: str | None = None
    #: In [0, 1], from the node's history of failures; 0 where none is kept.
    risk: float = 0.0
    #: Closed to all but one job, that has starved.
    kept: bool = False


@dataclass(frozen=True, slots=True)
class Look:
    """How one candidate looked when the decision was made. The terms sum to the cost."""

    node: str
    chosen: bool
    fits: bool
    free: int
    gpus: tuple[int, ...]
    cost: float | None
    terms: dict[str, float]
    why_not: str | None


@dataclass(frozen=True, slots=True)
class Explanation:
    """The best candidates, on how many nodes the job fits, and why not on the others."""

    looks: tuple[Look, ...]
    counts: dict[str, int]


@dataclass(frozen=True, slots=True)
class Assignment:
    job: str
    shares: tuple[Share, ...]
    why: Explanation = field(repr=False)


class Fleet:
    """The candidates, brought up to date with each job that is placed."""

    def __init__(self, candidates: Sequence[Candidate], policy: str, expected: Iterable[Request] = (), seed: int = 0):
        self.candidates = list(candidates)
        self.position = {node.name: row for row, node in enumerate(candidates)}
        self.widest = max((node.capacity for node in candidates), default=0)
        count = len(self.candidates)
        gpus: Integers = np.zeros((count, self.widest), dtype=np.int64)
        for row, node in enumerate(self.candidates):
            gpus[row, : _open(node)] = WHOLE
        self._board = Board(np.zeros(count), np.zeros(count), gpus, [""] * count)
        self._board.capacity = np.array([max(node.capacity, 1) for node in candidates], dtype=np.float64)
        self._ranking = Ranking(self._board, POLICIES[policy](np.random.default_rng(seed)))
        self._ranking.learn(_mix(expected))
        racks = {name: number for number, name in enumerate(dict.fromkeys(node.rack for node in candidates))}
        self._rack: Integers = np.array([racks[node.rack] for node in candidates], dtype=np.int64)
        #: Per GPU of the job: [k, node] what the health of the k healthiest free GPUs costs, [node] its history.
        self._health: Floats = np.zeros((self.widest + 1, count))
        self._history: Floats = np.array([HISTORY * node.risk for node in candidates])
        self._shapes = [Shape(gpus) for gpus in range(self.widest + 1)]
        self._closed = Counter(node.why_not for node in candidates if node.why_not)
        for row in range(count):
            self._grade(row)

    def cost(self, job: Request) -> Floats:
        """Of each node, infinite where the job's share does not fit."""
        per_node = job.gpus // job.nodes
        if per_node > self.widest:
            return np.full(len(self.candidates), np.inf)
        packing, _ = self._ranking.costs(self._shapes[per_node])
        cost: Floats = packing + job.gpus * (self._health[per_node] + self._history)
        for node in job.avoid:
            if (row := self.position.get(node)) is not None:
                cost[row] += AVOID
        return cost

    def choose(self, job: Request, cost: Floats) -> tuple[int, ...] | None:
        """The rows for a job; None when it does not fit. A gang gets the fewest racks, then the least cost."""
        if job.nodes == 1:
            row = int(cost.argmin()) if len(cost) else -1
            return (row,) if row >= 0 and isfinite(cost[row]) else None
        rows = np.flatnonzero(np.isfinite(cost))
        if len(rows) < job.nodes:
            return None
        rows = rows[np.lexsort((cost[rows], self._rack[rows]))]
        racks, starts, sizes = np.unique(self._rack[rows], return_index=True, return_counts=True)
        able = np.flatnonzero(sizes >= job.nodes)
        if len(able):
            sums = np.concatenate([[0.0], np.cumsum(cost[rows])])
            first = starts[able[(sums[starts[able] + job.nodes] - sums[starts[able]]).argmin()]]
            return tuple(rows[first : first + job.nodes].tolist())
        # Racks with more room make for fewer racks, but not at the price of doubtful nodes.
        room = sizes[np.searchsorted(racks, self._rack[rows])] / sizes.max()
        return tuple(rows[np.argsort(cost[rows] - SPREAD * room, kind="stable")][: job.nodes].tolist())

    def place(self, job: Request) -> Assignment | None:
        cost = self.cost(job)
        chosen = self.choose(job, cost)
        if chosen is None:
            return None
        why = self.explain(job, cost, chosen)
        return Assignment(job.id, self.take(job, chosen), why)

    def take(self, job: Request, rows: Iterable[int]) -> tuple[Share, ...]:
        """Give the job its share of each of these nodes: the healthiest GPUs."""
        per_node = job.gpus // job.nodes
        shape = self._shapes[per_node]
        shares = []
        for row in rows:
            node = self.candidates[row]
            shares.append(Share(node.name, tuple(sorted(node.free[:per_node]))))
            self.candidates[row] = node._replace(
                free=node.free[per_node:],
                penalties=node.penalties[per_node:],
                busy=node.busy + per_node,
            )
            self._ranking.take(row, 0, shape)
            self._grade(row)
        return tuple(shares)

    def update(self, row: int, node: Candidate) -> None:
        """A node has changed for another reason than a placement here."""
        for why_not, step in ((self.candidates[row].why_not, -1), (node.why_not, 1)):
            if why_not:
                self._closed[why_not] += step
        self.candidates[row] = node
        self._board.set_free(row, _open(node))
        self._history[row] = HISTORY * node.risk
        self._grade(row)

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
            node = self.candidates[row]
            self.update(row, node._replace(why_not=f"kept for {job.id}, which has waited long", kept=True))
        return True

    def explain(self, job: Request, cost: Floats, chosen: Sequence[int] = ()) -> Explanation:
        """The chosen nodes and the best of the others, best first."""
        found = list(chosen)[:NAMED]
        rest = cost.copy()
        rest[found] = np.inf
        while len(found) < NAMED and len(rest) and isfinite(rest[row := int(rest.argmin())]):
            found.append(row)
            rest[row] = np.inf
        found.sort(key=lambda row: (cost[row], row))
        if len(found) < NAMED:
            found += np.flatnonzero(np.isinf(cost))[: NAMED - len(found)].tolist()
        picked = set(chosen)
        fitting = int(np.isfinite(cost).sum())
        closed = {reason: count for reason, count in self._closed.items() if count}
        return Explanation(
            tuple(self._look(row, job, float(cost[row]), row in picked) for row in found),
            {"fits": fitting, "too few GPUs free": len(cost) - fitting - sum(closed.values()), **closed},
        )

    def _look(self, row: int, job: Request, cost: float, chosen: bool) -> Look:
        node, per_node = self.candidates[row], job.gpus // job.nodes
        free = len(node.free)
        if not isfinite(cost):
            reason = node.why_not or f"{free} free, {node.busy} busy, {len(node.cordoned)} cordoned"
            return Look(node.name, False, False, free, (), None, {}, reason)
        health, history = job.gpus * float(self._health[per_node, row]), job.gpus * float(self._history[row])
        avoided = AVOID if node.name in job.avoid else 0.0
        terms = {
            "packing": cost - health - history - avoided,
            "health": health,
            "history": history,
            "avoided": avoided,
        }
        return Look(node.name, chosen, True, free, tuple(sorted(node.free[:per_node])), cost, terms, None)

    def _grade(self, row: int) -> None:
        node = self.candidates[row]
        total = 0.0
        for count, penalty in enumerate(node.penalties, 1):
            total += penalty
            self._health[count, row] = HEALTH * total / count


def _open(node: Candidate) -> int:
    return 0 if node.why_not else len(node.free)


def _mix(expected: Iterable[Request]) -> Mix:
    counts = Counter(USUAL)
    for job in expected:
        counts[job.gpus // job.nodes] += job.nodes
    return Mix({Shape(gpus): float(count) for gpus, count in counts.items()})
