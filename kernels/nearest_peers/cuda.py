# numba.cuda builds its names at import, out of mypy's sight.
# mypy: disable-error-code="attr-defined, no-untyped-call"
"""cuBLAS for a block of distances, numba.cuda to pick from it while it is in the card's cache."""

from collections.abc import Callable
from functools import cache

import numpy as np
from numba import cuda, float32, float64, int32
from numpy.typing import NDArray

from kernels.arrays import Floats, module_of
from kernels.card import Results, on_card, stream
from kernels.nearest_peers import cpu
from kernels.nearest_peers.arrays import MOST, SPARE, Peers, factors

THREADS = 64
BLOCK = 2048  # rows and columns: 16 MiB in float32

_insert = cuda.jit(device=True)(cpu.insert.py_func)


@cache
def _pick(double: bool, threads: int) -> Callable[..., None]:
    number = float64 if double else float32  # shared arrays want their type and size when the kernel is compiled

    @cuda.jit
    def pick(block: Floats, top: int, left: int, squares: Floats, candidates: NDArray[np.int32]) -> None:
        """A block of threads for each row of the block of distances: what is near enough is put in by the first."""
        near = cuda.shared.array(threads, number)
        place = cuda.shared.array(threads, int32)
        count = cuda.shared.array(1, int32)
        row, thread = cuda.blockIdx.x, cuda.threadIdx.x
        own, width = top + row, block.shape[1]
        if thread == 0:
            count[0] = 0
        cuda.syncthreads()
        for begin in range(0, width, threads):
            column = begin + thread
            if column < width and left + column != own and block[row, column] < squares[own, -1]:
                slot = cuda.atomic.add(count, 0, 1)
                near[slot], place[slot] = block[row, column], left + column
            cuda.syncthreads()
            if thread == 0:
                for slot in range(count[0]):
                    if near[slot] < squares[own, -1]:
                        _insert(near[slot], place[slot], squares[own], candidates[own])
                count[0] = 0
            cuda.syncthreads()

    return pick  # type: ignore[no-any-return]


@cuda.jit
def _rank(
    placed: NDArray[np.float64],
    rows: NDArray[np.int64],
    candidates: NDArray[np.int32],
    half: bool,
    index: NDArray[np.int32],
    distance: Floats,
) -> None:
    """A block of threads for each row measures its candidates without rounding; the first keeps the nearest."""
    squares = cuda.shared.array(MOST + SPARE, float64)
    own, thread = cuda.blockIdx.x, cuda.threadIdx.x
    count = candidates.shape[1]
    for place in range(thread, count, cuda.blockDim.x):
        square = float64(0)
        for feature in range(placed.shape[1]):
            difference = placed[own, feature] - placed[candidates[own, place], feature]
            square += difference * difference
        squares[place] = square
    cuda.syncthreads()
    if thread == 0:
        for place in range(1, count):
            square, candidate = squares[place], candidates[own, place]
            slot = place
            while slot > 0 and (
                squares[slot - 1] > square or (squares[slot - 1] == square and candidates[own, slot - 1] > candidate)
            ):
                squares[slot], candidates[own, slot] = squares[slot - 1], candidates[own, slot - 1]
                slot -= 1
            squares[slot], candidates[own, slot] = square, candidate
        for place in range(min(index.shape[1], count)):
            index[rows[own], place] = rows[candidates[own, place]]
            distance[rows[own], place] = 0.5 * squares[place] if half else squares[place] ** 0.5


def fill(placed: NDArray[np.float64], rows: NDArray[np.int64], half: bool, out: Peers) -> None:
    """Find the peers of points that are all one another's; point i is row rows[i] of the result, two at least.

    Arrays on the card are used where they lie, NumPy arrays travel there and back.
    """
    module = module_of(placed)
    left, right = factors(placed, out.distance.dtype, module)
    count, kept = len(placed), min(out.index.shape[1] + SPARE, len(placed) - 1)
    squares = on_card(module.full((count, kept), np.inf, left.dtype))
    candidates = on_card(module.full((count, kept), -1, np.int32))
    pick = _pick(left.dtype == np.float64, THREADS)
    for top in range(0, count, BLOCK):
        for begin in range(0, count, BLOCK):
            block = left[top : top + BLOCK] @ right[begin : begin + BLOCK].T
            pick[len(block), THREADS, stream()](on_card(block), top, begin, squares, candidates)  # type: ignore[index]
    results = Results.of(out.index, out.distance)
    _rank[count, THREADS, stream()](on_card(placed), on_card(rows), candidates, half, *results.there)
    results.fetch()
