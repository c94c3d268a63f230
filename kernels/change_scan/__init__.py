"""Lasting changes of level: cumulative sums to both sides and an exponential mean."""

from dataclasses import fields

import numpy as np
from numpy.typing import NDArray

from kernels.arrays import Floats, check_results, check_series, module_of, version
from kernels.change_scan.arrays import Changes, Standing

__all__ = ["Changes", "Standing", "change_scan"]


def change_scan(
    values: Floats,
    *,
    drift: float = 0.5,
    threshold: float = np.inf,
    smoothing: float = 0.2,
    bound: float = np.inf,
    restart: NDArray[np.bool_] | None = None,
    standing: Standing | None = None,
    out: Changes | None = None,
) -> tuple[Changes, Standing]:
    """Two-sided CUSUM (Page, Biometrika 41, 1954) and EWMA (Roberts, Technometrics 1, 1959) of every series.

        high = max(0, high + value - drift)      an alarm and 0 again once it is above the threshold
        low  = max(0, low - value - drift)       likewise
        mean = mean + smoothing * (value - mean)

    Shapes and units:
        values: float32 or float64 [series, steps] or [signals, gpus, steps], with any strides; how far each
            sample is from where it should be, in units of its spread.
        drift: what a sample may be off by without counting, in the values' unit, like the next two.
        threshold: above it a sum is an alarm, and both sums begin anew at the next step.
        smoothing: the newest sample's weight in the mean, above 0 and up to 1.
        bound: a sample counts for no more than this, so that one wild one is no change.
        restart: bool of the values' shape, True where all begins anew before the sample (a job started).
        standing: where to go on from; zeros unless given. Steps one by one, each with the standing that
            the one before returned, give exactly what all of them at once do.
        out: arrays to write into, C-contiguous, of the values' shape.

    NaN is an absent sample and leaves everything as it is. An infinite one counts as the bound, or, where
    that is infinite too, is left out.

    The sums are float64, what is found has the dtype of the values and lies where they lie. Raises
    TypeError for a wrong dtype and ValueError for a wrong shape or parameter.
    """
    module = module_of(values)
    check_series(values)
    _check_parameters(drift, threshold, smoothing, bound)
    series = values.shape[:-1]
    if restart is not None and (module_of(restart, "restart") is not module or restart.dtype.name != "bool"):
        raise TypeError(f"restart must be bool and lie where values lie, got {restart.dtype}")
    if restart is not None and restart.shape != values.shape:
        raise ValueError(f"restart must have the values' shape {values.shape}, got {restart.shape}")
    if standing is None:
        standing = Standing(*module.zeros((3, *series)))
    else:
        _check_standing(standing, values)
        standing = Standing(standing.high.copy(), standing.low.copy(), standing.mean.copy())
    if out is None:
        high, low, mean = module.empty((3, *values.shape), values.dtype)
        out = Changes(high, low, mean, module.empty(values.shape, np.int8))
    else:
        check_results(out, 3 * (values.shape,), values)
        if out.alarm.dtype.name != "int8" or out.alarm.shape != values.shape or not out.alarm.flags.c_contiguous:
            raise ValueError(
                f"out.alarm must be C-contiguous int8 {values.shape}, got {out.alarm.dtype} {out.alarm.shape}"
            )
    if values.size:
        steps = values.shape[-1]
        version("change_scan", module).fill(
            values.reshape(-1, steps),
            module.empty((0, steps), np.bool_) if restart is None else restart.reshape(-1, steps),
            (float(drift), float(threshold), float(smoothing), float(bound)),
            Standing(*(getattr(standing, field.name).reshape(-1) for field in fields(standing))),
            Changes(*(getattr(out, field.name).reshape(-1, steps) for field in fields(out))),
        )
    return out, standing


def _check_parameters(drift: float, threshold: float, smoothing: float, bound: float) -> None:
    if not 0 <= drift < np.inf:
        raise ValueError(f"drift must be finite and not negative, got {drift}")
    if not threshold > 0:
        raise ValueError(f"threshold must be positive, got {threshold}")
    if not 0 < smoothing <= 1:
        raise ValueError(f"smoothing must be above 0 and up to 1, got {smoothing}")
    if not bound > 0:
        raise ValueError(f"bound must be positive, got {bound}")


def _check_standing(standing: Standing, values: Floats) -> None:
    for field in fields(standing):
        array = getattr(standing, field.name)
        if type(array) is not type(values):
            raise TypeError(f"standing.{field.name} must lie where values lie, got {type(array).__name__}")
        if array.dtype.name != "float64" or array.shape != values.shape[:-1]:
            raise ValueError(
                f"standing.{field.name} must be float64 {values.shape[:-1]}, got {array.dtype} {array.shape}"
            )
