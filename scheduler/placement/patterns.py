"""What a partly used GPU is worth to the jobs that share GPUs: the dual prices of the cutting-stock problem.

Shared jobs are cut from GPUs as lengths are cut from rods. The least number of GPUs for a mix of lengths is
a linear programme over patterns, solved by generating columns (Gilmore and Gomory, "A Linear Programming
Approach to the Cutting-Stock Problem", Operations Research 9, 1961). Its dual prices say what share of a
GPU one job of each length costs in the best packing, and a knapsack over them what any remainder is worth.
"""

from collections.abc import Mapping

import numpy as np

from .board import WHOLE, Floats, Integers

#: Lengths are rounded up to this many thousandths, which keeps the knapsack short.
GRAIN = 10
#: The programme has a column per length; it ends long before this, also where it is degenerate.
MOST_PIVOTS = 1000


def worth(weights: Mapping[int, float]) -> Floats:
    """[WHOLE + 1]: what so many free thousandths of a GPU are worth, in GPUs; rises from 0 to 1 at WHOLE.

    `weights` has how often each length (thousandths, under WHOLE) is asked for. Empty: nothing shares.
    """
    if not weights:
        return np.repeat([0.0, 1.0], [WHOLE, 1])
    lengths: Integers = -(-np.array(sorted(weights), dtype=np.int64) // GRAIN)
    kinds, index = np.unique(lengths, return_inverse=True)
    demand = np.bincount(index, weights=[weights[length] for length in sorted(weights)])
    values, _ = _knapsack(kinds, _prices(kinds, demand / float(demand.sum())))
    values[-1] = 1.0
    return np.minimum(values, 1.0)[np.arange(WHOLE + 1) // GRAIN]


def _prices(lengths: Integers, demand: Floats) -> Floats:
    """The dual price of each length. The basis begins with one pattern for each length alone."""
    basis = np.diag((WHOLE // GRAIN // lengths).astype(np.float64))
    used = np.asarray(demand / basis.diagonal(), dtype=np.float64)
    for _ in range(MOST_PIVOTS):
        prices = np.linalg.solve(basis.T, np.ones(len(lengths))).astype(np.float64)
        values, pattern = _knapsack(lengths, prices)
        if values[-1] <= 1 + 1e-9:
            break
        step = np.linalg.solve(basis, pattern)
        ratios = np.where(step > 1e-9, used / np.where(step > 1e-9, step, 1.0), np.inf)
        leaving = int(ratios.argmin())
        used = np.maximum(used - ratios[leaving] * step, 0.0)
        used[leaving] = ratios[leaving]
        basis[:, leaving] = pattern
    return prices


def _knapsack(lengths: Integers, prices: Floats) -> tuple[Floats, Floats]:
    """The best value for each room from 0 to a whole GPU, and the pattern of the whole one."""
    rooms = WHOLE // GRAIN
    values = np.zeros(rooms + 1)
    last = np.full(rooms + 1, -1)
    for room in range(1, rooms + 1):
        values[room] = values[room - 1]
        fitting = int(np.searchsorted(lengths, room, side="right"))
        if fitting:
            offers = values[room - lengths[:fitting]] + prices[:fitting]
            best = int(offers.argmax())
            if offers[best] > values[room] + 1e-12:
                values[room], last[room] = offers[best], best
    pattern = np.zeros(len(lengths))
    room = rooms
    while room > 0:
        if last[room] < 0:
            room -= 1
        else:
            pattern[last[room]] += 1
            room -= int(lengths[last[room]])
    return values, pattern
