"""The definition, in NumPy and float64: what the fast versions are held against."""

import warnings

import numpy as np

from kernels.arrays import Floats
from kernels.window_features.arrays import Features


def window_features(values: Floats, window: int, *, steps: int | None = None, minimum: int = 1) -> Features:
    """Arguments and results as for `kernels.window_features`; the results are float64."""
    newest = values.shape[-1] if steps is None else steps
    ends = range(values.shape[-1] - newest + 1, values.shape[-1] + 1)
    found = [_reduce(values[..., max(0, end - window) : end].astype(np.float64), window, minimum) for end in ends]
    empty = np.empty((7, *values.shape[:-1], 0))
    return Features(*(np.stack(found, axis=-1) if found else empty))


def _reduce(samples: Floats, window: int, minimum: int) -> Floats:
    """[..., steps] → [7, ...]."""
    counted = np.isfinite(samples)
    count = counted.sum(axis=-1)
    present = (~np.isnan(samples)).sum(axis=-1)
    last = np.full(samples.shape[:-1], np.nan)
    for step in range(samples.shape[-1]):
        last = np.where(np.isnan(samples[..., step]), last, samples[..., step])
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a window without samples
        low, high = np.nanmin(samples, axis=-1), np.nanmax(samples, axis=-1)
        mean = np.where(counted, samples, 0).sum(axis=-1) / count
        distance = np.where(counted, samples - mean[..., np.newaxis], 0)
        deviation = np.sqrt((distance**2).sum(axis=-1) / count)
        times = np.arange(samples.shape[-1], dtype=np.float64)
        middle = np.where(counted, times, 0).sum(axis=-1) / count
        passed = np.where(counted, times - middle[..., np.newaxis], 0)
        slope = (distance * passed).sum(axis=-1) / (passed**2).sum(axis=-1)
    mean, deviation, slope = (np.where(count >= minimum, each, np.nan) for each in (mean, deviation, slope))
    return np.stack([mean, deviation, slope, low, high, last, 1 - present / window])
