"""Numba on all cores.

The windows of sixteen series are sorted side by side by a network, which has no branch to mispredict; from then on
each step takes one sample out of the sorted columns and puts one in, in a single pass without a branch. Both
medians are a search.
"""

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from kernels.arrays import Floats
from kernels.cores import cores
from kernels.group_deviation.cpu import (
    count_finite,
    in_spreads,
    middle_distance,
    middle_value,
    sort_columns,
)
from kernels.group_deviation.vectors import LANES
from kernels.median_mad.arrays import History

SAMPLES_PER_THREAD = 16_384  # some 200 µs: waking a thread for less can cost more than it saves
RUN = 256  # steps that a thread takes after it sorted once


@njit(cache=True, nogil=True)
def exchange(rows: Floats, leaving: Floats, entering: Floats, before: Floats) -> None:
    """Take one value out of each sorted column of [size + 1, LANES] and put one in; the last row is infinite."""
    before[:] = -np.inf
    for row in range(rows.shape[0] - 1):
        for lane in range(LANES):
            here, above, new = rows[row, lane], rows[row + 1, lane], entering[lane]
            kept = here if here < leaving[lane] else above
            put = before[lane] if before[lane] > new else new
            rows[row, lane] = kept if kept < put else put
            before[lane] = kept


@njit(cache=True, nogil=True, parallel=True)
def _fill(
    values: Floats,
    window: int,
    floors: NDArray[np.float64],
    minimum: int,
    median: Floats,
    mad: Floats,
    deviation: Floats,
) -> None:
    series, steps = values.shape
    newest = median.shape[1]
    runs = (newest + RUN - 1) // RUN
    for work in prange((series + LANES - 1) // LANES * runs):
        top = work // runs * LANES
        width = min(LANES, series - top)
        start = work % runs * RUN
        first = steps - newest + start

        rows = np.full((window + 1, LANES), np.inf, values.dtype)
        for lane in range(width):
            for index in range(max(0, first - window + 1), first + 1):
                if abs(values[top + lane, index]) < np.inf:
                    rows[first - index, lane] = values[top + lane, index]
        sort_columns(rows)

        moving = np.full((3, LANES), np.inf, values.dtype)
        for place in range(start, min(start + RUN, newest)):
            index = steps - newest + place
            if place > start:
                for lane in range(width):
                    old = values[top + lane, index - window] if index >= window else np.inf
                    new = values[top + lane, index]
                    moving[0, lane] = old if abs(old) < np.inf else np.inf
                    moving[1, lane] = new if abs(new) < np.inf else np.inf
                exchange(rows, moving[0], moving[1], moving[2])
            for lane in range(width):
                column = rows[:window, lane]
                count = count_finite(column)
                centre, spread, scale = np.nan, np.nan, np.nan
                if count >= minimum:
                    centre = middle_value(column, count)
                    spread = middle_distance(column, count, centre)
                    scale = 1.4826 * max(spread, floors[top + lane])
                median[top + lane, place] = centre
                mad[top + lane, place] = spread
                deviation[top + lane, place] = in_spreads(values[top + lane, index] - centre, scale)


def fill(values: Floats, window: int, floors: NDArray[np.float64], minimum: int, out: History) -> None:
    """Compute into `out`, [series, steps]; the arguments are checked and hold at least one series and step."""
    with cores(1 + window * out.median.size // SAMPLES_PER_THREAD):
        _fill(values, window, floors, minimum, out.median, out.mad, out.deviation)
