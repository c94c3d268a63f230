# numba.cuda builds its names at import, out of mypy's sight.
# mypy: disable-error-code="attr-defined, no-untyped-call"
"""numba.cuda: a block packs one series' excesses into shared memory, sorts them there and adds them up."""

from collections.abc import Callable
from functools import cache

import numpy as np
from numba import cuda, float32, float64, int32
from numpy.typing import NDArray

from kernels.arrays import Floats
from kernels.card import Results, on_card, stream
from kernels.group_deviation.cuda import sort_columns
from kernels.tail_fit import cpu
from kernels.tail_fit.arrays import Tail

THREADS = 128
SHARED_BYTES = 40 * 1024  # what every card gives a block, less the partial sums

_parameters = cuda.jit(device=True)(cpu.parameters.py_func)


@cache
def _kernel(double: bool, threads: int) -> Callable[..., None]:
    number = float64 if double else float32  # shared arrays want their type and size when the kernel is compiled

    @cuda.jit
    def fit(
        values: Floats,
        length: int,
        starts: NDArray[np.float64],
        lightest: float,
        heaviest: float,
        minimum: int,
        shape: Floats,
        scale: Floats,
        count: NDArray[np.int32],
        share: Floats,
    ) -> None:
        excesses = cuda.shared.array(0, number)
        counts = cuda.shared.array(2, int32)
        totals = cuda.shared.array(threads, float64)
        differences = cuda.shared.array(threads, float64)
        series, thread = cuda.blockIdx.x, cuda.threadIdx.y
        start = starts[series]
        if thread < 2:
            counts[thread] = 0
        cuda.syncthreads()
        for place in range(thread, length, threads):
            value = values[series * length + place]
            if abs(value) < np.inf:
                cuda.atomic.add(counts, 1, 1)
                if value > start > -np.inf:
                    excesses[cuda.atomic.add(counts, 0, 1)] = value
        cuda.syncthreads()
        n, present = counts[0], counts[1]
        sort_columns(excesses, n, 1)

        # As in `cpu.sums`: a gap between neighbours is part of the difference of every pair around it.
        total, difference = float64(0), float64(0)
        for rank in range(thread, n, threads):
            value = float64(excesses[rank])
            total += value - start
            if rank > 0:
                difference += float64(rank) * float64(n - rank) * (value - float64(excesses[rank - 1]))
        totals[thread], differences[thread] = total, difference
        half = threads // 2
        while half > 0:
            cuda.syncthreads()
            if thread < half:
                totals[thread] += totals[thread + half]
                differences[thread] += differences[thread + half]
            half //= 2

        if thread == 0:
            count[series] = n
            share[series] = n / present if present > 0 else np.nan
            shape[series], scale[series] = np.nan, np.nan
            if n >= minimum:
                shape[series], scale[series] = _parameters(
                    totals[0] / n,
                    differences[0] / (float64(n) * float64(n - 1)),
                    float64(excesses[n - 1]) - start,
                    lightest,
                    heaviest,
                )

    return fit  # type: ignore[no-any-return]


def fill(
    values: Floats, starts: NDArray[np.float64], lightest: float, heaviest: float, minimum: int, out: Tail
) -> None:
    """Compute into `out`; the arguments are checked and the starts one per series.

    Arrays on the card are used where they lie, NumPy arrays travel there and back.
    """
    series, length = values.shape
    largest = SHARED_BYTES // values.dtype.itemsize
    if length > largest:
        raise ValueError(f"series of {length} values do not fit on the card: at most {largest} {values.dtype}")
    results = Results.of(out.shape, out.scale, out.count, out.share)
    _kernel(values.dtype == np.float64, THREADS)[  # type: ignore[index]
        series, (1, THREADS), stream(), max(length, 1) * values.dtype.itemsize
    ](
        on_card(values.reshape(-1)),
        length,
        on_card(starts),
        lightest,
        heaviest,
        minimum,
        *results.there,
    )
    results.fetch()
