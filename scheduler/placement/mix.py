"""How often each shape of job comes, and what a node's remains are worth to such a mix.

Fragmentation Gradient Descent (Weng et al., "Beware of Fragmentation", USENIX ATC 2023) calls a GPU's free
part a fragment, to a class of jobs, when a job of that class cannot use it: the node lacks CPU or GPUs for
it, or this GPU has too little left. What is free and no fragment is usable; its expectation over the mix is

    usable(node) = Σ_gpu shared[cpu, free_gpu] + whole[cpu, full GPUs]

with  shared[c, x] = x · P(a shared job of at most c CPU and x thousandths)
and   whole[c, n]  = 1000 n · P(a job of whole GPUs, at most n of them, of at most c CPU).

So two tables, looked up, are all that it takes. The tables have rows per model (for jobs that ask for
one) and per step of CPU.
"""

from collections.abc import Mapping

import numpy as np

from .board import WHOLE, Board, Floats, Integers, Shape

#: The share of jobs whose shapes count: rare ones are noise while the mix is being estimated, but the
#: published 95 % cuts large jobs off an estimate from few arrivals.
COVER = 0.99
PUBLISHED_COVER = 0.95


class Mix:
    """Weights of the shapes, kept to the commonest that make up `cover` of all jobs."""

    def __init__(self, weights: Mapping[Shape, float], cover: float = COVER) -> None:
        classes: dict[Shape, float] = {}
        for shape, weight in weights.items():
            kind = Shape(shape.gpus, shape.milli, shape.cpu, models=shape.models)
            classes[kind] = classes.get(kind, 0.0) + weight
        total = sum(classes.values())
        self.classes: dict[Shape, float] = {}
        covered = 0.0
        for kind, weight in sorted(classes.items(), key=lambda item: -item[1]):
            if covered >= cover * total:
                break
            self.classes[kind] = weight
            covered += weight
        self.classes = {kind: weight / covered for kind, weight in self.classes.items()}

    @property
    def lengths(self) -> dict[int, float]:
        """How often shared jobs ask for each share of a GPU, in thousandths."""
        found: dict[int, float] = {}
        for kind, weight in self.classes.items():
            if kind.shared:
                found[kind.milli] = found.get(kind.milli, 0.0) + weight
        return found

    def tables(self, board: Board) -> "Tables":
        return Tables(self, board)


class Tables:
    """What the remains of this board's nodes are worth."""

    def __init__(self, mix: Mix, board: Board) -> None:
        wanting = {kind: weight for kind, weight in mix.classes.items() if kind.gpus}
        self._steps: Floats = np.unique([kind.cpu for kind in wanting])
        steps, models = len(self._steps), len(board.names)
        shared = np.zeros((models, steps + 1, WHOLE + 1))
        whole = np.zeros((models, steps + 1, board.slots + 1))
        for kind, weight in wanting.items():
            step = int(np.searchsorted(self._steps, kind.cpu)) + 1
            able = [not kind.models or name in kind.models for name in board.names]
            if kind.shared:
                shared[able, step, kind.milli] += weight
            elif kind.gpus <= board.slots:
                whole[able, step, kind.gpus] += weight
        shared = shared.cumsum(1).cumsum(2) * np.arange(WHOLE + 1)
        whole = whole.cumsum(1).cumsum(2) * np.arange(board.slots + 1) * WHOLE
        #: [model and CPU step, thousandths free on a GPU] and […, GPUs entirely free], in thousandths.
        self.shared: Floats = shared.reshape(-1, WHOLE + 1)
        self.whole: Floats = whole.reshape(-1, board.slots + 1)
        self._first: Integers = board.model * (steps + 1)

    def row(self, rows: Integers, cpu: Floats) -> Integers:
        """The tables' row for these nodes with so much CPU left."""
        found: Integers = self._first[rows] + np.searchsorted(self._steps, cpu, side="right")
        return found
