"""The definition, in NumPy and float64: what the fast versions are held against."""

import numpy as np

from kernels.arrays import Floats
from kernels.tail_fit.arrays import Tail


def tail_fit(
    values: Floats,
    start: float | Floats = 0.0,
    *,
    lightest: float = -0.5,
    heaviest: float = 0.5,
    minimum: int = 5,
) -> Tail:
    """Arguments, results and formula as for `kernels.tail_fit`; the results are float64."""
    series = len(values)
    starts = np.broadcast_to(np.asarray(start, np.float64), series)
    shape, scale, share = (np.full(series, np.nan) for _ in range(3))
    count = np.zeros(series, np.int32)
    for index, row in enumerate(values.astype(np.float64)):
        present = row[np.isfinite(row)]
        above = present[present > starts[index]] if np.isfinite(starts[index]) else present[:0]
        excess = np.sort(above - starts[index])
        count[index] = n = len(excess)
        share[index] = n / len(present) if len(present) else np.nan
        if n < minimum:
            continue
        mean = excess.mean()
        rank = np.arange(1, n)
        difference = (rank * (n - rank) * np.diff(excess)).sum() / (n * (n - 1))
        shape[index] = np.clip(2 - mean / difference, lightest, heaviest) if difference > 0 else lightest
        scale[index] = mean * (1 - shape[index])
        shape[index] = max(shape[index], -scale[index] / excess[-1])
    return Tail(shape, scale, count, share)
