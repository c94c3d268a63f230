"""The sums of one window, from which its features are made.

Wherever the sums are large beside what is made of them, a window is added up about a sample of its own, so that no
rounding stays.
"""

import math

import numpy as np
from numba import njit
from numpy.typing import NDArray

from kernels.arrays import Floats

Sums = NDArray[np.float64]
Real = float | np.float32 | np.float64
Seven = tuple[float, float, float, float, float, float, float]  # in the order of `Features`

# What is known of a window. Times count from its oldest sample when it was last added up.
SHIFT, COUNT, SUM, SQUARES, PRODUCTS, TIMES, TIME_SQUARES = range(7)
NEXT, PEAK, PRESENT, LOW, HIGH, LAST, LAST_AT = range(7, 14)
LEAST_LEFT = 2.0**-12


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract", "nsz"})
def _add_up(
    samples: Floats, begin: int, end: int, shift: float, time: float
) -> tuple[float, float, float, float, float, float, float]:
    """The sums over samples[begin:end], the first of which has this time; in any order, to let lanes add."""
    present = count = total = squares = products = times = time_squares = 0.0
    for index in range(begin, end):
        value = np.float64(samples[index])
        present += 1.0 if value == value else 0.0
        counts = abs(value) < np.inf
        distance = value - shift if counts else 0.0
        at = time + np.float64(np.int32(index - begin)) if counts else 0.0
        count += 1.0 if counts else 0.0
        total += distance
        squares += distance * distance
        products += distance * at
        times += at
        time_squares += at * at
    return present, count, total, squares, products, times, time_squares


@njit(cache=True, nogil=True)
def _known(value: Real, instead: Real) -> Real:
    """The value, unless it is NaN."""
    return value if value == value else instead


@njit(cache=True, nogil=True, fastmath={"nnan", "nsz"})
def extremes(samples: Floats) -> tuple[float, float]:
    """The least and the largest sample; infinity and minus infinity where there is none."""
    none = samples.dtype.type(np.inf)
    low: Real = none
    high: Real = -none
    for index in range(samples.size):
        least, largest = _known(samples[index], none), _known(samples[index], -none)
        low = least if least < low else low
        high = largest if largest > high else high
    return np.float64(low), np.float64(high)


@njit(cache=True, nogil=True)
def add_up(sums: Sums, samples: Floats, oldest: int, window: int) -> None:
    """The sums of a window, of which the samples before the first step may be lacking; a ring begins at `oldest`."""
    size = samples.size
    shift = np.float64(0.0)
    for index in range(size):
        if abs(samples[index]) < np.inf:
            shift = np.float64(samples[index])
            break
    time = np.float64(window - size)
    old = _add_up(samples, oldest, size, shift, time)
    new = _add_up(samples, 0, oldest, shift, time + size - oldest)
    sums[SHIFT], sums[NEXT] = shift, window
    sums[PRESENT] = old[0] + new[0]
    sums[COUNT], sums[SUM], sums[SQUARES] = old[1] + new[1], old[2] + new[2], old[3] + new[3]
    sums[PRODUCTS], sums[TIMES], sums[TIME_SQUARES] = old[4] + new[4], old[5] + new[5], old[6] + new[6]
    sums[PEAK] = sums[SQUARES]
    sums[LOW], sums[HIGH] = extremes(samples)
    sums[LAST], sums[LAST_AT] = np.nan, -1.0
    for back in range(1, size + 1):
        index = oldest - back if back <= oldest else oldest - back + size
        if not np.isnan(samples[index]):
            sums[LAST], sums[LAST_AT] = np.float64(samples[index]), np.float64(window - back)
            break


@njit(cache=True, nogil=True)
def slide(sums: Sums, leaving: float, entering: float, window: int) -> bool:
    """One sample in and the oldest out; whether that took an extreme away."""
    time = sums[NEXT]
    sums[NEXT] = time + 1.0
    if not math.isnan(leaving):
        sums[PRESENT] -= 1.0
        if abs(leaving) < np.inf:
            distance, at = leaving - sums[SHIFT], time - window
            sums[COUNT] -= 1.0
            sums[SUM] -= distance
            sums[SQUARES] -= distance * distance
            sums[PRODUCTS] -= distance * at
            sums[TIMES] -= at
            sums[TIME_SQUARES] -= at * at
    taken = (leaving == sums[LOW] and not entering <= leaving) or (leaving == sums[HIGH] and not entering >= leaving)
    if not math.isnan(entering):
        sums[PRESENT] += 1.0
        sums[LAST], sums[LAST_AT] = entering, time
        sums[LOW], sums[HIGH] = min(sums[LOW], entering), max(sums[HIGH], entering)
        if abs(entering) < np.inf:
            distance = entering - sums[SHIFT]
            sums[COUNT] += 1.0
            sums[SUM] += distance
            sums[SQUARES] += distance * distance
            sums[PRODUCTS] += distance * time
            sums[TIMES] += time
            sums[TIME_SQUARES] += time * time
            sums[PEAK] = max(sums[PEAK], sums[SQUARES])
    return taken


@njit(cache=True, nogil=True)
def worn(sums: Sums) -> bool:
    """Whether so little is left of what went through the sums that their rounding counts."""
    count = sums[COUNT]
    return not count * sums[SQUARES] - sums[SUM] * sums[SUM] >= count * sums[PEAK] * LEAST_LEFT


@njit(cache=True, nogil=True)
def features(sums: Sums, window: int, minimum: int) -> Seven:
    mean = deviation = slope = low = high = last = np.nan
    count = sums[COUNT]
    if count >= minimum:
        share = 1.0 / count
        centre = sums[SUM] * share
        mean = sums[SHIFT] + centre
        deviation = math.sqrt(max(sums[SQUARES] - sums[SUM] * centre, 0.0) * share)
        if count > 1.0:
            passed = sums[TIME_SQUARES] - sums[TIMES] * sums[TIMES] * share
            slope = (sums[PRODUCTS] - sums[TIMES] * centre) / passed
    if sums[PRESENT] > 0.0:
        low, high = sums[LOW], sums[HIGH]
        if sums[LAST_AT] >= sums[NEXT] - window:
            last = sums[LAST]
    return mean, deviation, slope, low, high, last, 1.0 - sums[PRESENT] / window
