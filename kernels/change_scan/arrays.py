"""What a scan for changes finds at each step, and where it stands after the last."""

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.arrays import Floats


@dataclass(frozen=True, slots=True, eq=False)
class Standing:
    """Where the scan of every series stands, float64 [series] or [signals, gpus] each."""

    high: NDArray[np.float64]
    low: NDArray[np.float64]
    mean: NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Changes:
    """After each step, of the values' shape and in their unit.

    `high` and `low`: how much came together above and below; `mean`: the exponential mean; `alarm`: int8,
    1 where `high` passed the threshold, -1 where `low` did, else 0.
    """

    high: Floats
    low: Floats
    mean: Floats
    alarm: NDArray[np.int8]
