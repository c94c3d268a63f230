"""Awkward series for the tail fit, and what each of its versions must make of them.

`NUMBA_ENABLE_CUDASIM=1 python -m tests.kernels.tails` checks the CUDA version in a process of its own, because the
simulator is chosen at import; without the variable it needs a card.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import genpareto

from kernels.arrays import Floats
from kernels.tail_fit import Tail, reference

Fill = Callable[[Floats, NDArray[np.float64], float, float, int, Tail], None]

# All versions add up in float64 and round once to the dtype of the result; 16 units in its last place, of 1 for the
# shape, which is a difference of numbers of that size.
TOLERANCE = {np.float32: 16 * 2.0**-24, np.float64: 1e-11}


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    name: str
    values: Floats
    start: float | tuple[float, ...] = 0.0
    lightest: float = -0.5
    heaviest: float = 0.5
    minimum: int = 5


def draws(shape: float, series: int, length: int) -> Floats:
    drawn: Floats = genpareto.rvs(shape, scale=3, size=(series, length), random_state=length)
    return drawn


def cases(dtype: type[np.float32] | type[np.float64]) -> list[Case]:
    rng = np.random.default_rng(20261122)
    gaps = draws(0.1, 3, 37)
    gaps[rng.random(gaps.shape) < 0.3] = np.nan
    few = np.full((4, 9), np.nan)
    few[1, 3:7], few[2, 2:7] = 1, [5, 1, 2, 4, 3]
    infinite = draws(0.2, 3, 21)
    infinite[0, [1, 4]] = np.inf, -np.inf
    infinite[1] = np.inf
    uneven = (-1.0, 2.5, 1e9, np.nan, np.inf, -np.inf)
    beyond = np.array([[1.0] * 20 + [3.4], [*range(1, 22)]])
    tried = [
        Case("odd sizes and gaps", gaps),
        Case("one series", draws(0.3, 1, 7)),
        Case("exactly enough, too few, none", few),
        Case("constant", np.full((1, 8), 0.7)),
        Case("equal but for one", np.array([[2, 2, 2, 2, 2, 2, 2.5]])),
        Case("infinities", infinite),
        Case("a start each", rng.normal(size=(6, 13)), start=uneven),
        Case("nothing above", -draws(0.1, 2, 12)),
        Case("huge offset", 1_000_000 + draws(0.0, 1, 35), start=1_000_001.0),
        Case("tiny and huge units", np.outer([1e-20, 1e20], draws(0.1, 1, 20))),
        Case("bounded shape", draws(0.6, 3, 20), lightest=0.0, heaviest=0.1),
        Case("the largest beyond the end, and within", beyond),
        Case("two are enough", draws(0.0, 1, 2), minimum=2),
        Case("no values", np.zeros((3, 0))),
        Case("long", draws(-0.2, 1, 129)),
    ]
    return [
        Case(
            f"{case.name} {dtype.__name__}",
            case.values.astype(dtype),
            case.start,
            case.lightest,
            case.heaviest,
            case.minimum,
        )
        for case in tried
    ]


def check(fill: Fill, case: Case) -> None:
    """The version's results equal the reference's, whatever lay in the arrays before."""
    dtype, series = case.values.dtype, len(case.values)
    starts = np.broadcast_to(np.asarray(case.start, np.float64), series).copy()
    shape, scale, share = (np.full(series, -777, dtype) for _ in range(3))
    out = Tail(shape, scale, np.full(series, -777, np.int32), share)
    fill(case.values, starts, case.lightest, case.heaviest, case.minimum, out)
    expect(out, case)


def expect(found: Tail, case: Case) -> None:
    limits = {"lightest": case.lightest, "heaviest": case.heaviest, "minimum": case.minimum}
    expected = reference.tail_fit(case.values, np.asarray(case.start), **limits)  # type: ignore[arg-type]
    tolerance = TOLERANCE[case.values.dtype.type]
    np.testing.assert_array_equal(found.count, expected.count, err_msg=f"count: {case.name}")
    np.testing.assert_allclose(found.shape, expected.shape, rtol=0, atol=tolerance, err_msg=f"shape: {case.name}")
    for name in ("scale", "share"):
        np.testing.assert_allclose(
            getattr(found, name), getattr(expected, name), rtol=tolerance, err_msg=f"{name}: {case.name}"
        )


def main() -> None:
    from kernels.tail_fit import cuda

    if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":
        cuda.THREADS = 4  # every simulated thread is a real one
    tried = [*cases(np.float32), *cases(np.float64)]
    for case in tried:
        check(cuda.fill, case)
    print(f"{len(tried)} cases equal the reference")  # noqa: T201


if __name__ == "__main__":
    main()
