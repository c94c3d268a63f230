"""The windows of every step, eight series side by side in vector registers.

A window is what it has before some step and what it has after, each added up once (as van Herk, Pattern Recognition
Letters 13, 1992, does for extremes), so that no sample has to be given back.
"""

import numpy as np
from numba import njit
from numpy.typing import NDArray

from kernels.arrays import Floats
from kernels.vectors import Lanes, alike, chosen, every, load, root, store, store_turned, there
from kernels.window_features.arrays import Arrays
from kernels.window_features.sums import LEAST_LEFT, add_up, features

Numbers = NDArray[np.float64]
# present, count, total, squares, products, times, squares of times, low, high
Nine = tuple[Lanes, Lanes, Lanes, Lanes, Lanes, Lanes, Lanes, Lanes, Lanes]

LANES = 8
NINE, SEVEN = 9, 7


@njit(cache=True, nogil=True, forceinline=True)
def _empty() -> Nine:
    none = alike(0.0, LANES)
    return none, none, none, none, none, none, none, alike(np.inf, LANES), alike(-np.inf, LANES)


@njit(cache=True, nogil=True, forceinline=True)
def _with(sums: Nine, value: Lanes, shift: Lanes, time: float) -> Nine:
    """One more sample per lane."""
    present, count, total, squares, products, times, time_squares, low, high = sums
    one = alike(1.0, LANES)
    counts = abs(value) < np.inf
    weight, distance = chosen(counts, one, 0.0), chosen(counts, value - shift, 0.0)
    return (
        present + chosen(there(value), one, 0.0),
        count + weight,
        total + distance,
        squares + distance * distance,
        products + distance * time,
        times + weight * time,
        time_squares + weight * (time * time),
        chosen(value < low, value, low),
        chosen(value > high, value, high),
    )


@njit(cache=True, nogil=True, forceinline=True)
def _keep(before: Numbers, index: int, sums: Nine) -> None:
    place = index * NINE
    for kept in range(NINE):
        store(before, place + kept, sums[kept])


@njit(cache=True, nogil=True, forceinline=True)
def _joined(before: Numbers, index: int, sums: Nine) -> Nine:
    """What was kept there and the sums."""
    place = index * NINE
    present, count, total, squares, products, times, time_squares, low, high = sums
    lowest, highest = load(before, place + 7, LANES), load(before, place + 8, LANES)
    return (
        load(before, place, LANES) + present,
        load(before, place + 1, LANES) + count,
        load(before, place + 2, LANES) + total,
        load(before, place + 3, LANES) + squares,
        load(before, place + 4, LANES) + products,
        load(before, place + 5, LANES) + times,
        load(before, place + 6, LANES) + time_squares,
        chosen(low < lowest, low, lowest),
        chosen(high > highest, high, highest),
    )


@njit(cache=True, nogil=True)
def _near(block: Numbers, middle: int, lane: int) -> float:
    """The finite one of a lane's samples that is nearest to the middle, or 0."""
    for away in range(len(block)):
        for index in (middle - away, middle + away):
            if 0 <= index < len(block) and abs(block[index, lane]) < np.inf:
                return float(block[index, lane])
    return 0.0


@njit(cache=True, nogil=True)
def _run(block: Numbers, middle: int, window: int, minimum: int, before: Numbers, found: Floats) -> None:
    """The features of the windows that end at block[middle:], all of which hold the middle one, in found.

    block: [steps, LANES]; before: room for [middle + 1, nine, LANES]; found: [seven, steps, LANES] as rows.
    """
    steps = len(found) // SEVEN
    lines = np.empty((2, LANES))
    for lane in range(LANES):
        lines[0, lane] = _near(block, middle, lane)
    shift, nothing = load(lines, 0, LANES), alike(np.nan, LANES)

    sums, last = _empty(), nothing
    _keep(before, middle, sums)
    for index in range(middle - 1, -1, -1):
        value = load(block, index, LANES)
        sums = _with(sums, value, shift, float(index - middle))
        last = chosen(there(last), last, value)
        _keep(before, index, sums)

    sums = _empty()
    for index in range(middle, len(block)):
        value, place = load(block, index, LANES), index - middle
        sums = _with(sums, value, shift, float(place))
        last = chosen(there(value), value, last)
        first = max(0, index - window + 1)
        present, count, total, squares, products, times, time_squares, low, high = _joined(before, first, sums)
        share = 1.0 / chosen(count > 0.0, count, 1.0)
        centre = total * share
        spread = squares - total * centre
        deviation = root(chosen(spread > 0.0, spread, 0.0) * share)
        slope = (products - times * centre) / (time_squares - times * times * share)
        enough, some = count >= minimum, present > 0.0
        store(found, place, chosen(enough, shift + centre, nothing))
        store(found, place + steps, chosen(enough, deviation, nothing))
        store(found, place + 2 * steps, chosen(enough & (count > 1.0), slope, nothing))
        store(found, place + 3 * steps, chosen(some, low, nothing))
        store(found, place + 4 * steps, chosen(some, high, nothing))
        store(found, place + 5 * steps, chosen(some, last, nothing))
        store(found, place + 6 * steps, (window - present) / window)
        fresh = spread >= squares * LEAST_LEFT
        if not every(fresh):
            store(lines, 1, chosen(fresh, alike(1.0, LANES), 0.0))
            _anew(block[first : index + 1], window, minimum, lines[1], found[place::steps])


@njit(cache=True, nogil=True)
def _anew(block: Numbers, window: int, minimum: int, fresh: Numbers, found: Floats) -> None:
    """The features of a window, [seven, LANES], about a sample of its own where the sums were worn."""
    sums = np.empty(14)
    for lane in range(LANES):
        if fresh[lane] == 0.0:
            add_up(sums, block[:, lane], 0, window)
            for feature, number in enumerate(features(sums, window, minimum)):
                found[feature, lane] = number


@njit(cache=True, nogil=True)
def _put(found: Floats, width: int, out: Arrays, top: int, new: int, count: int) -> None:
    """The lanes of [seven, steps, LANES] as rows, `count` steps from `new` on."""
    steps = len(found) // SEVEN
    for feature in range(SEVEN):
        array, begin = out[feature], feature * steps
        for place in range(0, count, LANES):
            if width == LANES and place + LANES <= count:
                store_turned(found, begin + place, array, top, new + place, LANES)
                continue
            for lane in range(width):
                for step in range(place, min(place + LANES, count)):
                    array[top + lane, new + step] = found[begin + step, lane]


@njit(cache=True, nogil=True)
def every_step(values: Floats, window: int, minimum: int, out: Arrays, first: int, end: int) -> None:
    """The newest steps' features, as many as `out` holds, of the series first to end."""
    steps, newest = values.shape[1], out[0].shape[1]
    span = min(window, steps)
    block, before = np.empty((2 * span, LANES)), np.empty((span * NINE, LANES))
    found = np.empty((span * SEVEN, LANES), values.dtype)
    for top in range(first, end, LANES):
        width = min(LANES, end - top)
        for new in range(0, newest, span):
            start = steps - newest + new
            begin, stop = max(0, start - window + 1), min(start + span, steps)
            for lane in range(LANES):
                for index in range(begin, stop):
                    block[index - begin, lane] = values[top + lane, index] if lane < width else np.nan
            _run(block[: stop - begin], start - begin, window, minimum, before, found)
            _put(found, width, out, top, new, stop - start)
