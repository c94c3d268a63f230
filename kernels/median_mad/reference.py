"""The definition, in NumPy and float64: what the fast versions are held against."""

import warnings

import numpy as np
from numpy.typing import NDArray

from kernels.arrays import Floats
from kernels.median_mad.arrays import History

CONSISTENCY = 1.4826


def median_mad(
    values: Floats,
    window: int,
    *,
    steps: int | None = None,
    floor: float | NDArray[np.float64] = 0.0,
    minimum: int = 3,
) -> History:
    """Arguments, results and formula as for `kernels.median_mad`; the results are float64."""
    samples = values.astype(np.float64)
    newest = values.shape[-1] if steps is None else steps
    floors = np.broadcast_to(np.asarray(floor, dtype=np.float64), values.shape[:-1])
    found = np.full((3, *values.shape[:-1], newest), np.nan)
    for place in range(newest):
        end = values.shape[-1] - newest + place + 1
        found[..., place] = _reduce(samples[..., max(0, end - window) : end], floors, minimum)
    return History(*found)


def _reduce(samples: Floats, floors: NDArray[np.float64], minimum: int) -> Floats:
    """[..., steps] → [3, ...]."""
    counted = np.where(np.isfinite(samples), samples, np.nan)
    enough = np.isfinite(samples).sum(axis=-1) >= minimum
    with np.errstate(divide="ignore", invalid="ignore"), warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of a window without samples
        median = np.where(enough, np.nanmedian(counted, axis=-1), np.nan)
        mad = np.where(enough, np.nanmedian(np.abs(counted - median[..., np.newaxis]), axis=-1), np.nan)
        difference = samples[..., -1] - median
        ratio = difference / (CONSISTENCY * np.maximum(mad, floors))
    return np.stack([median, mad, np.where(difference == 0, 0, ratio)])
