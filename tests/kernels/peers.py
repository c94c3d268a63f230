"""Awkward features for the search for peers, and what each of its versions must find in them.

`NUMBA_ENABLE_CUDASIM=1 python -m tests.kernels.peers` checks the CUDA version in a process of its own, because the
simulator is chosen at import; without the variable it needs a card.
"""

import os
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from kernels.arrays import Floats, Integers
from kernels.nearest_peers import Peers, arrays, reference
from kernels.nearest_peers.arrays import Metric

Fill = Callable[[NDArray[np.float64], NDArray[np.int64], bool, Peers], None]

# Distances are float64 rounded once. Who is picked depends on the matrix product, which rounds as often as the rows
# have features: 64 units in the last place of the largest square, as the docstring says.
ROUNDING = {np.float32: 2.0**-23, np.float64: 2.0**-52}
PICKED = 64


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    name: str
    features: Floats
    k: int = 3
    labels: Integers | None = None
    metric: Metric = "euclidean"


def cases(dtype: type[np.float32] | type[np.float64]) -> list[Case]:
    rng = np.random.default_rng(20261122)

    def normal(*shape: int) -> Floats:
        return rng.normal(size=shape).astype(dtype)

    gaps = normal(11, 4)
    gaps[2, 1], gaps[5, 0], gaps[7] = np.nan, np.inf, -np.inf
    constant = normal(9, 5)
    constant[1], constant[4] = 0.1, 7
    labels = np.array([0, 3, 0, -1, 3, 0, 3, 0, 9, -7, 3, 0, 2**31 - 1], np.int32)
    spread: Floats = (normal(7, 3) * 10.0 ** np.arange(-3, 4)[:, None]).astype(dtype)
    return [
        Case("odd sizes", normal(11, 7), k=4),
        Case("one feature", normal(10, 1)),
        Case("NaN and infinities", gaps, k=32),
        Case("all NaN", np.full((4, 2), np.nan, dtype)),
        Case("equal rows", np.ones((6, 3), dtype)),
        Case("equal pairs", np.repeat(normal(4, 5), 2, axis=0), k=2),
        Case("labels, some alone, some none", normal(13, 6), k=4, labels=labels),
        Case("correlation", normal(12, 6), metric="correlation"),
        Case("correlation of constants", constant, metric="correlation", k=9),
        Case("correlation by label", normal(13, 6), k=2, labels=labels, metric="correlation"),
        Case("huge offset", (1_000_000 + normal(12, 5)).astype(dtype)),
        Case("correlation at a huge offset", (1_000_000 + normal(12, 8)).astype(dtype), metric="correlation"),
        Case("large magnitudes", normal(8, 3) * dtype(1e30)),
        Case("small magnitudes", normal(8, 3) * dtype(1e-30)),
        Case("scales", spread),
        Case("one row, two rows", normal(3, 2), labels=np.array([0, 1, 1], np.int32)),
        Case("no rows", normal(0, 3)),
        Case("no features", normal(4, 0)),
    ]


def large(dtype: type[np.float32] | type[np.float64], rows: int, metric: Metric = "euclidean") -> Case:
    """Several blocks, the last one partly filled."""
    rng = np.random.default_rng(rows)
    features: Floats = rng.normal(size=(rows, 19)).astype(dtype)
    features[::7, 3] = np.nan
    return Case(f"{rows} rows", features, 9, rng.integers(-1, 2, rows).astype(np.int32), metric)


def check(fill: Fill, case: Case) -> None:
    """The version's peers are the reference's; what it has no peers for, it leaves alone."""
    placed, valid = arrays.points(case.features, case.metric, np)
    order, starts = arrays.grouped(valid, case.labels, np)
    shape = len(case.features), case.k
    out = Peers(np.full(shape, -777, np.int32), np.full(shape, -777, case.features.dtype))
    for start, end in pairwise(starts):
        if end - start > 1:
            fill(placed[order[start:end]], order[start:end], case.metric == "correlation", out)
    untouched = out.index == -777
    assert (out.distance[untouched] == -777).all(), case.name
    out.index[untouched], out.distance[untouched] = -1, np.nan
    expect(out, case)


def expect(found: Peers, case: Case) -> None:
    expected = reference.nearest_peers(case.features, case.k, case.labels, metric=case.metric)
    rounding = ROUNDING[case.features.dtype.type]
    placed, _ = arrays.points(case.features, case.metric, np)
    power = 1 if case.metric == "correlation" else 2
    np.testing.assert_array_equal(found.index < 0, expected.index < 0, err_msg=f"number of peers: {case.name}")
    for row, index in enumerate(found.index):
        mine = index[index >= 0]
        assert row not in mine, case.name
        assert len(set(mine)) == len(mine), case.name
        assert case.labels is None or (case.labels[mine] == case.labels[row]).all(), case.name
        squares = ((placed[mine] - placed[row]) ** 2).sum(axis=1)
        exact = squares / 2 if power == 1 else np.sqrt(squares)
        np.testing.assert_allclose(found.distance[row, : len(mine)], exact, rtol=4 * rounding, err_msg=case.name)
    about = placed - placed.mean(axis=0) if len(placed) else placed
    extent = (about * about).sum(axis=1).max(initial=0.0)
    np.testing.assert_allclose(
        found.distance.astype(np.float64) ** power,
        expected.distance**power,
        rtol=8 * rounding,
        atol=PICKED * rounding * extent,
        err_msg=case.name,
    )


def main() -> None:
    from kernels.nearest_peers import cuda

    if os.environ.get("NUMBA_ENABLE_CUDASIM") == "1":
        cuda.THREADS, cuda.BLOCK = 2, 8  # every simulated thread is a real one
        tried = [*cases(np.float32), cases(np.float64)[0], large(np.float32, 21)]
    else:
        tried = [*cases(np.float32), *cases(np.float64), large(np.float32, 5_000)]
    for case in tried:
        check(cuda.fill, case)
    print(f"{len(tried)} cases equal the reference")  # noqa: T201


if __name__ == "__main__":
    main()
