"""The costs of all nodes for each shape, kept up to date: after a placement only what changed is looked at."""

from dataclasses import dataclass, field

import numpy as np

from .board import Board, Floats, Integers, Shape
from .mix import Mix
from .policies import Policy

#: From so many changed nodes on, looking at them together is faster than remembering each.
MANY = 6


State = tuple[float, float, int, bytes]


@dataclass(slots=True)
class _View:
    """How a shape sees the board."""

    cost: Floats
    slots: Integers
    #: How many of the board's changes are in it.
    seen: int
    #: What a node in a state costs, and the slot.
    known: dict[State, tuple[float, int]] = field(default_factory=dict)


class Ranking:
    """A policy at work on a board."""

    def __init__(self, board: Board, policy: Policy) -> None:
        self.board, self.policy = board, policy
        self._all: Integers = np.arange(len(board))
        self._views: dict[Shape, _View] = {}

    def learn(self, mix: Mix) -> None:
        self.policy.learn(self.board, mix)
        self._views.clear()

    def costs(self, shape: Shape) -> tuple[Floats, Integers]:
        """Cost and slot of every node, infinite where the shape does not fit. Not to be written to."""
        changes = self.board.changes
        view = self._views.get(shape)
        if view is None:
            count = len(self._all)
            view = _View(np.full(count, np.inf), np.zeros(count, dtype=np.int64), len(changes))
            self._views[shape] = view
            self._look(shape, view, self._all)
        elif not self.policy.lasting:
            self._look(shape, view, self._all)
        elif changed := set(changes[view.seen :]):
            if len(changed) < MANY:
                for row in changed:
                    self._remember(shape, view, row)
            else:
                self._look(shape, view, np.array(sorted(changed), dtype=np.int64))
        view.seen = len(changes)
        return view.cost, view.slots

    def best(self, shape: Shape) -> tuple[int, int] | None:
        """The node and the slot for a shape, the first of equals; None when it fits nowhere."""
        cost, slots = self.costs(shape)
        if not len(cost):
            return None
        row = int(cost.argmin())
        return (row, int(slots[row])) if np.isfinite(cost[row]) else None

    def place(self, shape: Shape) -> tuple[int, tuple[int, ...]] | None:
        """Take the best node. Its row and the slots taken, or None."""
        found = self.best(shape)
        return (found[0], self.take(*found, shape)) if found else None

    def take(self, row: int, slot: int, shape: Shape) -> tuple[int, ...]:
        self.policy.placed(row, shape)
        return self.board.take(row, shape, slot)

    def _look(self, shape: Shape, view: _View, rows: Integers) -> None:
        view.cost[rows] = np.inf
        rows = rows[self.board.fits(rows, shape)]
        if len(rows):
            view.cost[rows], view.slots[rows] = self.policy.cost(self.board, rows, shape)

    def _remember(self, shape: Shape, view: _View, row: int) -> None:
        state = self.board.state(row)
        if state not in view.known:
            self._look(shape, view, np.array([row]))
            view.known[state] = float(view.cost[row]), int(view.slots[row])
        view.cost[row], view.slots[row] = view.known[state]
