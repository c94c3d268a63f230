# numba.cuda builds its names at import, out of mypy's sight.
# mypy: disable-error-code="attr-defined, no-untyped-call"
"""numba.cuda: a block sorts some windows side by side in shared memory, as for the medians of groups."""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
from numba import cuda, float32, float64
from numpy.typing import NDArray

from kernels.arrays import Floats
from kernels.card import Results, on_card, stream
from kernels.group_deviation.cuda import (
    SHARED_BYTES,
    columns_of,
    count_finite,
    in_spreads,
    middle_distance,
    middle_value,
    sort_columns,
)
from kernels.median_mad.arrays import History

THREADS = 256


@cache
def _kernel(double: bool) -> Callable[..., None]:
    number = float64 if double else float32  # shared arrays want their type when the kernel is compiled

    @cuda.jit
    def fill(
        values: Floats,
        size: int,
        floors: NDArray[np.float64],
        minimum: int,
        median: Floats,
        mad: Floats,
        deviation: Floats,
    ) -> None:
        rows = cuda.shared.array(0, number)
        lane, first, stride, lanes = cuda.threadIdx.x, cuda.threadIdx.y, cuda.blockDim.y, cuda.blockDim.x
        newest = median.shape[1]
        column = cuda.blockIdx.x * lanes + lane
        series, place = column // newest, column % newest
        inside = series < values.shape[0]
        step = values.shape[1] - newest + place
        for row in range(first, size, stride):
            rows[row * lanes + lane] = np.inf
            if inside and row <= step:
                value = values[series, step - row]
                if abs(value) < np.inf:
                    rows[row * lanes + lane] = value
        sort_columns(rows, size, lanes)

        if first == 0 and inside:
            centre, spread, scale = np.nan, np.nan, np.nan
            ascending = rows[lane : size * lanes : lanes]
            count = count_finite(ascending)
            if count >= minimum:
                centre = middle_value(ascending, count)
                spread = middle_distance(ascending, count, centre)
                scale = 1.4826 * max(spread, floors[series])
            median[series, place], mad[series, place] = centre, spread
            deviation[series, place] = in_spreads(values[series, step] - centre, scale)

    return fill  # type: ignore[no-any-return]


def fill(values: Floats, window: int, floors: NDArray[np.float64], minimum: int, out: History) -> None:
    """Compute into `out`, [series, steps]; the arguments are checked and hold at least one series and step.

    Arrays on the card are used where they lie, NumPy arrays travel there and back.
    """
    itemsize = values.dtype.itemsize
    size, largest = min(window, values.shape[1]), SHARED_BYTES // itemsize
    if size > largest:
        raise ValueError(f"a window of {size} samples does not fit on the card: at most {largest} {values.dtype}")
    columns = out.median.size
    lanes = columns_of(columns, size, itemsize)
    stride = max(1, min(size // 2, THREADS // lanes))
    results = Results.of(out.median, out.mad, out.deviation)
    _kernel(values.dtype == np.float64)[  # type: ignore[index]
        math.ceil(columns / lanes), (lanes, stride), stream(), lanes * size * itemsize
    ](on_card(values), size, on_card(floors), minimum, *results.there)
    results.fetch()
