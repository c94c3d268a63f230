"""BLAS for a block of distances, Numba on all cores to pick from it.

A block and its mirror image are one: it is computed once, and both its rows and its columns are picked from.
"""

import numpy as np
from numba import njit, prange
from numpy.typing import NDArray

from kernels.arrays import Floats
from kernels.cores import cores
from kernels.nearest_peers.arrays import SPARE, Peers, factors

BLOCK = 2048  # rows and columns: 16 MiB in float32
CHUNK = 64  # neighbours looked at together: mostly none of them is near enough
PAIRS_PER_THREAD = 65_536  # some 50 µs: waking a thread for less can cost more than it saves

# Minima of whole vectors; there are no NaN here.
_VECTORS = {"nnan", "nsz", "reassoc"}


@njit(cache=True, nogil=True)
def insert(square: float, row: int, squares: Floats, candidates: NDArray[np.int32]) -> None:
    """Put a nearer candidate where it belongs, and drop the last one."""
    place = squares.size - 1
    while place > 0 and squares[place - 1] > square:
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
def any_below(values: Floats, limits: Floats) -> bool:
    low = values[0] - limits[0]
    for place in range(values.size):
        low = min(low, values[place] - limits[place])
    return bool(low < 0)


@njit(cache=True, nogil=True, parallel=True)
def _pick(block: Floats, top: int, left: int, squares: Floats, candidates: NDArray[np.int32]) -> None:
    """The block's rows are the points from `top` on, its columns those from `left` on."""
    height, width = block.shape
    for row in prange(height):
        own = top + row
        for begin in range(0, width, CHUNK):
            chunk = block[row, begin : begin + CHUNK]
            if least(chunk) < squares[own, -1]:
                for place in range(chunk.size):
                    other = left + begin + place
                    if chunk[place] < squares[own, -1] and other != own:
                        insert(chunk[place], other, squares[own], candidates[own])
    if left == top:
        return
    for stripe in prange((width + CHUNK - 1) // CHUNK):
        begin = stripe * CHUNK
        end = min(begin + CHUNK, width)
        limits = squares[left + begin : left + end, -1].copy()
        for row in range(height):
            chunk = block[row, begin:end]
            if any_below(chunk, limits):
                for place in range(chunk.size):
                    if chunk[place] < limits[place]:
                        own = left + begin + place
                        insert(chunk[place], top + row, squares[own], candidates[own])
                        limits[place] = squares[own, -1]


@njit(cache=True, nogil=True, parallel=True)
def _rank(
    placed: NDArray[np.float64],
    rows: NDArray[np.int64],
    candidates: NDArray[np.int32],
    half: bool,
    index: NDArray[np.int32],
    distance: Floats,
) -> None:
    """Measure every row's candidates without rounding, and keep the nearest."""
    kept = min(index.shape[1], candidates.shape[1])
    for own in prange(candidates.shape[0]):
        squares = np.full(candidates.shape[1], np.inf)
        order = np.full(candidates.shape[1], -1, np.int32)
        # By index, so that among equals the lower comes first.
        for other in np.sort(candidates[own]):
            square = 0.0
            for feature in range(placed.shape[1]):
                difference = placed[own, feature] - placed[other, feature]
                square += difference * difference
            insert(square, other, squares, order)
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
    for top in range(0, count, BLOCK):
        for begin in range(top, count, BLOCK):
            block = left[top : top + BLOCK] @ right[begin : begin + BLOCK].T
            with cores(1 + block.size // PAIRS_PER_THREAD):
                _pick(block, top, begin, squares, candidates)
    with cores(1 + candidates.size * placed.shape[1] // PAIRS_PER_THREAD):
        _rank(placed, rows, candidates, half, out.index, out.distance)
