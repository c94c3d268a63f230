"""Numba on all cores: a series after the other, whose sums stay in registers."""

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from kernels.arrays import Floats
from kernels.change_scan.arrays import Changes, Standing
from kernels.cores import cores

SAMPLES_PER_THREAD = 131_072  # some 400 µs: on a busy machine, waiting for a second thread costs milliseconds


@njit(cache=True, nogil=True)
def bounded(sample: float, bound: float) -> float:
    """NaN stays NaN."""
    return bound if sample > bound else -bound if sample < -bound else sample


@njit(cache=True, nogil=True)
def advance(
    high: float, low: float, mean: float, sample: float, drift: float, smoothing: float
) -> tuple[float, float, float]:
    """The sums and the mean after one more sample, already bounded; one that is not finite changes nothing."""
    counts = abs(sample) < np.inf
    above, below = high + sample - drift, low - sample - drift
    moved = mean + smoothing * (sample - mean)
    above, below = above if above > 0.0 else 0.0, below if below > 0.0 else 0.0
    return (above, below, moved) if counts else (high, low, mean)


@njit(cache=True, nogil=True, parallel=True)
def _fill(
    values: Floats,
    restart: NDArray[np.bool_],
    drift: float,
    threshold: float,
    smoothing: float,
    bound: float,
    highs: NDArray[np.float64],
    lows: NDArray[np.float64],
    means: NDArray[np.float64],
    high: Floats,
    low: Floats,
    mean: Floats,
    alarm: NDArray[np.int8],
) -> None:
    series, steps = values.shape
    anew = restart.size > 0
    for row in prange(series):
        above, below, level = highs[row], lows[row], means[row]
        for step in range(steps):
            if anew and restart[row, step]:
                above = below = level = 0.0
            sample = bounded(float(values[row, step]), bound)
            above, below, level = advance(above, below, level, sample, drift, smoothing)
            high[row, step], low[row, step], mean[row, step] = above, below, level
            side = 1 if above > threshold else -1 if below > threshold else 0
            alarm[row, step] = side
            if side != 0:
                above = below = 0.0
        highs[row], lows[row], means[row] = above, below, level


def fill(
    values: Floats,
    restart: NDArray[np.bool_],
    parameters: tuple[float, float, float, float],
    standing: Standing,
    out: Changes,
) -> None:
    """Compute into `out` and move `standing` on; the arguments are checked and hold at least one series and step.

    values: [series, steps]; restart: the same or empty; parameters: drift, threshold, smoothing, bound.
    """
    with cores(1 + values.size // SAMPLES_PER_THREAD):
        _fill(
            values,
            restart,
            *parameters,
            standing.high,
            standing.low,
            standing.mean,
            out.high,
            out.low,
            out.mean,
            out.alarm,
        )
