"""Own-history median and mad: the definition against hand values, the fast versions against the definition."""

from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as array_of

from kernels import History, median_mad
from kernels.arrays import Floats
from kernels.median_mad import cpu, reference
from tests.kernels.test_group_deviation import needs_card
from tests.kernels.windows import Dtype, awkward, by_dlpack, check_medians, fetched, same_history

DTYPES = (np.float32, np.float64)


@pytest.mark.parametrize("version", [reference.median_mad, median_mad])
def test_hand_values(version: Callable[..., History]) -> None:
    """Even and odd counts, an absent and an infinite sample, and windows too short to speak."""
    found = version(np.array([[1.0, 2.0, 4.0, 10.0, np.nan, np.inf]]), 4)
    np.testing.assert_array_equal(found.median, [[np.nan, np.nan, 2, 3, 4, np.nan]])
    np.testing.assert_array_equal(found.mad, [[np.nan, np.nan, 1, 1.5, 2, np.nan]])
    expected = np.array([[np.nan, np.nan, 2, 7 / 1.5, np.nan, np.nan]]) / 1.4826
    np.testing.assert_allclose(found.deviation, expected)


@pytest.mark.parametrize("version", [reference.median_mad, median_mad])
def test_without_spread_a_stranger_is_infinitely_far(version: Callable[..., History]) -> None:
    values = np.array([[5.0, 5.0, 5.0, 5.5], [5.0, 5.0, 5.0, 5.0], [1.0, 2.0, 3.0, np.inf]])
    np.testing.assert_array_equal(version(values, 4, steps=1).deviation, [[np.inf], [0], [np.inf]])
    floored = version(values, 4, steps=1, floor=0.5).deviation
    np.testing.assert_allclose(floored, np.array([[1.0], [0.0], [np.inf]]) / 1.4826)


@pytest.mark.parametrize("window", [1, 2, 7, 40, 200])
@pytest.mark.parametrize("dtype", DTYPES)
def test_cpu_equals_the_reference(dtype: Dtype, window: int) -> None:
    values = np.stack(list(awkward(dtype).values()))
    for steps in (1, 9, values.shape[1]):
        check_medians(cpu.fill, values, window, steps)


def test_a_history_longer_than_a_thread_takes_at_once() -> None:
    values = np.random.default_rng(5).integers(0, 9, (4, 2 * cpu.RUN + 7)).astype(np.float32)
    check_medians(cpu.fill, values, 40, values.shape[1])


@pytest.mark.gpu
@needs_card
def test_cupy_arrays_stay_on_the_card() -> None:
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    values = np.stack(list(awkward(np.float32).values()))
    found = median_mad(cupy.asarray(values), 7)
    assert isinstance(found.median, cupy.ndarray)
    back = History(*fetched(found.median, found.mad, found.deviation))
    same_history(back, median_mad(values, 7), values, "on the card")


readings = array_of(
    np.float64,
    st.tuples(st.integers(1, 3), st.integers(1, 25)),
    elements=st.integers(-64, 64).map(float) | st.just(np.nan),
)


@given(values=readings, window=st.integers(1, 12))
def test_the_newest_step_alone_equals_the_last_of_all(values: Floats, window: int) -> None:
    """A column that slid there equals one that was sorted there."""
    every, newest = median_mad(values, window), median_mad(values, window, steps=1)
    np.testing.assert_array_equal(newest.median, every.median[:, -1:])
    np.testing.assert_array_equal(newest.mad, every.mad[:, -1:])
    np.testing.assert_array_equal(newest.deviation, every.deviation[:, -1:])


@given(values=readings, shift=st.integers(-1000, 1000), power=st.integers(-8, 8), sign=st.sampled_from([-1, 1]))
def test_another_unit_gives_the_same_deviation(values: Floats, shift: int, power: int, sign: int) -> None:
    scale = sign * 2.0**power  # exact in binary, so that the equality is exact too
    plain, changed = median_mad(values, 7), median_mad(values * scale + shift, 7)
    np.testing.assert_array_equal(changed.median, plain.median * scale + shift)
    np.testing.assert_array_equal(changed.mad, plain.mad * abs(scale))
    np.testing.assert_allclose(changed.deviation, plain.deviation * sign, rtol=1e-15)


def test_a_floor_for_each_signal() -> None:
    """Values of [signals, gpus, steps], here a view with gaps between the rows."""
    buffer = np.zeros((2, 3, 12), np.float32)
    view = buffer[..., 2:10]
    view[..., -1] = 6.0
    found = median_mad(view, 8, steps=1, floor=np.array([[1.0], [2.0]]))
    np.testing.assert_allclose(found.deviation[..., 0], np.repeat([[6.0], [3.0]], 3, axis=1) / 1.4826, rtol=1e-6)


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (2, 0, 4), (2, 3, 0)])
def test_nothing_in_nothing_out(shape: tuple[int, ...]) -> None:
    assert median_mad(np.zeros(shape), 3).mad.shape == shape


def test_torch_tensors_travel_without_a_copy() -> None:
    tensor, deviation = torch.tensor([[1.0, 2.0, 4.0, 9.0]]), torch.full((1, 1), torch.nan)
    out = History(np.empty((1, 1), np.float32), np.empty((1, 1), np.float32), by_dlpack(deviation))
    median_mad(by_dlpack(tensor), 4, steps=1, out=out)
    torch.testing.assert_close(deviation, torch.tensor([[6.0]]) / 1.5 / 1.4826)


def reject(match: str, error: type[Exception] = ValueError, **changes: object) -> None:
    good: dict[str, object] = {"values": np.zeros((2, 5)), "window": 3}
    with pytest.raises(error, match=match):
        median_mad(**good | changes)  # type: ignore[arg-type]


def test_errors_name_what_does_not_fit() -> None:
    reject("NumPy or a CuPy array, got list", TypeError, values=[1.0])
    reject("float32 or float64, got float16", TypeError, values=np.zeros((2, 5), np.float16))
    reject(r"got shape \(5,\)", values=np.zeros(5))
    reject("window must be at least 1 step, got -2", window=-2)
    reject("minimum must be at least 1 sample, got 0", minimum=0)
    reject("steps must be 0 to the 5 that values hold, got -1", steps=-1)
    reject("finite and not negative, got -0.5", floor=np.array([1, -0.5]))
    reject("finite and not negative, got nan", floor=np.nan)
    reject(r"floor must broadcast to \(2,\), got shape \(3,\)", floor=np.zeros(3))
    wrong = History(*np.zeros((3, 2, 5), np.float32))
    reject(r"out.median must be C-contiguous float64 \(2, 5\), got float32 \(2, 5\)", out=wrong)
