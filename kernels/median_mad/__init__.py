"""How far each series is from its own recent past, by median and median absolute deviation."""

from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from kernels.arrays import Floats, check_positive, check_results, check_series, module_of, version
from kernels.median_mad.arrays import History

__all__ = ["History", "median_mad"]


def median_mad(
    values: Floats,
    window: int,
    *,
    steps: int | None = None,
    floor: float | NDArray[np.float64] = 0.0,
    minimum: int = 3,
    out: History | None = None,
) -> History:
    """Median and mad of the window that ends at each of the newest steps, and the step's deviation from them.

        deviation = (value - median) / (1.4826 * max(mad, floor))

    with the median and the median absolute deviation (mad) of the window; the median of an even count is
    the mean of the two middle values. 1.4826 makes the mad a standard deviation where the values are
    normal (Rousseeuw and Croux, JASA 88, 1993).

    Shapes and units:
        values: float32 or float64 [series, steps] or [signals, gpus, steps], with any strides.
        window: samples that are looked back on, the step's own included. What lies before the first
            sample is absent, so that a window may be longer than the series.
        steps: how many of the newest steps to answer for, 1 in live use; all of them unless given.
        floor: the least spread to divide by, in the signal's unit (its sensor's resolution), one number
            or an array that broadcasts to the values without their steps: [signals, 1] for one per signal.
        minimum: windows with fewer finite samples have no opinion: NaN throughout.
        out: arrays to write into, C-contiguous [series, steps] or [signals, gpus, steps].

    NaN is an absent sample: it is not counted and its deviation is NaN. An infinite one is not counted
    either, and its deviation is that infinity. With neither spread nor floor, a value at the median
    deviates by 0 and any other by plus or minus infinity.

    The arithmetic is float64, the results have the dtype of the values and lie where they lie. On a card
    a window has at most 12,160 samples of float32 and 6,080 of float64. Raises TypeError for a wrong
    dtype and ValueError for a wrong shape, window, number of steps, floor or minimum.
    """
    module = module_of(values)
    check_series(values)
    check_positive(window, "window", "step")
    check_positive(minimum, "minimum", "sample")
    newest = values.shape[-1] if steps is None else steps
    if not 0 <= newest <= values.shape[-1]:
        raise ValueError(f"steps must be 0 to the {values.shape[-1]} that values hold, got {newest}")
    floors = _floors(floor, values.shape[:-1])
    shape = (*values.shape[:-1], newest)
    if out is None:
        out = History(*module.empty((3, *shape), dtype=values.dtype))
    else:
        check_results(out, 3 * (shape,), values)
    if out.median.size:
        series = values.reshape(-1, values.shape[-1])
        flat = History(*(getattr(out, field.name).reshape(-1, newest) for field in fields(out)))
        version("median_mad", module).fill(series, window, floors, minimum, flat)
    return out


def _floors(floor: float | NDArray[np.float64], shape: tuple[int, ...]) -> NDArray[np.float64]:
    """The floor of every series."""
    given = np.asarray(floor, dtype=np.float64)
    if given.size and not (given.min() >= 0 and given.max() < np.inf):
        wrong = ~((given >= 0) & (given < np.inf))
        raise ValueError(f"floor must be finite and not negative, got {given[wrong].flat[0]}")
    floors = np.empty(shape)
    try:
        floors[...] = given
    except ValueError as error:
        raise ValueError(f"floor must broadcast to {shape}, got shape {given.shape}") from error
    return floors.ravel()
