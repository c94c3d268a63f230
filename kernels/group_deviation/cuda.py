# numba.cuda builds its names at import, out of mypy's sight.
# mypy: disable-error-code="attr-defined, no-untyped-call"
"""numba.cuda: a block sorts some columns of one group side by side in shared memory.

A column is one group's values of one signal at one step. Neighbouring threads work on neighbouring
columns, which are neighbouring steps, so that the card reads whole sectors. The searches after the
sort are those of `cpu.py`, compiled for the card.
"""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
from numba import cuda, float32, float64
from numpy.typing import NDArray

from kernels.arrays import Floats, Integers
from kernels.card import Results, on_card, stream
from kernels.group_deviation import cpu
from kernels.group_deviation.arrays import Deviation

THREADS = 256
LANES = 32
TILE_BYTES = 16 * 1024  # leaves room for several blocks on a multiprocessor
SHARED_BYTES = 48 * 1024 - 2 * LANES * 8  # what every card gives a block, less the centres and scales

count_finite = cuda.jit(device=True)(cpu.count_finite.py_func)
middle_value = cuda.jit(device=True)(cpu.middle_value.py_func)
middle_distance = cuda.jit(device=True)(cpu.middle_distance.py_func)
in_spreads = cuda.jit(device=True)(cpu.in_spreads.py_func)


@cuda.jit(device=True)
def sort_columns(rows: Floats, size: int, lanes: int) -> None:
    """Sort every column of the flat [size, lanes] by Batcher's merge exchange, all threads together."""
    lane, first, stride = cuda.threadIdx.x, cuda.threadIdx.y, cuda.blockDim.y
    top = 1
    while 2 * top < size:
        top *= 2
    block = top
    while block > 0:
        span, wanted, distance = top, 0, block
        while True:
            cuda.syncthreads()
            pair = first
            # The rows with `row & block == wanted`, numbered without gaps so that no thread idles.
            row = 2 * pair - (pair & (block - 1)) + wanted
            while row + distance < size:
                low, high = row * lanes + lane, (row + distance) * lanes + lane
                a, b = rows[low], rows[high]
                if b < a:
                    rows[low], rows[high] = b, a
                pair += stride
                row = 2 * pair - (pair & (block - 1)) + wanted
            if span == block:
                break
            distance, span, wanted = span - block, span // 2, block
        block //= 2
    cuda.syncthreads()


@cache
def _kernel(double: bool) -> Callable[..., None]:
    number = float64 if double else float32  # shared arrays want their type when the kernel is compiled

    @cuda.jit
    def fill(
        values: Floats,
        gpus: int,
        steps: int,
        members: Integers,
        offsets: Integers,
        floors: NDArray[np.float64],
        minimum: int,
        median: Floats,
        mad: Floats,
        deviation: Floats,
    ) -> None:
        rows = cuda.shared.array(0, number)
        centres = cuda.shared.array(LANES, float64)
        scales = cuda.shared.array(LANES, float64)
        lane, first, stride = cuda.threadIdx.x, cuda.threadIdx.y, cuda.blockDim.y
        lanes = cuda.blockDim.x
        groups = offsets.size - 1
        group = cuda.blockIdx.x % groups
        start, end = offsets[group], offsets[group + 1]
        size = end - start
        column = cuda.blockIdx.x // groups * lanes + lane
        signal, step = column // steps, column % steps
        inside = signal < floors.size
        origin = signal * gpus * steps + step

        for row in range(first, size, stride):
            rows[row * lanes + lane] = np.inf
            if inside:
                value = values[origin + members[start + row] * steps]
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
                scale = 1.4826 * max(spread, floors[signal])
            centres[lane], scales[lane] = centre, scale
            median[(signal * groups + group) * steps + step] = centre
            mad[(signal * groups + group) * steps + step] = spread
        cuda.syncthreads()

        if inside:
            for slot in range(start + first, end, stride):
                difference = values[origin + members[slot] * steps] - centres[lane]
                target = (signal * members.size + slot) * steps + step
                deviation[target] = in_spreads(difference, scales[lane])

    return fill  # type: ignore[no-any-return]


def columns_of(columns: int, size: int, itemsize: int) -> int:
    """How many columns a block sorts: a power of two, fewer where the groups are large."""
    lanes = 1
    while 2 * lanes <= min(LANES, columns) and 2 * lanes * size * itemsize <= TILE_BYTES:
        lanes *= 2
    return lanes


def fill(
    values: Floats,
    members: Integers,
    offsets: Integers,
    floors: NDArray[np.float64],
    minimum: int,
    out: Deviation,
) -> None:
    """Compute into `out`; the arguments are checked, values are 3-D and the floors one per signal.

    Arrays on the card are used where they lie, NumPy arrays travel there and back.
    """
    if offsets.size == 1:
        return
    signals, gpus, steps = values.shape
    size = max(int((offsets[1:] - offsets[:-1]).max()), 1)
    largest = SHARED_BYTES // values.dtype.itemsize
    if size > largest:
        raise ValueError(f"a group of {size} members does not fit on the card: at most {largest} {values.dtype}")
    lanes = columns_of(signals * steps, size, values.dtype.itemsize)
    stride = max(1, min(size // 2, THREADS // lanes))
    blocks = (offsets.size - 1) * math.ceil(signals * steps / lanes)
    results = Results.of(*(array.reshape(-1) for array in (out.median, out.mad, out.deviation)))
    _kernel(values.dtype == np.float64)[  # type: ignore[index]
        blocks, (lanes, stride), stream(), lanes * size * values.dtype.itemsize
    ](
        on_card(values.reshape(-1)),
        gpus,
        steps,
        on_card(members),
        on_card(offsets),
        on_card(floors),
        minimum,
        *results.there,
    )
    results.fetch()
