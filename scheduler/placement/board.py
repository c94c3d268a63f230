"""Nodes as arrays, and what one job asks of each of its nodes. GPUs are counted in thousandths."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

WHOLE = 1000

Floats = NDArray[np.float64]
Integers = NDArray[np.int64]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Shape:
    """What one node has to give: `gpus` whole GPUs, or `milli` thousandths of a single one.

    `cpu` and `memory` are in the units of the board; no `models` means any.
    """

    gpus: int
    milli: int = WHOLE
    cpu: float = 0.0
    memory: float = 0.0
    models: frozenset[str] = frozenset()

    @property
    def shared(self) -> bool:
        return self.gpus == 1 and self.milli < WHOLE

    @property
    def amount(self) -> int:
        """Thousandths of a GPU in all."""
        return self.gpus * self.milli


class Board:
    """What is free on each node. `changes` grows by the row of every node that changed."""

    def __init__(self, cpu: Floats, memory: Floats, gpus: Integers, models: list[str]) -> None:
        """`gpus` [nodes, slots] has the free thousandths of each GPU, 0 where there is none."""
        self.cpu, self.memory, self.gpus = cpu.astype(np.float64), memory.astype(np.float64), gpus.astype(np.int64)
        self.names = sorted(set(models))
        self.model: Integers = np.array([self.names.index(model) for model in models], dtype=np.int64)
        self.full: Integers = (self.gpus == WHOLE).sum(1)
        self.free: Integers = self.gpus.sum(1)
        self.capacity: Floats = np.maximum((self.gpus > 0).sum(1), 1).astype(np.float64)
        self.cpu_scale = max(float(self.cpu.max(initial=0)), 1.0)
        self.memory_scale = max(float(self.memory.max(initial=0)), 1.0)
        self.slots = self.gpus.shape[1]
        self.changes: list[int] = []
        self._allowed: dict[frozenset[str], Mask] = {}

    def __len__(self) -> int:
        return len(self.cpu)

    def fits(self, rows: Integers, shape: Shape) -> Mask:
        able: Mask = (self.cpu[rows] >= shape.cpu) & (self.memory[rows] >= shape.memory)
        if shape.models:
            able &= self.allowed(shape.models)[rows]
        if shape.shared:
            able &= (self.gpus[rows] >= shape.milli).any(1)
        elif shape.gpus:
            able &= self.full[rows] >= shape.gpus
        return able

    def allowed(self, models: frozenset[str]) -> Mask:
        """Which nodes have one of these models. What no node has, rules nothing in."""
        if models not in self._allowed:
            self._allowed[models] = np.array([name in models for name in self.names])[self.model]
        return self._allowed[models]

    def take(self, row: int, shape: Shape, slot: int) -> tuple[int, ...]:
        """Give a node's share away; `slot` is the GPU for a shared one. The slots that were taken."""
        if shape.shared:
            self.full[row] -= self.gpus[row, slot] == WHOLE
            slots: tuple[int, ...] = (slot,)
        else:
            self.full[row] -= shape.gpus
            slots = tuple((self.gpus[row] == WHOLE).nonzero()[0][: shape.gpus].tolist())
        self.gpus[row, slots] -= shape.milli
        self.free[row] -= shape.amount
        self.cpu[row] -= shape.cpu
        self.memory[row] -= shape.memory
        self.changes.append(row)
        return slots

    def set_free(self, row: int, count: int) -> None:
        """A node has so many whole GPUs free now, for another reason than a placement."""
        self.gpus[row] = 0
        self.gpus[row, :count] = WHOLE
        self.full[row] = count
        self.free[row] = count * WHOLE
        self.changes.append(row)

    def state(self, row: int) -> tuple[float, float, int, bytes]:
        """All that a lasting cost may depend on: nodes in the same state cost the same."""
        return float(self.cpu[row]), float(self.memory[row]), int(self.model[row]), self.gpus[row].tobytes()
