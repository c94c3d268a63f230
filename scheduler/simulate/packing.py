"""GPU allocation against arrived load: the published Monte-Carlo method over the openb trace.

Jobs only arrive. One that fits nowhere is dropped. At each whole per cent of arrived request, allocation
is what is held, as a share of all GPUs. This measures packing alone: no queueing, no churn, no fairness.
"""

from collections import Counter
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from math import sqrt
from pathlib import Path
from statistics import fmean, stdev

import numpy as np

from ..placement.board import Board, Floats, Integers, Shape
from ..placement.mix import PUBLISHED_COVER, Mix
from ..placement.policies import POLICIES, Fgd, Policy, Stethos
from ..placement.ranking import Ranking
from . import trace

LOADS = (90, 95, 100, 105, 110, 120, 130)
#: The published runs have the seeds from 42 to 51; those below 1000 were used in development.
FIRST_SEED = 1000
#: Student's t for 95 %, by degrees of freedom.
T95 = (12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228, 2.201, 2.179, 2.16, 2.145, 2.131)


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over seeds and its 95 % confidence interval (Student's t); a point for one seed."""

    mean: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Iterable[float]) -> "Estimate":
        values = list(values)
        mean = fmean(values)
        if len(values) < 2:
            return cls(mean, mean, mean)
        t = T95[len(values) - 2] if len(values) - 2 < len(T95) else 1.96
        half = t * stdev(values) / sqrt(len(values))
        return cls(mean, mean - half, mean + half)


Curves = dict[str, dict[str, dict[int, Estimate]]]


def replay(board: Board, policy: Policy, shapes: tuple[Shape, ...], arrivals: Integers) -> Floats:
    """Allocation in % at 0, 1, 2, … % of arrived request. The board is used up.

    FGD is told the whole workload's mix before the first job, as published. Ours knows what has come so far,
    and estimates the mix anew with the first job and each time that twice as many have come.
    """
    ranking = Ranking(board, policy)
    capacity = int(board.free.sum())
    if isinstance(policy, Fgd):
        counts = np.bincount(arrivals, minlength=len(shapes))
        ranking.learn(Mix(dict(zip(shapes, counts.tolist(), strict=True)), PUBLISHED_COVER))
    seen: Counter[Shape] = Counter()
    learn_at = 1
    asked = held = 0
    reached, curve = [0.0], [0.0]
    for number, job in enumerate(arrivals.tolist(), 1):
        shape = shapes[job]
        seen[shape] += 1
        if number == learn_at and isinstance(policy, Stethos):
            ranking.learn(Mix(seen))
            learn_at *= 2
        asked += shape.amount
        if ranking.place(shape):
            held += shape.amount
        reached.append(100 * asked / capacity)
        curve.append(100 * held / capacity)
    loads = np.arange(int(reached[-1]) + 1)
    last = np.searchsorted(reached, loads, side="right") - 1
    return np.array(curve)[last]


def run(folder: Path, names: Iterable[str], policies: Iterable[str], seeds: int, tell: Callable[[str], None]) -> Curves:
    """(workload, policy, load in %) → allocation in %. Raises TraceError."""
    found: Curves = {}
    for name in names:
        workload = trace.workload(folder, name)
        found[name] = {}
        for policy in policies:
            curves = [_one(folder, workload, policy, FIRST_SEED + number) for number in range(seeds)]
            found[name][policy] = {load: Estimate.of(float(curve[load]) for curve in curves) for load in LOADS}
            tell(f"{name} {policy}: {found[name][policy][100].mean:.2f} % at 100 %")
    return found


def _one(folder: Path, workload: trace.Workload, policy: str, seed: int) -> Floats:
    generator = np.random.default_rng(seed)
    board = trace.board(folder)
    arrivals = workload.arrivals(int(board.free.sum()), LOADS[-1] / 100, generator)
    return replay(board, POLICIES[policy](generator), workload.shapes, arrivals)
