"""BLAS for a block of distances, Numba on all cores to pick from it.

A block and its mirror image are one: it is computed once, and both its rows and its columns are picked from.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import combinations

import numpy as np
from numba import get_num_threads, njit
from numpy.typing import NDArray

from kernels.arrays import Floats
from kernels.group_deviation.cpu import LANES, sort_columns
from kernels.nearest_peers.arrays import SPARE, Peers, factors

BLOCK = 2048  # rows and columns: 16 MiB in float32
CHUNK = 64  # neighbours looked at together: mostly none of them is near enough
FEW = 1024  # points: for fewer, waking the threads costs more than they save

Each = Callable[[Callable[[slice], None], Iterable[slice]], Iterable[None]]

# Minima of whole vectors; there are no NaN here.
_VECTORS = {"nnan", "nsz", "reassoc"}


@njit(cache=True, nogil=True)
def insert(square: float, row: int, squares: Floats, candidates: NDArray[np.int32]) -> None:
    """Put a nearer candidate where it belongs, of equals the lower first, and drop the last one."""
    place = squares.size - 1
    while place > 0 and (squares[place - 1] > square or (squares[place - 1] == square and candidates[place - 1] > row)):
        squares[place], candidates[place] = squares[place - 1], candidates[place - 1]
        place -= 1
    squares[place], candidates[place] = square, row


@njit(cache=True, nogil=True, fastmath=_VECTORS)
def least(values: Floats) -> float:
    low = values[0]
    for value in values:
        low = min(low, value)
    return float(low)


@njit(cache=True, nogil=True, fastmath=_VECTORS)
def lesser(low: Floats, values: Floats) -> None:
    for place in range(low.size):
        low[place] = min(low[place], values[place])


@njit(cache=True, nogil=True, fastmath=_VECTORS)
def any_below(values: Floats, limits: Floats) -> bool:
    low = values[0] - limits[0]
    for place in range(values.size):
        low = min(low, values[place] - limits[place])
    return bool(low < 0)


@njit(cache=True, nogil=True)
def _limit(block: Floats, squares: Floats) -> None:
    """Start every row of a block at a limit that as many of its values as are wanted, and one more, are below.

    That is the least but so many of the minima of every CHUNK-th value. Without it most of the work would go into
    candidates that soon prove too far away. A block too narrow for that is left as it is.
    """
    height, width = block.shape
    kept = squares.shape[1]
    if width < 2 * CHUNK or kept >= CHUNK:
        return
    minima, low = np.full((CHUNK, LANES), np.inf, block.dtype), np.empty(CHUNK, block.dtype)
    for top in range(0, height, LANES):
        for row in range(top, min(top + LANES, height)):
            low[:] = block[row, :CHUNK]
            for begin in range(CHUNK, width - CHUNK + 1, CHUNK):
                lesser(low, block[row, begin : begin + CHUNK])
            minima[:, row - top] = low
        sort_columns(minima)
        for row in range(top, min(top + LANES, height)):
            squares[row, :] = np.nextafter(minima[kept, row - top], block.dtype.type(np.inf))


@njit(cache=True, nogil=True)
def _pick_rows(block: Floats, own: int, other: int, squares: Floats, candidates: NDArray[np.int32]) -> None:
    """For the points from `own` on, the block's rows, from those from `other` on, its columns."""
    height, width = block.shape
    for row in range(height):
        mine, taken = squares[own + row], candidates[own + row]
        for begin in range(0, width, CHUNK):
            chunk = block[row, begin : begin + CHUNK]
            if least(chunk) < mine[-1]:
                for place in range(chunk.size):
                    if chunk[place] < mine[-1] and other + begin + place != own + row:
                        insert(chunk[place], other + begin + place, mine, taken)


@njit(cache=True, nogil=True)
def _pick_columns(block: Floats, own: int, other: int, squares: Floats, candidates: NDArray[np.int32]) -> None:
    """For the points from `own` on, the block's columns, from those from `other` on, its rows."""
    height, width = block.shape
    for begin in range(0, width, CHUNK):
        end = min(begin + CHUNK, width)
        limits = squares[own + begin : own + end, -1].copy()
        for row in range(height):
            chunk = block[row, begin:end]
            if any_below(chunk, limits):
                for place in range(chunk.size):
                    if chunk[place] < limits[place]:
                        mine = squares[own + begin + place]
                        insert(chunk[place], other + row, mine, candidates[own + begin + place])
                        limits[place] = mine[-1]


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def apart(point: NDArray[np.float64], other: NDArray[np.float64]) -> float:
    square = 0.0
    for feature in range(point.size):
        difference = point[feature] - other[feature]
        square += difference * difference
    return square


@njit(cache=True, nogil=True)
def _rank(
    first: int,
    last: int,
    placed: NDArray[np.float64],
    rows: NDArray[np.int64],
    candidates: NDArray[np.int32],
    half: bool,
    index: NDArray[np.int32],
    distance: Floats,
) -> None:
    """Measure the candidates of some rows without rounding, and keep the nearest."""
    kept = min(index.shape[1], candidates.shape[1])
    for own in range(first, last):
        squares = np.full(candidates.shape[1], np.inf)
        order = np.full(candidates.shape[1], -1, np.int32)
        for other in candidates[own]:
            insert(apart(placed[own], placed[other]), other, squares, order)
        for place in range(kept):
            index[rows[own], place] = rows[order[place]]
            distance[rows[own], place] = 0.5 * squares[place] if half else np.sqrt(squares[place])


def fill(placed: NDArray[np.float64], rows: NDArray[np.int64], half: bool, out: Peers) -> None:
    """Find the peers of points that are all one another's; point i is row rows[i] of the result, two at least."""
    count = len(placed)
    left, right = factors(placed, out.distance.dtype, np)
    kept = min(out.index.shape[1] + SPARE, count - 1)
    squares = np.full((count, kept), np.inf, left.dtype)
    candidates = np.full((count, kept), -1, np.int32)

    def rank(part: slice) -> None:
        _rank(part.start, part.stop, placed, rows, candidates, half, out.index, out.distance)

    # Threads that sleep between blocks: Numba's own would spin, and take the cores from the BLAS's.
    with ThreadPoolExecutor(get_num_threads()) as pool:
        each: Each = map if count < FEW else pool.map
        starts = range(0, count, BLOCK)
        # First every point with its neighbours in the order: after that few are near enough.
        for top, begin in [*((start, start) for start in starts), *combinations(starts, 2)]:
            block = left[top : top + BLOCK] @ right[begin : begin + BLOCK].T
            _pick(each, block, top, begin, squares, candidates)
        list(each(rank, _parts(count)))


def _pick(each: Each, block: Floats, top: int, begin: int, squares: Floats, candidates: NDArray[np.int32]) -> None:
    """The block's rows are the points from `top` on, its columns those from `begin` on."""

    def pick_rows(part: slice) -> None:
        if begin == top:
            _limit(block[part], squares[top + part.start : top + part.stop])
        _pick_rows(block[part], top + part.start, begin, squares, candidates)

    def pick_columns(part: slice) -> None:
        _pick_columns(block[:, part], begin + part.start, top, squares, candidates)

    list(each(pick_rows, _parts(len(block))))
    if begin > top:
        list(each(pick_columns, _parts(block.shape[1])))


def _parts(count: int) -> list[slice]:
    """A range cut for the threads, in whole chunks; some more than threads, because they do not all run alike."""
    step = CHUNK * max(1, count // (CHUNK * 4 * get_num_threads()))
    return [slice(start, min(start + step, count)) for start in range(0, count, step)]
