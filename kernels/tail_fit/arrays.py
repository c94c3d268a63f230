"""The arrays that go in and come out of a tail fit, and a clear error where one does not fit."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.arrays import Floats, check_floats


@dataclass(frozen=True, slots=True, eq=False)
class Tail:
    """The generalised Pareto distribution of each series' excesses over its start, arrays of [series].

    chance that an excess is greater than y: (1 + shape * y / scale) ** (-1 / shape); exp(-y / scale) for shape 0

    `shape` has no unit, `scale` that of the values; both NaN where too few excesses were there to fit.
    `count` (int32) is how many there were, `share` their share of the present values, NaN where none was present.
    """

    shape: Floats
    scale: Floats
    count: NDArray[np.int32]
    share: Floats


def check_values(values: Floats) -> None:
    check_floats(values)
    if values.ndim != 2:
        raise ValueError(f"values must be [series, values], got shape {values.shape}")
    if not values.flags.c_contiguous:
        raise ValueError(f"values must be C-contiguous, got strides {values.strides} for shape {values.shape}")


def check_start(start: float | Floats, series: int) -> None:
    if np.shape(start) not in ((), (series,)):
        raise ValueError(f"start must be one number or one per series [{series}], got shape {np.shape(start)}")


def check_limits(lightest: float, heaviest: float, minimum: int) -> None:
    if not -np.inf < lightest <= 0 <= heaviest < 1:
        raise ValueError(f"shapes must lie between lightest <= 0 and 0 <= heaviest < 1, got {lightest} and {heaviest}")
    if minimum < 2:
        raise ValueError(f"minimum must be at least 2 excesses, got {minimum}")
