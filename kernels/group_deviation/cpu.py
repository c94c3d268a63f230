"""Numba on all cores.

Sixteen columns, a column being one group's values of one signal at one step, are sorted side by side
by a network, which has no branch to mispredict; after that both medians are a search.
"""

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from kernels.arrays import Floats, Integers
from kernels.cores import cores
from kernels.group_deviation.arrays import Deviation
from kernels.vectors import largest, least, load, store

# values, signals, GPUs, steps, members, offsets, floors, minimum; median, mad, deviation; values and results flat
Task = tuple[Floats, int, int, int, Integers, Integers, NDArray[np.float64], int, Floats, Floats, Floats]

LANES = 16
READINGS_PER_THREAD = 16_384  # some 200 µs: waking a thread for less can cost more than it saves


@njit(cache=True, nogil=True)
def sound(members: Integers, offsets: Integers, gpus: int) -> bool:
    """Whether `arrays.check_groups` would find nothing; of a small step its many calls take longer than the rest."""
    if offsets.size == 0 or offsets[0] != 0 or offsets[-1] != members.size:
        return False
    fits = True
    for group in range(offsets.size - 1):
        fits &= offsets[group] <= offsets[group + 1]
    for gpu in members:
        fits &= 0 <= gpu < gpus
    return fits


@njit(cache=True, nogil=True)
def count_finite(column: Floats) -> int:
    """How many values stand before the infinities at the end of a sorted column."""
    low, high = 0, column.size
    while low < high:
        middle = (low + high) // 2
        if column[middle] < np.inf:
            low = middle + 1
        else:
            high = middle
    return low


@njit(cache=True, nogil=True)
def middle_value(column: Floats, count: int) -> float:
    """The median of a sorted column's first `count` values."""
    # Halved before the sum: two large doubles would overflow.
    return 0.5 * np.float64(column[(count - 1) // 2]) + 0.5 * np.float64(column[count // 2])


@njit(cache=True, nogil=True)
def middle_distance(column: Floats, count: int, centre: float) -> float:
    """The median distance of a sorted column's first `count` values to the centre, without another sort.

    The `rank` nearest values are neighbours in the sorted column: of all runs of that length it is
    the one whose farther end is nearest, and that end changes sides once along the column.
    """
    share = 1.0 if count % 2 else 0.5
    median = 0.0
    for rank in range((count + 1) // 2, count // 2 + 2):
        low, high = 0, count - rank
        while low < high:
            first = (low + high) // 2
            if column[first + rank - 1] - centre < centre - column[first]:
                low = first + 1
            else:
                high = first
        distance = max(column[low + rank - 1] - centre, centre - column[low])
        if low > 0:
            distance = min(distance, centre - column[low - 1])
        median += share * distance
    return median


@njit(cache=True, nogil=True)
def in_spreads(difference: float, scale: float) -> float:
    """The difference over the scale; over a scale of zero it is 0 or infinite, never an error."""
    if difference == 0:
        return 0.0
    if scale == 0:
        return difference * np.inf
    return difference / scale


@njit(cache=True, nogil=True, forceinline=True)
def _order(rows: Floats, low: int, high: int) -> None:
    """Put the smaller of each two values in row `low`, the larger in row `high`; no NaN."""
    one, other = load(rows, low, LANES), load(rows, high, LANES)
    store(rows, low, least(one, other))
    store(rows, high, largest(one, other))


@njit(cache=True, nogil=True)
def sort_columns(rows: Floats) -> None:
    """Sort every column of [size, LANES] by Batcher's merge exchange (Knuth vol. 3, 5.2.2, algorithm M)."""
    size = rows.shape[0]
    top = 1
    while 2 * top < size:
        top *= 2
    block = top
    while block > 0:
        span, wanted, distance = top, 0, block
        while True:
            # The rows with `low & block == wanted`.
            for first in range(wanted, size - distance, 2 * block):
                for low in range(first, min(first + block, size - distance)):
                    _order(rows, low, low + distance)
            if span == block:
                break
            distance, span, wanted = span - block, span // 2, block
        block //= 2


@njit(cache=True, nogil=True)
def _columns(task: Task, first: int, end: int) -> None:
    """The columns of each group in blocks of lanes, of the blocks first to end."""
    values, signals, gpus, steps, members, offsets, floors, minimum, median, mad, deviation = task
    groups = offsets.size - 1
    lanes = signals * steps
    for work in range(first, end):
        group = work % groups
        start, end = offsets[group], offsets[group + 1]
        begin = work // groups * LANES
        width = min(LANES, lanes - begin)

        # Where each lane's signal and step start in the flat arrays.
        origin = np.empty((3, LANES), np.int64)
        for lane in range(width):
            signal, step = (begin + lane) // steps, (begin + lane) % steps
            origin[0, lane] = signal * gpus * steps + step
            origin[1, lane] = (signal * groups + group) * steps + step
            origin[2, lane] = signal * members.size * steps + step

        rows = np.full((end - start, LANES), np.inf, values.dtype)
        for slot in range(start, end):
            for lane in range(width):
                value = values[origin[0, lane] + members[slot] * steps]
                if abs(value) < np.inf:
                    rows[slot - start, lane] = value
        sort_columns(rows)

        centres, scales = np.full(LANES, np.nan), np.full(LANES, np.nan)
        for lane in range(width):
            column = rows[:, lane]
            count = count_finite(column)
            spread = np.nan
            if count >= minimum:
                centres[lane] = middle_value(column, count)
                spread = middle_distance(column, count, centres[lane])
                scales[lane] = 1.4826 * max(spread, floors[(begin + lane) // steps])
            median[origin[1, lane]] = centres[lane]
            mad[origin[1, lane]] = spread
        for slot in range(start, end):
            for lane in range(width):
                difference = values[origin[0, lane] + members[slot] * steps] - centres[lane]
                deviation[origin[2, lane] + slot * steps] = in_spreads(difference, scales[lane])


@njit(cache=True, nogil=True, parallel=True)
def _fill(task: Task, blocks: int) -> None:
    for work in prange(blocks):
        _columns(task, work, work + 1)


def fill(
    values: Floats,
    members: Integers,
    offsets: Integers,
    floors: NDArray[np.float64],
    minimum: int,
    out: Deviation,
) -> None:
    """Compute into `out`; the arguments are checked, values are 3-D and the floors one per signal."""
    signals, _, steps = values.shape
    blocks = (offsets.size - 1) * ((signals * steps + LANES - 1) // LANES)
    results = out.median.reshape(-1), out.mad.reshape(-1), out.deviation.reshape(-1)
    task = values.reshape(-1), *values.shape, members, offsets, floors, minimum, *results
    threads = 1 + out.deviation.size // READINGS_PER_THREAD
    if threads == 1:
        _columns(task, 0, blocks)
        return
    with cores(threads):
        _fill(task, blocks)
