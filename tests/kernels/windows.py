"""Awkward series for the ops along the steps, and what every one of their versions must do with them.

`NUMBA_ENABLE_CUDASIM=1 python -m tests.kernels.windows` holds their CUDA versions against the references in the
simulator, without the variable it needs a card.
"""

import os
from collections.abc import Callable
from dataclasses import fields, replace

import numpy as np
import torch
from numpy.typing import NDArray

from kernels.arrays import Floats
from kernels.change_scan import Changes, Standing
from kernels.change_scan import reference as change_reference
from kernels.median_mad import History
from kernels.median_mad import reference as median_reference
from kernels.window_features import Features, Ring
from kernels.window_features import reference as window_reference

Dtype = type[np.float32] | type[np.float64]

# Order statistics are selected, not computed: a few units in the last place of the result's dtype.
SELECTED = {np.float32: 4 * 2.0**-23, np.float64: 4 * 2.0**-52}
# Sums are float64 about a sample of the window and may lose a factor of 2^12 before they are made anew, so that
# float64 keeps 12 digits of the spread in a window of hundreds; float32 rounds at the end only.
SUMMED = {np.float32: 4 * 2.0**-23, np.float64: 1e-10}


def awkward(dtype: Dtype, steps: int = 41) -> dict[str, Floats]:
    """Series by what is awkward about them, [steps] each."""
    rng = np.random.default_rng(20261122)
    normal = rng.normal(size=(6, steps))
    gaps, front, infinite = normal[0].copy(), normal[1].copy(), normal[2].copy()
    gaps[rng.random(steps) < 0.4] = np.nan
    front[: 2 * steps // 3] = np.nan
    infinite[[3, 4, 20]] = np.inf, -np.inf, np.inf
    spike = normal[3].copy()
    spike[7] = 1e12
    found = {
        "gaps": gaps,
        "nothing at first": front,
        "all NaN": np.full(steps, np.nan),
        "infinities": infinite,
        "all infinite": np.full(steps, np.inf),
        "constant": np.full(steps, 0.1),
        "few values": rng.integers(0, 3, steps).astype(np.float64),
        "huge offset": 1e6 + normal[4],
        "a spike that leaves": spike,
        "a level that changes by a million": np.where(np.arange(steps) < steps // 2, 0.0, 1e6) + normal[5],
        "rising": np.arange(steps, dtype=np.float64),
    }
    return {name: row.astype(dtype) for name, row in found.items()}


def near(found: Floats, expected: Floats, rtol: float, atol: float | Floats, what: str) -> None:
    """Equal within rtol of the expected value plus atol, which may differ from value to value."""
    with np.errstate(invalid="ignore"):
        same = (found == expected) | (abs(found - expected) <= atol + rtol * abs(expected))
    same |= np.isnan(found) & np.isnan(expected)
    assert same.all(), f"{what} at {np.argwhere(~same)[0]}: {found[~same][0]}, expected {expected[~same][0]}"


def same_features(found: Features, expected: Features, values: Floats, what: str) -> None:
    """The sums are rounded on the scale of the deviation, the level on its own; the reference rounds a constant too."""
    tolerance = SUMMED[values.dtype.type]
    level = np.nan_to_num(2.0**-50 * abs(expected.mean))
    summed = np.nan_to_num(tolerance * expected.deviation) + level
    allowed = {"mean": summed, "deviation": level, "slope": summed}
    for field in fields(Features):
        result, wanted = getattr(found, field.name), getattr(expected, field.name)
        near(result, wanted, tolerance, allowed.get(field.name, 0.0), f"{field.name}, {what}")


def same_history(found: History, expected: History, values: Floats, what: str) -> None:
    for field in fields(History):
        rtol = SELECTED[values.dtype.type]
        near(getattr(found, field.name), getattr(expected, field.name), rtol, 0.0, f"{field.name}, {what}")


def same_changes(found: Changes, expected: Changes, values: Floats, what: str) -> None:
    """The sums are the same operations in the same order, but for a product that may be fused into its sum."""
    for field in fields(Changes):
        rtol = SUMMED[values.dtype.type]
        near(getattr(found, field.name), getattr(expected, field.name), rtol, 1e-12, f"{field.name}, {what}")


def by_dlpack(tensor: torch.Tensor) -> Floats:
    """The tensor's memory as an array."""
    array: Floats = np.from_dlpack(tensor)  # type: ignore[assignment]
    return array


def fetched(*arrays: Floats) -> list[Floats]:
    """From the card."""
    return [array.get() for array in arrays]  # type: ignore[attr-defined]


def poisoned(count: int, values: Floats, steps: int) -> list[Floats]:
    return [np.full((len(values), steps), -777, values.dtype) for _ in range(count)]


def check_windows(fill: Callable[[Floats, int, int, Features], None], values: Floats, window: int, steps: int) -> None:
    out = Features(*poisoned(7, values, steps))
    fill(values, window, 2, out)
    expected = window_reference.window_features(values, window, steps=steps, minimum=2)
    same_features(out, expected, values, f"window of {window}")


def check_ring(
    begin: Callable[[Ring], None],
    step: Callable[[Ring, Floats, int, Features], None],
    values: Floats,
    window: int,
) -> None:
    """A ring fed step by step answers as the reference does for all steps at once."""
    ring = Ring(np.full((len(values), window), np.nan, values.dtype), np.zeros((len(values), 14)), 0)
    begin(ring)
    expected = window_reference.window_features(values, window)
    for index in range(values.shape[1]):
        out = Features(*poisoned(7, values, 1))
        step(ring, values[:, index].copy(), 1, out)
        ring = replace(ring, oldest=(ring.oldest + 1) % window)
        now = Features(*(getattr(expected, field.name)[:, index : index + 1] for field in fields(Features)))
        same_features(out, now, values, f"ring of {window} at step {index}")


def check_medians(
    fill: Callable[[Floats, int, NDArray[np.float64], int, History], None], values: Floats, window: int, steps: int
) -> None:
    out = History(*poisoned(3, values, steps))
    floors = np.linspace(0, 0.5, len(values))
    fill(values, window, floors, 3, out)
    expected = median_reference.median_mad(values, window, steps=steps, floor=floors)
    same_history(out, expected, values, f"window of {window}")


def check_changes(
    fill: Callable[[Floats, NDArray[np.bool_], tuple[float, float, float, float], Standing, Changes], None],
    values: Floats,
    threshold: float,
    bound: float,
    restarts: bool,
) -> None:
    high, low, mean = poisoned(3, values, values.shape[1])
    out = Changes(high, low, mean, np.full(values.shape, 77, np.int8))
    before = [np.linspace(0, 1, len(values)) for _ in range(3)]
    standing = Standing(*(each.copy() for each in before))
    restart = np.random.default_rng(1).random(values.shape) < 0.1
    fill(values, restart if restarts else restart[:0], (0.5, threshold, 0.2, bound), standing, out)
    expected, after = change_reference.change_scan(
        values,
        threshold=threshold,
        bound=bound,
        restart=restart if restarts else None,
        standing=Standing(*before),
    )
    same_changes(out, expected, values, f"threshold {threshold}")
    for field in fields(Standing):
        np.testing.assert_allclose(getattr(standing, field.name), getattr(after, field.name), rtol=1e-12, atol=1e-12)


def main() -> None:
    from kernels.change_scan import cuda as changes
    from kernels.median_mad import cuda as medians
    from kernels.window_features import cuda as windows

    simulated = os.environ.get("NUMBA_ENABLE_CUDASIM") == "1"
    if simulated:  # every simulated thread is a real one
        windows.THREADS, windows.TEAM, medians.THREADS, changes.TILE, changes.HELPERS = 8, 4, 8, 4, 2
    for dtype in (np.float32, np.float64):
        values = np.stack(list(awkward(dtype, 21).values()))
        for window, steps in ((7, 3), (40, 1)):
            check_windows(windows.fill, values, window, steps)
            check_medians(medians.fill, values, window, steps)
        check_ring(windows.begin, windows.step, values, 5)
        check_changes(changes.fill, values, np.inf, np.inf, restarts=False)
        check_changes(changes.fill, values, 2.0, 5.0, restarts=True)
    print("the ops along the steps equal their references")  # noqa: T201


if __name__ == "__main__":
    main()
