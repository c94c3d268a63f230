"""Awkward inputs for the group kernels, and what every one of their versions must do with them."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from kernels.arrays import Floats, Integers
from kernels.group_deviation import Deviation, reference
from kernels.group_deviation.arrays import shapes

Fill = Callable[[Floats, Integers, Integers, NDArray[np.float64], int, Deviation], None]

# The order statistics are selected, not computed, so the versions agree but for the last rounding:
# a few units in the last place of the result's dtype.
TOLERANCE = {np.float32: 4 * 2.0**-23, np.float64: 4 * 2.0**-52}


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    name: str
    values: Floats
    members: Integers
    offsets: Integers
    floor: float | Sequence[float] = 0.0
    minimum: int = 3


def csr(*groups: Iterable[int]) -> tuple[Integers, Integers]:
    lists = [list(group) for group in groups]
    members = np.array([gpu for each in lists for gpu in each], dtype=np.int32)
    return members, np.cumsum([0, *map(len, lists)])


def cases(dtype: type[np.float32] | type[np.float64]) -> list[Case]:
    rng = np.random.default_rng(20261121)

    def normal(*shape: int) -> Floats:
        return rng.normal(size=shape).astype(dtype)

    gaps = normal(3, 13, 5)
    gaps[rng.random(gaps.shape) < 0.3] = np.nan
    silent = normal(2, 6, 3)
    silent[0] = np.nan
    infinite = normal(2, 9)
    infinite[0, [1, 4]] = np.inf, -np.inf
    infinite[1] = np.inf
    stepped: Floats = rng.integers(0, 4, (2, 11, 3)).astype(dtype)
    uneven = csr(range(7), [], [12], [3, 4, 5, 12, 0], [9, 1], range(13))
    return [
        Case("odd sizes, NaN gaps, empty and single groups, shared members", gaps, *uneven),
        Case("a signal that is all NaN", silent, *csr(range(6), [2, 3, 4])),
        Case("constant without floor", np.full((2, 5), 7).astype(dtype), *csr(range(5))),
        Case("constant with floor", np.full((2, 5), 7).astype(dtype), *csr(range(5)), floor=0.5),
        Case("ties and zero spread", stepped, *csr(range(11), [0, 3, 6, 9]), floor=[0, 1]),
        Case("infinities", infinite, *csr(range(9), [1, 4, 5, 6, 7])),
        Case("huge offset", 1_000_000 + normal(2, 17, 2), *csr(range(17), range(0, 17, 2)), floor=0.01),
        Case("large magnitudes", normal(1, 8) * dtype(1e30), *csr(range(8))),
        Case("pairs", normal(2, 6), *csr([0, 5], [1, 4], [2, 3]), minimum=2),
        Case("one group, one signal, one step", normal(1, 3), *csr([2, 0, 1])),
        Case("many lanes", normal(7, 5, 5), *csr([4, 2, 0, 1])),
    ]


def large(dtype: type[np.float32] | type[np.float64]) -> Case:
    """The largest group the card takes beside the smallest."""
    rng = np.random.default_rng(4096)
    values: Floats = rng.normal(size=(1, 4096)).astype(dtype)
    values[0, ::5] = np.nan
    return Case("2 and 4,096 members", values, *csr(rng.permutation(4096), [7, 8]), minimum=2)


def check(fill: Fill, case: Case) -> None:
    """The version's results equal the reference's, whatever lay in the arrays before."""
    values = case.values.reshape(*case.values.shape[:2], -1)
    floors = np.broadcast_to(np.asarray(case.floor, dtype=np.float64), values.shape[0]).copy()
    poisoned = (np.full(shape, -777, values.dtype) for shape in shapes(values, case.members, case.offsets))
    out = Deviation(*poisoned)
    fill(values, case.members, case.offsets, floors, case.minimum, out)
    expected = reference.peer_deviation(values, case.members, case.offsets, floor=floors, minimum=case.minimum)
    for name in ("median", "mad", "deviation"):
        np.testing.assert_allclose(
            getattr(out, name),
            getattr(expected, name),
            rtol=TOLERANCE[values.dtype.type],
            atol=0,
            err_msg=f"{name}: {case.name}",
        )
