"""NumPy sorts, with the processor's vector instructions, and Numba adds up: some rows at a time, on all cores."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
from numba import get_num_threads, njit
from numpy.typing import NDArray

from kernels.arrays import Floats
from kernels.tail_fit.arrays import Tail

BLOCK = 65_536  # values that are sorted and then added up while they are still in the cache
VALUES_PER_THREAD = 32_768  # some 100 µs: starting a thread for less can cost more than it saves


@njit(cache=True, nogil=True)
def parameters(mean: float, difference: float, largest: float, lightest: float, heaviest: float) -> tuple[float, float]:
    """Shape and scale by the excesses' mean, half their mean absolute difference, and the largest."""
    shape = lightest
    if difference > 0:
        shape = min(max(2.0 - mean / difference, lightest), heaviest)
    scale = mean * (1.0 - shape)
    return max(shape, -scale / largest), scale


@njit(cache=True, nogil=True)
def count_until(row: Floats, value: np.floating | float) -> int:
    """How many values of a sorted row, NaN last, are not above the value."""
    low, high = 0, row.size
    while low < high:
        middle = (low + high) // 2
        if row[middle] <= value:
            low = middle + 1
        else:
            high = middle
    return low


@njit(cache=True, nogil=True, fastmath={"reassoc", "nsz", "contract"})
def sums(excesses: Floats, start: float) -> tuple[float, float]:
    """Of sorted values above the start: the sum of their excesses, and of the differences of all pairs.

    A gap between neighbours is part of the difference of every pair around it. Added up like this, equal values
    differ by exactly nothing.
    """
    count = excesses.size
    total, difference = np.float64(excesses[0]) - start, 0.0
    for rank in range(1, count):
        value = np.float64(excesses[rank])
        total += value - start
        difference += np.float64(rank) * np.float64(count - rank) * (value - np.float64(excesses[rank - 1]))
    return total, difference


@njit(cache=True, nogil=True)
def _fit(
    rows: Floats,
    starts: NDArray[np.float64],
    lightest: float,
    heaviest: float,
    minimum: int,
    shape: Floats,
    scale: Floats,
    count: NDArray[np.int32],
    share: Floats,
) -> None:
    largest_number = np.finfo(rows.dtype).max
    for series in range(rows.shape[0]):
        row, start = rows[series], starts[series]
        first, last = count_until(row, -np.inf), count_until(row, largest_number)
        above = count_until(row[first:last], start) + first if abs(start) < np.inf else last
        n = last - above
        count[series] = n
        share[series] = n / (last - first) if last > first else np.nan
        shape[series] = scale[series] = np.nan
        if n >= minimum:
            total, difference = sums(row[above:last], start)
            largest = np.float64(row[last - 1]) - start
            shape[series], scale[series] = parameters(
                total / n, difference / (np.float64(n) * np.float64(n - 1)), largest, lightest, heaviest
            )


def fill(
    values: Floats, starts: NDArray[np.float64], lightest: float, heaviest: float, minimum: int, out: Tail
) -> None:
    """Compute into `out`; the arguments are checked and the starts one per series."""
    series, length = values.shape
    step = max(1, BLOCK // max(length, 1))

    def fit(begin: int) -> None:
        part = slice(begin, begin + step)
        _fit(
            np.sort(values[part], axis=1),
            starts[part],
            lightest,
            heaviest,
            minimum,
            out.shape[part],
            out.scale[part],
            out.count[part],
            out.share[part],
        )

    threads = min(get_num_threads(), 1 + values.size // VALUES_PER_THREAD)
    if threads == 1:
        for begin in range(0, series, step):
            fit(begin)
    else:
        with ThreadPoolExecutor(threads) as pool:
            list(pool.map(fit, range(0, series, step)))
