"""Window features: the definition against hand values, the fast versions against the definition."""

import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as array_of

from kernels import Features, window_features, window_ring, window_step
from kernels.arrays import Floats
from kernels.window_features import cpu, reference
from tests.kernels.test_group_deviation import needs_card
from tests.kernels.windows import Dtype, awkward, by_dlpack, check_ring, check_windows, fetched, same_features

ROOT = Path(__file__).parents[2]
DTYPES = (np.float32, np.float64)


def each(features: Features) -> list[Floats]:
    return [getattr(features, field.name) for field in fields(features)]


@pytest.mark.parametrize("version", [reference.window_features, window_features])
def test_hand_values(version: Callable[..., Features]) -> None:
    """A gap in a window of four, and the window's first steps, of which some lie before the series."""
    found = version(np.array([[1.0, np.nan, 3.0, 2.0, np.inf]]), 4)
    np.testing.assert_allclose(found.mean, [[1, 1, 2, 2, 2.5]])
    np.testing.assert_allclose(found.deviation, [[0, 0, 1, np.sqrt(2 / 3), 0.5]])
    np.testing.assert_allclose(found.slope, [[np.nan, np.nan, 1, 3 / 7, -1]])
    np.testing.assert_array_equal(found.low, [[1, 1, 1, 1, 2]])
    np.testing.assert_array_equal(found.high, [[1, 1, 3, 3, np.inf]])
    np.testing.assert_array_equal(found.last, [[1, 1, 3, 2, np.inf]])
    np.testing.assert_array_equal(found.missing, [[0.75, 0.75, 0.5, 0.25, 0.25]])


@pytest.mark.parametrize("window", [1, 2, 7, 40, 200])
@pytest.mark.parametrize("dtype", DTYPES)
def test_cpu_equals_the_reference(dtype: Dtype, window: int) -> None:
    values = np.stack(list(awkward(dtype).values()))
    for steps in (1, 9, values.shape[1]):
        check_windows(cpu.fill, values, window, steps)


def test_all_cores_equal_the_reference() -> None:
    """Enough for several threads, and series that do not fill the last lanes."""
    values = np.random.default_rng(8).normal(60, 5, (1_003, 41)).astype(np.float32)
    values[::3, 5:30:4] = np.nan
    assert len(values) * (30 + 3 * 41) > cpu.SAMPLES_PER_THREAD
    check_windows(cpu.fill, values, 30, 41)


@pytest.mark.parametrize("window", [1, 6, 60])
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_ring_equals_the_reference(dtype: Dtype, window: int) -> None:
    check_ring(cpu.begin, cpu.step, np.stack(list(awkward(dtype).values())), window)


def on_card(**environment: str) -> str:
    command = [sys.executable, "-m", "tests.kernels.windows"]
    finished = subprocess.run(
        command, cwd=ROOT, env=os.environ | environment, capture_output=True, text=True, check=False
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.mark.slow
def test_cuda_equals_the_references_under_the_simulator() -> None:
    """Of this op and of the other two along the steps."""
    assert "equal their references" in on_card(NUMBA_ENABLE_CUDASIM="1")


@pytest.mark.gpu
@needs_card
def test_cuda_equals_the_references_on_the_card() -> None:
    assert "equal their references" in on_card(NUMBA_ENABLE_CUDASIM="0")


@pytest.mark.gpu
@needs_card
def test_cupy_arrays_stay_on_the_card() -> None:
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    values = np.stack(list(awkward(np.float32).values()))
    found = window_features(cupy.asarray(values), 7)
    assert isinstance(found.mean, cupy.ndarray)
    same_features(Features(*fetched(*each(found))), window_features(values, 7), values, "on the card")


samples = st.integers(-1000, 1000).map(float) | st.just(np.nan) | st.just(np.inf)


@given(
    values=array_of(np.float32, st.tuples(st.integers(1, 3), st.integers(1, 30)), elements=samples),
    window=st.integers(1, 12),
    history=st.integers(0, 30),
)
def test_a_stream_of_steps_equals_all_at_once(values: Floats, window: int, history: int) -> None:
    """Whatever part of it was there when the ring was made."""
    history = min(history, values.shape[1])
    together = window_features(values, window)
    ring = window_ring(values[:, :history], window)
    for step in range(history, values.shape[1]):
        found, ring = window_step(ring, values[:, step].copy())
        same_features(found, Features(*(array[:, step] for array in each(together))), values, f"step {step}")


@given(
    values=array_of(np.float64, st.tuples(st.just(2), st.integers(1, 30)), elements=samples),
    window=st.integers(1, 12),
    shift=st.sampled_from([-1e6, 0.0, 3.0, 1e6]),
)
def test_another_zero_moves_the_levels_alone(values: Floats, window: int, shift: float) -> None:
    plain, moved = window_features(values, window), window_features(values + shift, window)
    levels = [array + shift for array in (plain.mean, plain.low, plain.high, plain.last)]
    expected = Features(levels[0], plain.deviation, plain.slope, levels[1], levels[2], levels[3], plain.missing)
    same_features(moved, expected, values, f"shift {shift}")


def test_signals_gpus_and_strides() -> None:
    """A view of a longer buffer, as the detector's window is one, gives what its copy gives."""
    rng = np.random.default_rng(3)
    buffer = rng.normal(size=(2, 5, 30)).astype(np.float32)
    view = buffer[..., 4:24]
    found = window_features(view, 6, steps=3)
    assert found.slope.shape == (2, 5, 3)
    flat = window_features(view.reshape(10, 20).copy(), 6, steps=3)
    for here, there in zip(each(found), each(flat), strict=True):
        np.testing.assert_array_equal(here.reshape(10, 3), there)
    turned = window_features(np.asfortranarray(view), 6, steps=3)
    np.testing.assert_array_equal(turned.mean, found.mean)


@pytest.mark.parametrize("shape", [(0, 3), (2, 0), (2, 0, 4), (2, 3, 0)])
def test_nothing_in_nothing_out(shape: tuple[int, ...]) -> None:
    assert window_features(np.zeros(shape), 3).mean.shape == shape


def test_a_ring_without_series_or_history() -> None:
    found, _ = window_step(window_ring(np.zeros((0, 4)), 3), np.zeros(0))
    assert found.mean.shape == (0,)
    found, ring = window_step(window_ring(np.zeros((1, 0)), 3), np.array([5.0]))
    assert (found.mean[0], found.missing[0], ring.oldest) == (5, pytest.approx(2 / 3), 1)


def test_torch_tensors_travel_without_a_copy() -> None:
    """In and out by DLPack: the tensors and the arrays are the same memory."""
    tensor, mean = torch.arange(8.0).reshape(2, 4), torch.full((2, 1), torch.nan)
    found = window_features(by_dlpack(tensor), 2, steps=1)
    out = Features(by_dlpack(mean), *each(found)[1:])
    window_features(by_dlpack(tensor), 2, steps=1, out=out)
    torch.testing.assert_close(mean, torch.tensor([[2.5], [6.5]]))
    assert torch.utils.dlpack.from_dlpack(found.last).data_ptr() == found.last.ctypes.data


def reject(match: str, error: type[Exception] = ValueError, **changes: object) -> None:
    good: dict[str, object] = {"values": np.zeros((2, 5)), "window": 3}
    with pytest.raises(error, match=match):
        window_features(**good | changes)  # type: ignore[arg-type]


def test_errors_name_what_does_not_fit() -> None:
    reject("NumPy or a CuPy array, got Tensor", TypeError, values=torch.zeros(2, 5))
    reject("float32 or float64, got int64", TypeError, values=np.zeros((2, 5), np.int64))
    reject(r"got shape \(5,\)", values=np.zeros(5))
    reject("window must be at least 1 step, got 0", window=0)
    reject("minimum must be at least 1 sample, got 0", minimum=0)
    reject("steps must be 0 to the 5 that values hold, got 6", steps=6)
    wrong = Features(*np.zeros((7, 2, 4)))
    reject(r"out.mean must be C-contiguous float64 \(2, 5\), got float64 \(2, 4\)", out=wrong)
    ring = window_ring(np.zeros((2, 5)), 3)
    with pytest.raises(ValueError, match=r"newest must be float64 \(2,\) .*, got float64 \(3,\)"):
        window_step(ring, np.zeros(3))
    with pytest.raises(ValueError, match=r"values must be \[series, steps\], got shape \(5,\)"):
        window_ring(np.zeros(5), 3)
