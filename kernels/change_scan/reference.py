"""The definition, in NumPy and float64: what the fast versions are held against."""

import numpy as np
from numpy.typing import NDArray

from kernels.arrays import Floats
from kernels.change_scan.arrays import Changes, Standing


def change_scan(
    values: Floats,
    *,
    drift: float = 0.5,
    threshold: float = np.inf,
    smoothing: float = 0.2,
    bound: float = np.inf,
    restart: NDArray[np.bool_] | None = None,
    standing: Standing | None = None,
) -> tuple[Changes, Standing]:
    """Arguments and results as for `kernels.change_scan`; the results are float64."""
    zero = np.zeros(values.shape[:-1])
    high, low, mean = (zero, zero, zero) if standing is None else (standing.high, standing.low, standing.mean)
    found = [np.empty(values.shape) for _ in range(3)]
    alarm = np.zeros(values.shape, np.int8)
    for step in range(values.shape[-1]):
        sample = np.clip(values[..., step].astype(np.float64), -bound, bound)
        if restart is not None:
            high, low, mean = (np.where(restart[..., step], 0, each) for each in (high, low, mean))
        with np.errstate(invalid="ignore"):
            counts = np.isfinite(sample)
            high = np.where(counts, np.maximum(high + sample - drift, 0), high)
            low = np.where(counts, np.maximum(low - sample - drift, 0), low)
            mean = np.where(counts, mean + smoothing * (sample - mean), mean)
        for array, now in zip(found, (high, low, mean), strict=True):
            array[..., step] = now
        alarm[..., step] = np.where(high > threshold, 1, np.where(low > threshold, -1, 0))
        high, low = (np.where(alarm[..., step] == 0, each, 0) for each in (high, low))
    return Changes(found[0], found[1], found[2], alarm), Standing(high, low, mean)
