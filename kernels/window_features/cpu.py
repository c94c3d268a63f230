"""Numba on all cores.

A ring slides by taking a sample in and giving one back; it is added up anew once per window's length.
"""

import numpy as np
from numba import njit, prange

from kernels.arrays import Floats
from kernels.cores import cores
from kernels.window_features.arrays import Arrays, Features, Ring, each
from kernels.window_features.sliding import every_step
from kernels.window_features.sums import HIGH, LOW, Seven, Sums, add_up, extremes, features, slide, worn

ROWS = 32  # series that a thread takes at once
SAMPLES_PER_THREAD = 131_072  # some 400 µs: on a busy machine, waiting for a second thread costs milliseconds


@njit(cache=True, nogil=True)
def _put(found: Seven, out: Arrays, row: int, place: int) -> None:
    mean, deviation, slope, low, high, last, missing = out
    mean[row, place], deviation[row, place], slope[row, place] = found[0], found[1], found[2]
    low[row, place], high[row, place], last[row, place], missing[row, place] = found[3], found[4], found[5], found[6]


@njit(cache=True, nogil=True)
def _rows(values: Floats, window: int, minimum: int, out: Arrays, first: int, end: int) -> None:
    """The series first to end."""
    steps, newest = values.shape[1], out[0].shape[1]
    if newest > 1:
        every_step(values, window, minimum, out, first, end)
        return
    sums = np.empty(14)
    for row in range(first, end):
        add_up(sums, values[row, max(0, steps - window) :], 0, window)
        _put(features(sums, window, minimum), out, row, 0)


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
            sums[row, LOW], sums[row, HIGH] = extremes(samples[row])
        _put(features(sums[row], window, minimum), out, row, 0)


@njit(cache=True, nogil=True, parallel=True)
def _step(samples: Floats, sums: Sums, oldest: int, newest: Floats, minimum: int, out: Arrays) -> None:
    series = samples.shape[0]
    for work in prange((series + ROWS - 1) // ROWS):
        _slide_rows(samples, sums, oldest, newest, minimum, out, work * ROWS, min(series, (work + 1) * ROWS))


def fill(values: Floats, window: int, minimum: int, out: Features) -> None:
    """Compute into `out`, [series, steps]; the arguments are checked and hold at least one series and step."""
    series, newest = out.mean.shape
    threads = 1 + series * (min(window, values.shape[1]) + 3 * newest) // SAMPLES_PER_THREAD
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
