"""The policies: what it costs to put a shape on each of some nodes. Lower is better, infinite does not fit.

The published ones are those that Weng et al. compare in "Beware of Fragmentation" (USENIX ATC 2023). Each
function takes a board, rows of it and a shape that fits there, and gives the cost [rows] and the GPU [rows]
that a shared job would get (of no meaning for others).
"""

from collections import Counter
from collections.abc import Callable
from typing import Protocol

import numpy as np

from .board import WHOLE, Board, Floats, Integers, Shape
from .mix import Mix, Tables
from .patterns import worth

#: GPUs that one step of fragmentation is worth to FGD: its sigmoid of integers from 0 to 100.
SIGMOID_STEPS = 100.0
#: How much of a tidier node, on a scale of about 1, outweighs a thousandth of a GPU of fragmentation.
TIDINESS = 40.0
#: Fragments that a loss in worth outweighs, and that a larger leftover on the GPU does, both like for like.
PATTERN = 10.0
LEFT = 0.01


class Policy(Protocol):
    """Costs of the nodes in `rows`, where the shape fits, and the slot for a shared job."""

    #: Whether a cost hangs on nothing but the node's state and the mix: it holds until they change.
    lasting: bool

    def cost(self, board: Board, rows: Integers, shape: Shape) -> tuple[Floats, Integers]: ...

    def learn(self, board: Board, mix: Mix) -> None: ...

    def placed(self, row: int, shape: Shape) -> None: ...


def tightest(board: Board, rows: Integers, shape: Shape) -> Integers:
    """The GPU with the least left of those that a shared job fits on."""
    free = board.gpus[rows]
    found: Integers = np.where(free >= shape.milli, free, WHOLE + 1).argmin(1)
    return found


def growth(board: Board, tables: Tables, rows: Integers, shape: Shape) -> Floats:
    """By how much the expected fragments grow, in thousandths of a GPU.

    [rows, slots] for a shared job, infinite on a GPU with too little left; [rows, 1] for whole GPUs.
    """
    gpus, full = board.gpus[rows], board.full[rows]
    cpu = board.cpu[rows]
    before, after = tables.row(rows, cpu), tables.row(rows, cpu - shape.cpu)
    usable = tables.shared[before[:, None], gpus].sum(1) + tables.whole[before, full]
    each = tables.shared[after[:, None], gpus]
    rest = each.sum(1)
    if not shape.shared:
        left = rest - shape.gpus * tables.shared[after, WHOLE] + tables.whole[after, full - shape.gpus]
        grown: Floats = usable - left - shape.amount
        return grown[:, None]
    able = gpus >= shape.milli
    remains = tables.shared[after[:, None], np.where(able, gpus - shape.milli, 0)]
    left = rest[:, None] - each + remains + tables.whole[after[:, None], full[:, None] - (gpus == WHOLE)]
    return np.where(able, usable[:, None] - left - shape.amount, np.inf)


def remaining(board: Board, rows: Integers, shape: Shape) -> Floats:
    """What stays free on the node, CPU and GPUs each as a share of the largest node's."""
    cpu = (board.cpu[rows] - shape.cpu) / board.cpu_scale
    found: Floats = cpu + (board.free[rows] - shape.amount) / (board.slots * WHOLE)
    return found


class _Fixed:
    """A policy that looks at nothing but the node and the job."""

    lasting = True

    def learn(self, board: Board, mix: Mix) -> None:
        """Not interested."""

    def placed(self, row: int, shape: Shape) -> None:
        """Not interested."""


class BestFit(_Fixed):
    """Least left over, CPU and GPUs together."""

    def cost(self, board: Board, rows: Integers, shape: Shape) -> tuple[Floats, Integers]:
        return remaining(board, rows, shape), tightest(board, rows, shape)


class LeastLoaded(_Fixed):
    """Most GPUs free, as a share of the node's."""

    def cost(self, board: Board, rows: Integers, shape: Shape) -> tuple[Floats, Integers]:
        return -board.free[rows] / board.capacity[rows], tightest(board, rows, shape)


class DotProduct(_Fixed):
    """Smallest product of what the node has free and what the job asks (Tetris' alignment, reversed)."""

    def cost(self, board: Board, rows: Integers, shape: Shape) -> tuple[Floats, Integers]:
        gpus = board.free[rows] / (board.slots * WHOLE) * shape.amount / (board.slots * WHOLE)
        cpu = board.cpu[rows] / board.cpu_scale * shape.cpu / board.cpu_scale
        return gpus + cpu, tightest(board, rows, shape)


class Packing(_Fixed):
    """GPUs in part use first, then free GPUs of nodes in use, then idle nodes; the fewest free GPUs first."""

    def cost(self, board: Board, rows: Integers, shape: Shape) -> tuple[Floats, Integers]:
        slots = tightest(board, rows, shape)
        on_part = shape.shared & (board.gpus[rows, slots] < WHOLE)
        idle = board.full[rows] == board.capacity[rows]
        return np.where(on_part, 0.0, np.where(idle, 200.0, 100.0)) + board.full[rows], slots


class Clustering(_Fixed):
    """Where most jobs with the same GPU request are already."""

    lasting = False

    def __init__(self) -> None:
        self._counts: dict[tuple[int, int], Counter[int]] = {}

    def placed(self, row: int, shape: Shape) -> None:
        self._counts.setdefault((shape.gpus, shape.milli), Counter())[row] += 1

    def cost(self, board: Board, rows: Integers, shape: Shape) -> tuple[Floats, Integers]:
        counts = np.zeros(len(board))
        if found := self._counts.get((shape.gpus, shape.milli)):
            counts[list(found)] = list(found.values())
        return -counts[rows], tightest(board, rows, shape)


class RoundRobin(_Fixed):
    """The next node in turn."""

    lasting = False

    def __init__(self) -> None:
        self._last = -1

    def placed(self, row: int, shape: Shape) -> None:
        self._last = row

    def cost(self, board: Board, rows: Integers, shape: Shape) -> tuple[Floats, Integers]:
        return ((rows - self._last - 1) % len(board)).astype(np.float64), tightest(board, rows, shape)


class Random(_Fixed):
    """Any node."""

    lasting = False

    def __init__(self, generator: np.random.Generator) -> None:
        self._generator = generator

    def cost(self, board: Board, rows: Integers, shape: Shape) -> tuple[Floats, Integers]:
        return self._generator.random(len(rows)), tightest(board, rows, shape)


class Fgd(_Fixed):
    """Fragmentation Gradient Descent as published: the growth through a sigmoid, to integers.

    Ties, which the integers make many of, go to the best fit: the paper does not say.
    """

    def __init__(self) -> None:
        self._tables: Tables | None = None

    def learn(self, board: Board, mix: Mix) -> None:
        self._tables = mix.tables(board)

    def cost(self, board: Board, rows: Integers, shape: Shape) -> tuple[Floats, Integers]:
        if self._tables is None:
            raise RuntimeError("fgd was asked before it was told the mix of jobs")
        grown = growth(board, self._tables, rows, shape)
        slots: Integers = grown.argmin(1)
        score = np.floor(SIGMOID_STEPS / (1 + np.exp(grown.min(1) / WHOLE)))
        return remaining(board, rows, shape) / 10 - score, slots


class Stethos(_Fixed):
    """The growth of the fragments as it is, the best fit beside it, and shared GPUs cut as in the best packing.

    A shared job pays what its GPU's free part loses in worth (patterns.py), less so for leaving little.
    """

    def __init__(self) -> None:
        self._tables: Tables | None = None
        self._worth: Floats = worth({})

    def learn(self, board: Board, mix: Mix) -> None:
        self._tables = mix.tables(board)
        self._worth = worth(mix.lengths)

    def cost(self, board: Board, rows: Integers, shape: Shape) -> tuple[Floats, Integers]:
        if self._tables is None:
            return remaining(board, rows, shape), tightest(board, rows, shape)
        grown = growth(board, self._tables, rows, shape)
        if shape.shared:
            free = board.gpus[rows]
            left = np.maximum(free - shape.milli, 0)
            grown += PATTERN * WHOLE * (self._worth[free] - self._worth[left]) + LEFT * left
        slots: Integers = grown.argmin(1)
        return (grown.min(1) + TIDINESS * remaining(board, rows, shape)) / WHOLE, slots


POLICIES: dict[str, Callable[[np.random.Generator], Policy]] = {
    "stethos": lambda _: Stethos(),
    "fgd": lambda _: Fgd(),
    "best-fit": lambda _: BestFit(),
    "packing": lambda _: Packing(),
    "clustering": lambda _: Clustering(),
    "dot-product": lambda _: DotProduct(),
    "least-loaded": lambda _: LeastLoaded(),
    "round-robin": lambda _: RoundRobin(),
    "random": Random,
}
DEFAULT = "stethos"
