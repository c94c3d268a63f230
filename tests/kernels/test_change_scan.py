"""Change scan: the definition against hand values, the fast versions against the definition."""

from collections.abc import Callable
from dataclasses import fields

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as array_of

from kernels import Changes, Standing, change_scan
from kernels.arrays import Floats
from kernels.change_scan import cpu, reference
from tests.kernels.test_group_deviation import needs_card
from tests.kernels.windows import Dtype, awkward, by_dlpack, check_changes, fetched, same_changes

DTYPES = (np.float32, np.float64)
Version = Callable[..., tuple[Changes, Standing]]


@pytest.mark.parametrize("version", [reference.change_scan, change_scan])
def test_hand_values(version: Version) -> None:
    """The sums grow to either side, pass over what is absent, alarm above the threshold and begin anew."""
    values = np.array([[2.0, 1.0, np.nan, 2.0, 2.0, -3.0, -1.0]])
    found, standing = version(values, drift=0.5, threshold=3.0, smoothing=0.5)
    np.testing.assert_array_equal(found.high, [[1.5, 2, 2, 3.5, 1.5, 0, 0]])
    np.testing.assert_array_equal(found.low, [[0, 0, 0, 0, 0, 2.5, 3]])
    np.testing.assert_array_equal(found.mean, [[1, 1, 1, 1.5, 1.75, -0.625, -0.8125]])
    np.testing.assert_array_equal(found.alarm, [[0, 0, 0, 1, 0, 0, 0]])
    assert (standing.high[0], standing.low[0], standing.mean[0]) == (0, 3, -0.8125)


@pytest.mark.parametrize("version", [reference.change_scan, change_scan])
def test_infinities_count_as_the_bound_or_not_at_all(version: Version) -> None:
    values = np.array([[1.0, np.inf, -np.inf]])
    free, _ = version(values, drift=0.0, smoothing=1.0)
    np.testing.assert_array_equal(free.high, [[1, 1, 1]])
    np.testing.assert_array_equal(free.mean, [[1, 1, 1]])
    bound, _ = version(values, drift=0.0, smoothing=1.0, bound=5.0)
    np.testing.assert_array_equal(bound.high, [[1, 6, 1]])
    np.testing.assert_array_equal(bound.low, [[0, 0, 5]])
    np.testing.assert_array_equal(bound.mean, [[1, 5, -5]])


@pytest.mark.parametrize("version", [reference.change_scan, change_scan])
def test_a_restart_comes_before_its_sample(version: Version) -> None:
    restart = np.array([[False, True, False]])
    found, _ = version(np.array([[3.0, 2.0, np.nan]]), drift=0.5, smoothing=0.5, restart=restart)
    np.testing.assert_array_equal(found.high, [[2.5, 1.5, 1.5]])
    np.testing.assert_array_equal(found.mean, [[1.5, 1, 1]])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(
    ("threshold", "bound", "restarts"), [(np.inf, np.inf, False), (2.0, 5.0, False), (4.0, 1e3, True)]
)
def test_cpu_equals_the_reference(dtype: Dtype, threshold: float, bound: float, restarts: bool) -> None:
    values = np.stack(list(awkward(dtype).values()))
    check_changes(cpu.fill, values, threshold, bound, restarts)


@pytest.mark.gpu
@needs_card
def test_cupy_arrays_stay_on_the_card() -> None:
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    values = np.stack(list(awkward(np.float32).values()))
    found, standing = change_scan(cupy.asarray(values), threshold=4.0)
    assert isinstance(found.alarm, cupy.ndarray)
    assert isinstance(standing.mean, cupy.ndarray)
    high, low, mean = fetched(found.high, found.low, found.mean)
    back = Changes(high, low, mean, found.alarm.get())
    same_changes(back, change_scan(values, threshold=4.0)[0], values, "on the card")


@given(
    values=array_of(
        np.float32,
        st.tuples(st.integers(1, 3), st.integers(1, 25)),
        elements=st.floats(-10, 10, width=32) | st.just(np.nan) | st.just(-np.inf),
    ),
    cuts=st.lists(st.integers(0, 25), max_size=3),
    threshold=st.sampled_from([1.0, 4.0, np.inf]),
)
def test_a_stream_of_steps_equals_all_at_once(values: Floats, cuts: list[int], threshold: float) -> None:
    """Bit for bit, wherever it is cut, and the standing that went in stays as it was."""
    together, last = change_scan(values, threshold=threshold)
    standing = Standing(*np.zeros((3, len(values))))
    parts = []
    for part in np.split(values, sorted(min(cut, values.shape[1]) for cut in cuts), axis=1):
        before = [getattr(standing, field.name).copy() for field in fields(standing)]
        found, after = change_scan(part, threshold=threshold, standing=standing)
        parts.append(found)
        np.testing.assert_array_equal([standing.high, standing.low, standing.mean], before)
        standing = after
    for field in fields(Changes):
        joined = np.concatenate([getattr(part, field.name) for part in parts], axis=1)
        np.testing.assert_array_equal(joined, getattr(together, field.name))
    for field in fields(Standing):
        np.testing.assert_array_equal(getattr(standing, field.name), getattr(last, field.name))


@given(
    values=array_of(np.float64, st.tuples(st.just(2), st.integers(1, 25)), elements=st.floats(-10, 10)),
    threshold=st.sampled_from([2.0, np.inf]),
)
def test_turned_upside_down_the_sides_change_places(values: Floats, threshold: float) -> None:
    plain, turned = (change_scan(each, threshold=threshold)[0] for each in (values, -values))
    np.testing.assert_array_equal(turned.high, plain.low)
    np.testing.assert_array_equal(turned.mean, -plain.mean)
    np.testing.assert_array_equal(turned.alarm, -plain.alarm)


def test_signals_gpus_and_strides() -> None:
    buffer = np.random.default_rng(3).normal(size=(2, 5, 30)).astype(np.float32)
    view = buffer[..., 4:24]
    found, standing = change_scan(view)
    assert (found.high.shape, standing.low.shape) == ((2, 5, 20), (2, 5))
    flat, _ = change_scan(view.reshape(10, 20).copy())
    np.testing.assert_array_equal(found.high.reshape(10, 20), flat.high)


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (2, 0, 4), (2, 3, 0)])
def test_nothing_in_nothing_out(shape: tuple[int, ...]) -> None:
    found, standing = change_scan(np.zeros(shape))
    assert found.alarm.shape == shape
    assert not standing.high.any()


def test_torch_tensors_travel_without_a_copy() -> None:
    high = torch.full((1, 2), torch.nan)
    low, mean = np.empty((2, 1, 2), np.float32)
    out = Changes(by_dlpack(high), low, mean, np.empty((1, 2), np.int8))
    change_scan(by_dlpack(torch.tensor([[1.0, 2.0]])), out=out)
    torch.testing.assert_close(high, torch.tensor([[0.5, 2.0]]))


def reject(match: str, error: type[Exception] = ValueError, **changes: object) -> None:
    good: dict[str, object] = {"values": np.zeros((2, 5))}
    with pytest.raises(error, match=match):
        change_scan(**good | changes)  # type: ignore[arg-type]


def test_errors_name_what_does_not_fit() -> None:
    reject("NumPy or a CuPy array, got Tensor", TypeError, values=torch.zeros(2, 5))
    reject("float32 or float64, got int64", TypeError, values=np.zeros((2, 5), np.int64))
    reject(r"got shape \(5,\)", values=np.zeros(5))
    reject("drift must be finite and not negative, got nan", drift=np.nan)
    reject("threshold must be positive, got 0", threshold=0)
    reject("smoothing must be above 0 and up to 1, got 1.5", smoothing=1.5)
    reject("bound must be positive, got -1", bound=-1)
    reject("restart must be bool .*, got int8", TypeError, restart=np.zeros((2, 5), np.int8))
    reject(r"values' shape \(2, 5\), got \(2, 4\)", restart=np.zeros((2, 4), bool))
    zero = np.zeros(2)
    reject(r"standing.low must be float64 \(2,\), got float64 \(3,\)", standing=Standing(zero, np.zeros(3), zero))
    high, low, mean = np.zeros((3, 2, 5))
    reject(
        r"out.alarm must be C-contiguous int8 \(2, 5\), got int64",
        out=Changes(high, low, mean, np.zeros((2, 5), np.int64)),
    )
