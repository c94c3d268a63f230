"""Numba on all cores.

The windows of sixteen series are sorted side by side by a network, which has no branch to mispredict; from then on
each step takes one sample out of the sorted columns and puts one in, in a single pass without a branch. The mad is
a search that begins where that of the step before ended.
"""

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from kernels.arrays import Floats
from kernels.cores import cores
from kernels.group_deviation.cpu import LANES, in_spreads, middle_value, sort_columns
from kernels.median_mad.arrays import History
from kernels.vectors import alike, chosen, load, store

# values, window, floors, minimum; median, mad, deviation
Task = tuple[Floats, int, NDArray[np.float64], int, Floats, Floats, Floats]

SAMPLES_PER_THREAD = 65_536  # some 600 µs: for less, waking a thread costs as much as it saves
RUN = 256  # steps that a thread takes after it sorted once


@njit(cache=True, nogil=True)
def distance_from(low: int, column: Floats, count: int, centre: float) -> tuple[int, float]:
    """`middle_distance` of a sorted column that an infinity ends, and before it where its search came to.

    It walks from the place `low`, where the step before came to: from one to the next that hardly moves.
    """
    rank = (count + 1) >> 1
    low = min(low, count - rank)
    while low < count - rank and column[low + rank - 1] - centre < centre - column[low]:
        low += 1
    while low > 0 and column[low + rank - 2] - centre >= centre - column[low - 1]:
        low -= 1
    first = low
    distance = max(column[low + rank - 1] - centre, centre - column[low])
    if low > 0 and centre - column[low - 1] < distance:
        first -= 1
        distance = centre - column[first]
    if count & 1:
        return low, distance
    # Of an even count the next nearest lies beside those.
    beside = column[first + rank] - centre
    if first > 0:
        beside = min(beside, centre - column[first - 1])
    return low, 0.5 * distance + 0.5 * beside


@njit(cache=True, nogil=True)
def _exchange(rows: Floats, moving: Floats) -> None:
    """Take moving[0] out of the sorted columns of [size + 1, LANES] and put moving[1] in.

    moving: [2, LANES], a value per column. The last row of the columns is infinite; no NaN.
    """
    leaving, entering = load(moving, 0, LANES), load(moving, 1, LANES)
    before, value = alike(-rows.dtype.type(np.inf), LANES), load(rows, 0, LANES)
    for row in range(rows.shape[0] - 1):
        above = load(rows, row + 1, LANES)
        kept = chosen(value < leaving, value, above)
        put = chosen(before > entering, before, entering)
        store(rows, row, chosen(kept < put, kept, put))
        before, value = kept, above


@njit(cache=True, nogil=True)
def _runs(task: Task, first_run: int, end_run: int) -> None:
    """Of all series' runs, lanes side by side, the first to the end one."""
    values, window, floors, minimum, median, mad, deviation = task
    series, steps = values.shape
    newest = median.shape[1]
    runs = (newest + RUN - 1) // RUN
    for work in range(first_run, end_run):
        top = work // runs * LANES
        width = min(LANES, series - top)
        start = work % runs * RUN
        first = steps - newest + start

        rows = np.full((min(window, steps) + 1, LANES), np.inf, values.dtype)
        counts, lows = np.zeros(LANES, np.int64), np.zeros(LANES, np.int64)
        for lane in range(width):
            for index in range(max(0, first - window + 1), first + 1):
                if abs(values[top + lane, index]) < np.inf:
                    rows[first - index, lane] = values[top + lane, index]
                    counts[lane] += 1
        sort_columns(rows)

        moving = np.full((2, LANES), np.inf, values.dtype)
        for place in range(start, min(start + RUN, newest)):
            index = steps - newest + place
            if place > start:
                for lane in range(width):
                    old = values[top + lane, index - window] if index >= window else np.inf
                    new = values[top + lane, index]
                    leaves, enters = abs(old) < np.inf, abs(new) < np.inf
                    moving[0, lane] = old if leaves else np.inf
                    moving[1, lane] = new if enters else np.inf
                    counts[lane] += int(enters) - int(leaves)
                _exchange(rows, moving)
            for lane in range(width):
                column, count = rows[:, lane], counts[lane]
                centre, spread, scale = np.nan, np.nan, np.nan
                if count >= minimum:
                    centre = middle_value(column, count)
                    lows[lane], spread = distance_from(lows[lane], column, count, centre)
                    scale = 1.4826 * max(spread, floors[top + lane])
                median[top + lane, place] = centre
                mad[top + lane, place] = spread
                deviation[top + lane, place] = in_spreads(values[top + lane, index] - centre, scale)


@njit(cache=True, nogil=True, parallel=True)
def _fill(task: Task, blocks: int) -> None:
    for work in prange(blocks):
        _runs(task, work, work + 1)


def fill(values: Floats, window: int, floors: NDArray[np.float64], minimum: int, out: History) -> None:
    """Compute into `out`, [series, steps]; the arguments are checked and hold at least one series and step."""
    series, newest = out.median.shape
    blocks = (series + LANES - 1) // LANES * ((newest + RUN - 1) // RUN)
    task = values, window, floors, minimum, out.median, out.mad, out.deviation
    threads = 1 + window * out.median.size // SAMPLES_PER_THREAD
    if threads == 1:
        _runs(task, 0, blocks)
        return
    with cores(threads):
        _fill(task, blocks)
