# numba.cuda builds its names at import, out of mypy's sight.
# mypy: disable-error-code="attr-defined, no-untyped-call"
"""numba.cuda: a team of threads adds up the window of one series and step; in a ring, a thread moves a series on.

Windows of neighbouring steps overlap, and the card's caches serve what they share: adding each up from its own
samples needs no giving back, whose rounding `sums.py` has to watch.
"""

import math
from collections.abc import Callable
from functools import cache

import numpy as np
from numba import cuda, float64
from numpy.typing import NDArray

from kernels.arrays import Floats
from kernels.card import Results, on_card, stream
from kernels.window_features import sums as on_cpu
from kernels.window_features.arrays import Features, Ring, each
from kernels.window_features.sums import (
    COUNT,
    HIGH,
    LAST,
    LAST_AT,
    LOW,
    NEXT,
    PEAK,
    PRESENT,
    PRODUCTS,
    SHIFT,
    SQUARES,
    SUM,
    TIME_SQUARES,
    TIMES,
)

THREADS = 256
TEAM = 32

_features = cuda.jit(device=True)(on_cpu.features.py_func)
_slide = cuda.jit(device=True)(on_cpu.slide.py_func)
_worn = cuda.jit(device=True)(on_cpu.worn.py_func)


@cuda.jit(device=True)
def _add_up(sums: NDArray[np.float64], samples: Floats, oldest: int, window: int) -> None:
    """A ring's sums by one thread, as `sums.add_up` has them."""
    for key in range(sums.size):
        sums[key] = 0.0
    sums[LOW], sums[HIGH], sums[LAST], sums[LAST_AT], sums[NEXT] = np.inf, -np.inf, np.nan, -1.0, window
    for time in range(window):
        value = float64(samples[(oldest + time) % window])
        if not math.isnan(value):
            sums[PRESENT] += 1.0
            sums[LOW], sums[HIGH] = min(sums[LOW], value), max(sums[HIGH], value)
            sums[LAST], sums[LAST_AT] = value, time
            if abs(value) < np.inf:
                if sums[COUNT] == 0.0:
                    sums[SHIFT] = value
                distance = value - sums[SHIFT]
                sums[COUNT] += 1.0
                sums[SUM] += distance
                sums[SQUARES] += distance * distance
                sums[PRODUCTS] += distance * time
                sums[TIMES] += time
                sums[TIME_SQUARES] += float64(time) * time
    sums[PEAK] = sums[SQUARES]


@cache
def _kernel() -> Callable[..., None]:
    threads, team = THREADS, TEAM  # shared arrays want their size when the kernel is compiled

    @cuda.jit
    def fill(
        values: Floats,
        window: int,
        minimum: int,
        mean: Floats,
        deviation: Floats,
        slope: Floats,
        low: Floats,
        high: Floats,
        last: Floats,
        missing: Floats,
    ) -> None:
        parts = cuda.shared.array((6, threads), float64)
        lane, mine = cuda.threadIdx.x, cuda.threadIdx.y * team + cuda.threadIdx.x
        newest = mean.shape[1]
        position = cuda.blockIdx.x * (threads // team) + cuda.threadIdx.y
        row, place = position // newest, position % newest
        inside = row < values.shape[0]
        end = values.shape[1] - newest + place + 1 if inside else 0
        begin = max(0, end - window)

        # One sample that counts to shift by, the newest that is there, the extremes.
        some, latest, present, least, most = -1, -1, 0, np.inf, -np.inf
        for index in range(begin + lane, end, team):
            value = values[row, index]
            if not math.isnan(value):
                present += 1
                latest = index
                least, most = min(least, value), max(most, value)
                if abs(value) < np.inf:
                    some = index
        parts[0, mine], parts[1, mine], parts[2, mine] = some, latest, present
        parts[3, mine], parts[4, mine] = least, most
        stride = team // 2
        while stride > 0:
            cuda.syncthreads()
            if lane < stride:
                other = mine + stride
                parts[0, mine] = max(parts[0, mine], parts[0, other])
                parts[1, mine] = max(parts[1, mine], parts[1, other])
                parts[2, mine] += parts[2, other]
                parts[3, mine] = min(parts[3, mine], parts[3, other])
                parts[4, mine] = max(parts[4, mine], parts[4, other])
            stride //= 2
        cuda.syncthreads()
        head = mine - lane
        some, latest = int(parts[0, head]), int(parts[1, head])
        shift = float64(values[row, some]) if some >= 0 else 0.0
        sums = cuda.local.array(14, float64)
        sums[SHIFT], sums[NEXT], sums[PEAK], sums[PRESENT] = shift, window, 0.0, parts[2, head]
        sums[LOW], sums[HIGH] = parts[3, head], parts[4, head]
        sums[LAST] = values[row, latest] if latest >= 0 else np.nan
        sums[LAST_AT] = 0.0
        cuda.syncthreads()

        count = total = squares = products = times = time_squares = 0.0
        for index in range(begin + lane, end, team):
            value = float64(values[row, index])
            if abs(value) < np.inf:
                distance, time = value - shift, float64(index - end)
                count += 1.0
                total += distance
                squares += distance * distance
                products += distance * time
                times += time
                time_squares += time * time
        parts[0, mine], parts[1, mine], parts[2, mine] = count, total, squares
        parts[3, mine], parts[4, mine], parts[5, mine] = products, times, time_squares
        stride = team // 2
        while stride > 0:
            cuda.syncthreads()
            if lane < stride:
                for key in range(6):
                    parts[key, mine] += parts[key, mine + stride]
            stride //= 2
        cuda.syncthreads()

        if inside and lane == 0:
            sums[COUNT], sums[SUM], sums[SQUARES] = parts[0, mine], parts[1, mine], parts[2, mine]
            sums[PRODUCTS], sums[TIMES], sums[TIME_SQUARES] = parts[3, mine], parts[4, mine], parts[5, mine]
            sums[NEXT] = 0.0  # the newest sample that is there lies in the window, whatever its time
            (
                mean[row, place],
                deviation[row, place],
                slope[row, place],
                low[row, place],
                high[row, place],
                last[row, place],
                missing[row, place],
            ) = _features(sums, window, minimum)

    return fill  # type: ignore[no-any-return]


@cuda.jit
def _begin(samples: Floats, sums: NDArray[np.float64]) -> None:
    row = cuda.grid(1)
    if row < samples.shape[0]:
        _add_up(sums[row], samples[row], 0, samples.shape[1])


@cuda.jit
def _step(
    samples: Floats,
    sums: NDArray[np.float64],
    oldest: int,
    newest: Floats,
    minimum: int,
    mean: Floats,
    deviation: Floats,
    slope: Floats,
    low: Floats,
    high: Floats,
    last: Floats,
    missing: Floats,
) -> None:
    row = cuda.grid(1)
    window = samples.shape[1]
    if row < samples.shape[0]:
        mine = sums[row]
        taken = _slide(mine, float64(samples[row, oldest]), float64(newest[row]), window)
        samples[row, oldest] = newest[row]
        if taken or row % window == oldest or _worn(mine):
            _add_up(mine, samples[row], (oldest + 1) % window, window)
        (
            mean[row, 0],
            deviation[row, 0],
            slope[row, 0],
            low[row, 0],
            high[row, 0],
            last[row, 0],
            missing[row, 0],
        ) = _features(mine, window, minimum)


def fill(values: Floats, window: int, minimum: int, out: Features) -> None:
    """Compute into `out`, [series, steps]; the arguments are checked and hold at least one series and step.

    Arrays on the card are used where they lie, NumPy arrays travel there and back.
    """
    results = Results.of(*each(out))
    teams = THREADS // TEAM
    blocks = math.ceil(out.mean.size / teams)
    _kernel()[blocks, (TEAM, teams), stream()](  # type: ignore[index]
        on_card(values), window, minimum, *results.there
    )
    results.fetch()


def begin(ring: Ring) -> None:
    """The sums of a ring that was just filled."""
    results = Results.of(ring.sums)
    _begin[math.ceil(len(ring.samples) / THREADS), THREADS, stream()](on_card(ring.samples), *results.there)
    results.fetch()


def step(ring: Ring, newest: Floats, minimum: int, out: Features) -> None:
    """Move the ring on and compute into `out`, [series, 1]."""
    results = Results.of(ring.samples, ring.sums, *each(out))
    samples, sums, *features = results.there
    _step[math.ceil(newest.size / THREADS), THREADS, stream()](
        samples, sums, ring.oldest, on_card(newest), minimum, *features
    )
    results.fetch()
