"""What a window is reduced to, and the ring that a stream of steps is kept in."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.arrays import Floats


@dataclass(frozen=True, slots=True, eq=False)
class Features:
    """The features of the window that ends at each step, each of the values' shape but for the number of steps.

    `mean`, `deviation`, `low`, `high` and `last` are in the signal's unit, `slope` in the unit per step,
    `missing` is a share of the window, 0 to 1.
    """

    mean: Floats
    deviation: Floats
    slope: Floats
    low: Floats
    high: Floats
    last: Floats
    missing: Floats


Arrays = tuple[Floats, Floats, Floats, Floats, Floats, Floats, Floats]


def each(features: Features) -> Arrays:
    """The arrays in their order."""
    return (
        features.mean,
        features.deviation,
        features.slope,
        features.low,
        features.high,
        features.last,
        features.missing,
    )


@dataclass(frozen=True, slots=True, eq=False)
class Ring:
    """The newest `window` samples of every series and their sums, which a step brings up to date in place.

    samples: [series, window], the oldest at `oldest`; sums: float64 [series, 14].
    """

    samples: Floats
    sums: NDArray[np.float64]
    oldest: int

    @property
    def window(self) -> int:
        return int(self.samples.shape[1])
