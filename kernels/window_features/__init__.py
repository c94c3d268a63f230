"""Mean, deviation, slope, extremes, last sample and missing share of a sliding window."""

from dataclasses import fields, replace

import numpy as np

from kernels.arrays import Floats, check_floats, check_positive, check_results, check_series, module_of, version
from kernels.window_features.arrays import Features, Ring

__all__ = ["Features", "Ring", "window_features", "window_ring", "window_step"]


def window_features(
    values: Floats, window: int, *, steps: int | None = None, minimum: int = 1, out: Features | None = None
) -> Features:
    """The features of the window that ends at each of the newest steps.

    mean, deviation (of the population), slope (least squares, per step), low, high, last (the newest
    sample that is there) and missing (absent samples over the window's length).

    Shapes:
        values: float32 or float64 [series, steps] or [signals, gpus, steps], with any strides.
        window: samples that a feature looks back on, its own included. What lies before the first
            sample is absent, so that a window may be longer than the series.
        steps: how many of the newest steps to answer for, 1 in live use; all of them unless given.
        minimum: with fewer finite samples, mean, deviation and slope are NaN.
        out: arrays to write into, C-contiguous [series, steps] or [signals, gpus, steps].

    NaN is an absent sample: it is left out, and a window without any sample is NaN but for `missing`.
    An infinite sample is there, as `low`, `high` or `last`; the finite ones alone make mean, deviation
    and slope. A slope needs two of them.

    The sums are float64 about a sample of the window (Chan, Golub and LeVeque, The American Statistician
    37, 1983), so that a large offset costs no digits; squares overflow beyond 1e150.

    The results have the dtype of the values and lie where they lie. Raises TypeError for a wrong dtype
    and ValueError for a wrong shape, window, number of steps or minimum.
    """
    module = module_of(values)
    check_series(values)
    check_positive(window, "window", "step")
    check_positive(minimum, "minimum", "sample")
    newest = values.shape[-1] if steps is None else steps
    if not 0 <= newest <= values.shape[-1]:
        raise ValueError(f"steps must be 0 to the {values.shape[-1]} that values hold, got {newest}")
    shape = (*values.shape[:-1], newest)
    if out is None:
        out = Features(*module.empty((7, *shape), dtype=values.dtype))
    else:
        check_results(out, 7 * (shape,), values)
    if out.mean.size:
        flat = out if values.ndim == 2 else _flat(out, newest)
        series = values if values.ndim == 2 else values.reshape(-1, values.shape[-1])
        version("window_features", module).fill(series, window, minimum, flat)
    return out


def window_ring(values: Floats, window: int) -> Ring:
    """The state of a stream of steps: the newest `window` steps of a history, which may be shorter or empty.

    values: float32 or float64 [series, steps]; they are copied.
    """
    module = module_of(values)
    check_floats(values)
    check_positive(window, "window", "step")
    if values.ndim != 2:
        raise ValueError(f"values must be [series, steps], got shape {values.shape}")
    kept = min(window, values.shape[1])
    samples = module.full((values.shape[0], window), np.nan, dtype=values.dtype)
    samples[:, window - kept :] = values[:, values.shape[1] - kept :]
    ring = Ring(samples, module.zeros((values.shape[0], 14)), 0)
    if len(samples):
        version("window_features", module).begin(ring)
    return ring


def window_step(ring: Ring, newest: Floats, *, minimum: int = 1, out: Features | None = None) -> tuple[Features, Ring]:
    """One step further: the features of the window that ends at `newest`, and the ring that holds it.

    newest: [series], of the ring's dtype, NaN where nothing arrived → features [series], as
    `window_features` has them. The old ring's memory passes to the new one: use the old one no more.
    A sample that comes late changes the past: make the ring anew with `window_ring`.
    """
    module = module_of(newest, "newest")
    check_positive(minimum, "minimum", "sample")
    series = ring.samples.shape[:1]
    if type(newest) is not type(ring.samples) or newest.dtype != ring.samples.dtype or newest.shape != series:
        raise ValueError(
            f"newest must be {ring.samples.dtype} {series} where the ring lies, got {newest.dtype} {newest.shape}"
        )
    if out is None:
        out = Features(*module.empty((7, *series), dtype=newest.dtype))
    else:
        check_results(out, 7 * (series,), newest)
    if newest.size:
        version("window_features", module).step(ring, newest, minimum, _flat(out, 1))
    return out, replace(ring, oldest=(ring.oldest + 1) % ring.window)


def _flat(features: Features, steps: int) -> Features:
    """The same memory as [series, steps]."""
    return Features(*(getattr(features, field.name).reshape(-1, steps) for field in fields(features)))
