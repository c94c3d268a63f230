"""Numba on all cores.

Of many steps, a window is what it has before some step and what it has after, each added up once. A ring slides by
taking a sample in and giving one back; it is added up anew once per window's length. Wherever the sums are large beside
what is made of them, a window is added up about a sample of its own, so that no rounding stays.
"""

import math

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from kernels.arrays import Floats
from kernels.cores import cores
from kernels.window_features.arrays import Features, Ring

Sums = NDArray[np.float64]
Real = float | np.float32 | np.float64
Seven = tuple[float, float, float, float, float, float, float]  # in the order of `Features`
Arrays = tuple[Floats, Floats, Floats, Floats, Floats, Floats, Floats]

ROWS = 32  # series that a thread takes at once
SAMPLES_PER_THREAD = 131_072  # some 400 µs: on a busy machine, waiting for a second thread costs milliseconds
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
def _extremes(samples: Floats) -> tuple[float, float]:
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
    sums[LOW], sums[HIGH] = _extremes(samples)
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


@njit(cache=True, nogil=True)
def _put(found: Seven, out: Arrays, row: int, place: int) -> None:
    mean, deviation, slope, low, high, last, missing = out
    mean[row, place], deviation[row, place], slope[row, place] = found[0], found[1], found[2]
    low[row, place], high[row, place], last[row, place], missing[row, place] = found[3], found[4], found[5], found[6]


@njit(cache=True, nogil=True)
def _near(samples: Floats, begin: int, end: int, middle: int) -> float:
    """The finite one of samples[begin:end] that is nearest to the middle, or 0."""
    for away in range(end - begin):
        for index in (middle - away, middle + away):
            if begin <= index < end and abs(samples[index]) < np.inf:
                return float(samples[index])
    return 0.0


@njit(cache=True, nogil=True)
def _back(samples: Floats, begin: int, end: int, shift: float, before: Sums) -> None:
    """The sums over each samples[index:end], the last of which has the time -1, in before[index - begin]."""
    present = count = total = squares = products = times = time_squares = 0.0
    low, high = np.inf, -np.inf
    for index in range(end, begin - 1, -1):
        value = np.float64(samples[index]) if index < end else np.nan
        counts = abs(value) < np.inf
        distance, time = (value - shift, np.float64(index - end)) if counts else (0.0, 0.0)
        present += 1.0 if value == value else 0.0
        count += 1.0 if counts else 0.0
        total += distance
        squares += distance * distance
        products += distance * time
        times += time
        time_squares += time * time
        low, high = value if value < low else low, value if value > high else high
        sums = before[index - begin]
        sums[PRESENT], sums[LOW], sums[HIGH] = present, low, high
        sums[COUNT], sums[SUM], sums[SQUARES] = count, total, squares
        sums[PRODUCTS], sums[TIMES], sums[TIME_SQUARES] = products, times, time_squares


@njit(cache=True, nogil=True)
def _run(values: Floats, row: int, window: int, minimum: int, new: int, before: Sums, sums: Sums, out: Arrays) -> None:
    """A row's features in out[new:], no more of them than a window is long.

    All their windows hold the first one's newest sample. What each has before that and what from there on are added
    up apart (as van Herk, Pattern Recognition Letters 13, 1992, does for extremes), so that no sample has to be
    given back.
    """
    samples, newest = values[row], out[0].shape[1]
    start, end = samples.size - newest + new, samples.size - newest + min(new + window, newest)
    begin = max(0, start - window + 1)
    shift = _near(samples, begin, end, start)
    _back(samples, begin, start, shift, before)
    sums[SHIFT], sums[NEXT], sums[LAST], sums[LAST_AT] = shift, 0.0, np.nan, 0.0
    for index in range(begin, start):
        if not np.isnan(samples[index]):
            sums[LAST] = samples[index]
    present = count = total = squares = products = times = time_squares = 0.0
    low, high = np.inf, -np.inf
    for index in range(start, end):
        value = np.float64(samples[index])
        counts = abs(value) < np.inf
        distance, time = (value - shift, np.float64(index - start)) if counts else (0.0, 0.0)
        if value == value:
            present += 1.0
            sums[LAST] = value
        count += 1.0 if counts else 0.0
        total += distance
        squares += distance * distance
        products += distance * time
        times += time
        time_squares += time * time
        low, high = value if value < low else low, value if value > high else high
        first = max(0, index - window + 1)
        old = before[first - begin]
        sums[PRESENT], sums[LOW], sums[HIGH] = old[PRESENT] + present, min(old[LOW], low), max(old[HIGH], high)
        sums[COUNT], sums[SUM], sums[SQUARES] = old[COUNT] + count, old[SUM] + total, old[SQUARES] + squares
        sums[PRODUCTS], sums[TIMES] = old[PRODUCTS] + products, old[TIMES] + times
        sums[TIME_SQUARES] = old[TIME_SQUARES] + time_squares
        sums[PEAK] = sums[SQUARES]
        if worn(sums):
            add_up(sums, samples[first : index + 1], 0, window)
        _put(features(sums, window, minimum), out, row, new + index - start)
        sums[SHIFT], sums[NEXT], sums[LAST_AT] = shift, 0.0, 0.0


@njit(cache=True, nogil=True)
def _rows(values: Floats, window: int, minimum: int, out: Arrays, first: int, end: int) -> None:
    """The series first to end."""
    steps, newest = values.shape[1], out[0].shape[1]
    sums, before = np.empty(14), np.empty((min(window, steps), 14))
    for row in range(first, end):
        if newest == 1:
            add_up(sums, values[row, max(0, steps - window) :], 0, window)
            _put(features(sums, window, minimum), out, row, 0)
            continue
        for place in range(0, newest, window):
            _run(values, row, window, minimum, place, before, sums, out)


@njit(cache=True, nogil=True, parallel=True)
def _fill(values: Floats, window: int, minimum: int, out: Arrays) -> None:
    series = values.shape[0]
    for work in prange((series + ROWS - 1) // ROWS):
        _rows(values, window, minimum, out, work * ROWS, min(series, (work + 1) * ROWS))


@njit(cache=True, nogil=True, parallel=True)
def _begin(samples: Floats, sums: Sums) -> None:
    for row in prange(samples.shape[0]):
        add_up(sums[row], samples[row], 0, samples.shape[1])


@njit(cache=True, nogil=True)
def _slide_rows(
    samples: Floats, sums: Sums, oldest: int, newest: Floats, minimum: int, out: Arrays, first: int, end: int
) -> None:
    """One step further for the series first to end."""
    window = samples.shape[1]
    after = (oldest + 1) % window
    for row in range(first, end):
        taken = slide(sums[row], np.float64(samples[row, oldest]), np.float64(newest[row]), window)
        samples[row, oldest] = newest[row]
        # Each step adds up some of the series anew, so that no step has to do it for all.
        if row % window == oldest or worn(sums[row]):
            add_up(sums[row], samples[row], after, window)
        elif taken:
            sums[row, LOW], sums[row, HIGH] = _extremes(samples[row])
        _put(features(sums[row], window, minimum), out, row, 0)


@njit(cache=True, nogil=True, parallel=True)
def _step(samples: Floats, sums: Sums, oldest: int, newest: Floats, minimum: int, out: Arrays) -> None:
    series = samples.shape[0]
    for work in prange((series + ROWS - 1) // ROWS):
        _slide_rows(samples, sums, oldest, newest, minimum, out, work * ROWS, min(series, (work + 1) * ROWS))


def fill(values: Floats, window: int, minimum: int, out: Features) -> None:
    """Compute into `out`, [series, steps]; the arguments are checked and hold at least one series and step."""
    series, newest = out.mean.shape
    threads = 1 + series * (min(window, values.shape[1]) + 8 * newest) // SAMPLES_PER_THREAD
    if threads == 1:
        _rows(values, window, minimum, each(out), 0, series)
        return
    with cores(threads):
        _fill(values, window, minimum, each(out))


def begin(ring: Ring) -> None:
    """The sums of a ring that was just filled."""
    with cores(1 + ring.samples.size // SAMPLES_PER_THREAD):
        _begin(ring.samples, ring.sums)


def step(ring: Ring, newest: Floats, minimum: int, out: Features) -> None:
    """Move the ring on and compute into `out`, [series, 1]."""
    threads = 1 + 16 * newest.size // SAMPLES_PER_THREAD
    if threads == 1:
        _slide_rows(ring.samples, ring.sums, ring.oldest, newest, minimum, each(out), 0, len(newest))
        return
    with cores(threads):
        _step(ring.samples, ring.sums, ring.oldest, newest, minimum, each(out))


def each(out: Features) -> Arrays:
    """The arrays in their order."""
    return out.mean, out.deviation, out.slope, out.low, out.high, out.last, out.missing
