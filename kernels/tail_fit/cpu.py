"""Numba on all cores: the excesses of sixteen series are sorted side by side by a network, and added up in step."""

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from kernels.arrays import Floats
from kernels.cores import cores
from kernels.group_deviation.cpu import LANES, sort_columns
from kernels.tail_fit.arrays import Tail

Numbers = NDArray[np.float64]

VALUES_PER_THREAD = 65_536  # some 100 µs: waking a thread for less can cost more than it saves


@njit(cache=True, nogil=True)
def parameters(mean: float, difference: float, largest: float, lightest: float, heaviest: float) -> tuple[float, float]:
    """Shape and scale by the excesses' mean, half their mean absolute difference, and the largest."""
    shape = lightest
    if difference > 0:
        shape = min(max(2.0 - mean / difference, lightest), heaviest)
    scale = mean * (1.0 - shape)
    return max(shape, -scale / largest), scale


@njit(cache=True, nogil=True)
def excesses(values: Floats, start: float, column: Floats) -> tuple[int, int]:
    """Put the values above the start at the column's top; how many those are, and how many values are present.

    Without a branch, which the values would decide: what is no excess is written over by the next.
    """
    above = present = 0
    least = start if start > -np.inf else np.inf
    for value in values:
        there = abs(value) < np.inf
        column[above] = value
        above += int(there & (value > least))
        present += int(there)
    return above, present


@njit(cache=True, nogil=True)
def sums(rows: Floats, starts: Numbers, counts: Numbers, totals: Numbers, differences: Numbers) -> None:
    """Of the first `count` of each sorted column: the sum of the excesses, and of the differences of all pairs.

    A gap between neighbours is part of the difference of every pair around it. Added up like this, equal values
    differ by exactly nothing.
    """
    totals[:], differences[:] = 0.0, 0.0
    for row in range(rows.shape[0]):
        rank = np.float64(row)
        for lane in range(LANES):
            inside = rank < counts[lane]
            value = np.float64(rows[row, lane]) if inside else starts[lane]
            before = np.float64(rows[max(row - 1, 0), lane]) if inside else starts[lane]
            totals[lane] += value - starts[lane]
            differences[lane] += rank * (counts[lane] - rank) * (value - before)


@njit(cache=True, nogil=True, parallel=True)
def _fit(
    values: Floats,
    starts: Numbers,
    lightest: float,
    heaviest: float,
    minimum: int,
    shape: Floats,
    scale: Floats,
    count: NDArray[np.int32],
    share: Floats,
) -> None:
    series, length = values.shape
    for work in prange((series + LANES - 1) // LANES):
        top = work * LANES
        width = min(LANES, series - top)
        columns = np.empty((length + 1, LANES), values.dtype)
        counts, lows, totals, differences = np.zeros((4, LANES))
        for lane in range(width):
            lows[lane] = starts[top + lane]
            above, present = excesses(values[top + lane], lows[lane], columns[:, lane])
            counts[lane] = count[top + lane] = above
            share[top + lane] = above / present if present > 0 else np.nan
        rows = columns[: int(counts.max())]
        for lane in range(LANES):
            rows[int(counts[lane]) :, lane] = np.inf
        sort_columns(rows)
        sums(rows, lows, counts, totals, differences)
        for lane in range(width):
            n = counts[lane]
            fitted = (np.nan, np.nan)
            if n >= minimum:
                largest = np.float64(rows[int(n) - 1, lane]) - lows[lane]
                difference = differences[lane] / (n * (n - 1.0))
                fitted = parameters(totals[lane] / n, difference, largest, lightest, heaviest)
            shape[top + lane], scale[top + lane] = fitted


def fill(values: Floats, starts: Numbers, lightest: float, heaviest: float, minimum: int, out: Tail) -> None:
    """Compute into `out`; the arguments are checked and the starts one per series."""
    with cores(1 + values.size // VALUES_PER_THREAD):
        _fit(values, starts, lightest, heaviest, minimum, out.shape, out.scale, out.count, out.share)
