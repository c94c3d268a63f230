# numba.cuda builds its names at import, out of mypy's sight.
# mypy: disable-error-code="attr-defined, no-untyped-call"
"""numba.cuda: a block takes some series; tiles of them are read and written along the steps and scanned by series."""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
from numba import cuda, float32, float64, int8
from numpy.typing import NDArray

from kernels.arrays import Floats
from kernels.card import Results, on_card, stream
from kernels.change_scan import cpu
from kernels.change_scan.arrays import Changes, Standing

TILE = 32  # series and steps
HELPERS = 8  # rows of threads that read and write

_advance = cuda.jit(device=True)(cpu.advance.py_func)
_bounded = cuda.jit(device=True)(cpu.bounded.py_func)


@cache
def _kernel(double: bool) -> Callable[..., None]:
    number = float64 if double else float32  # shared arrays want their type and size when the kernel is compiled
    tile, padded = TILE, TILE + 1  # the padding keeps threads of one column out of one bank

    @cuda.jit
    def fill(
        values: Floats,
        restart: NDArray[np.bool_],
        drift: float,
        threshold: float,
        smoothing: float,
        bound: float,
        highs: NDArray[np.float64],
        lows: NDArray[np.float64],
        means: NDArray[np.float64],
        high: Floats,
        low: Floats,
        mean: Floats,
        alarm: NDArray[np.int8],
    ) -> None:
        found = cuda.shared.array((3, tile, padded), number)
        sides = cuda.shared.array((tile, padded), int8)
        lane, helper, helpers = cuda.threadIdx.x, cuda.threadIdx.y, cuda.blockDim.y
        series, steps = values.shape
        top = cuda.blockIdx.x * tile
        mine = top + lane
        scans = helper == 0 and mine < series
        above, below, level = 0.0, 0.0, 0.0
        if scans:
            above, below, level = highs[mine], lows[mine], means[mine]
        for start in range(0, steps, tile):
            step = start + lane
            for row in range(helper, tile, helpers):
                if top + row < series and step < steps:
                    found[0, row, lane] = values[top + row, step]
            cuda.syncthreads()
            if scans:
                for place in range(min(tile, steps - start)):
                    if restart.shape[0] > 0 and restart[mine, start + place]:
                        above, below, level = 0.0, 0.0, 0.0
                    sample = _bounded(float64(found[0, lane, place]), bound)
                    above, below, level = _advance(above, below, level, sample, drift, smoothing)
                    found[0, lane, place] = above
                    found[1, lane, place] = below
                    found[2, lane, place] = level
                    side = 1 if above > threshold else -1 if below > threshold else 0
                    sides[lane, place] = side
                    if side != 0:
                        above, below = 0.0, 0.0
            cuda.syncthreads()
            for row in range(helper, tile, helpers):
                if top + row < series and step < steps:
                    high[top + row, step] = found[0, row, lane]
                    low[top + row, step] = found[1, row, lane]
                    mean[top + row, step] = found[2, row, lane]
                    alarm[top + row, step] = sides[row, lane]
            cuda.syncthreads()
        if scans:
            highs[mine], lows[mine], means[mine] = above, below, level

    return fill  # type: ignore[no-any-return]


def fill(
    values: Floats,
    restart: NDArray[np.bool_],
    parameters: tuple[float, float, float, float],
    standing: Standing,
    out: Changes,
) -> None:
    """Compute into `out` and move `standing` on; the arguments are checked and hold at least one series and step.

    Arrays on the card are used where they lie, NumPy arrays travel there and back.
    """
    results = Results.of(standing.high, standing.low, standing.mean, out.high, out.low, out.mean, out.alarm)
    _kernel(values.dtype == np.float64)[  # type: ignore[index]
        math.ceil(len(values) / TILE), (TILE, HELPERS), stream()
    ](on_card(values), on_card(restart), *parameters, *results.there)
    results.fetch()
