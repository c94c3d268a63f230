"""Nearest peers: hand values, the fast versions against the definition, and what must hold for any features."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays as array_of

from kernels.nearest_peers import cpu, nearest_peers, reference
from tests.kernels.peers import Case, cases, check, expect, large
from tests.kernels.test_group_deviation import needs_card

ROOT = Path(__file__).parents[2]
DTYPES = (np.float32, np.float64)
CASES = [case for dtype in DTYPES for case in cases(dtype)]


@pytest.mark.parametrize("version", [reference.nearest_peers, nearest_peers])
def test_hand_values(version: object) -> None:
    """On a line at 0, 1, 3 and 7, with one absent and one of another kind."""
    assert callable(version)
    line = np.array([[0.0], [1.0], [3.0], [7.0], [np.nan], [1.5]])
    found = version(line, 2, np.array([4, 4, 4, 4, 4, 5], np.int32))
    np.testing.assert_array_equal(found.index, [[1, 2], [0, 2], [1, 0], [2, 1], [-1, -1], [-1, -1]])
    np.testing.assert_array_equal(found.distance, [[1, 3], [1, 2], [2, 3], [4, 6], *[[np.nan] * 2] * 2])


@pytest.mark.parametrize("version", [reference.nearest_peers, nearest_peers])
def test_correlations_of_hand(version: object) -> None:
    """Rising with another unit and offset is the same course, falling the opposite."""
    assert callable(version)
    found = version(np.array([[1.0, 2, 3], [70, 80, 90], [3, 2, 1], [5, 5, 5]]), 3, metric="correlation")
    np.testing.assert_array_equal(found.index, [[1, 2, -1], [0, 2, -1], [0, 1, -1], [-1, -1, -1]])
    np.testing.assert_allclose(found.distance[:3, :2], [[0, 2], [0, 2], [2, 2]], atol=1e-14)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.name} {case.features.dtype}")
def test_cpu_equals_the_reference(case: Case) -> None:
    check(cpu.fill, case)
    expect(nearest_peers(case.features, case.k, case.labels, metric=case.metric), case)


@pytest.mark.parametrize("dtype", DTYPES)
def test_several_blocks_equal_the_reference(dtype: type[np.float32], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cpu, "BLOCK", 100)
    check(cpu.fill, large(dtype, 701))
    check(cpu.fill, large(dtype, 450, "correlation"))


def on_card(**environment: str) -> str:
    finished = subprocess.run(
        [sys.executable, "-m", "tests.kernels.peers"],
        cwd=ROOT,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stderr
    return finished.stdout


@pytest.mark.slow
def test_cuda_equals_the_reference_under_the_simulator() -> None:
    assert on_card(NUMBA_ENABLE_CUDASIM="1").endswith("cases equal the reference\n")


@pytest.mark.gpu
@needs_card
def test_cuda_equals_the_reference_on_the_card() -> None:
    assert on_card(NUMBA_ENABLE_CUDASIM="0").endswith("cases equal the reference\n")


@pytest.mark.gpu
@needs_card
def test_cupy_arrays_stay_on_the_card() -> None:
    cupy = pytest.importorskip("cupy", reason="CuPy is not installed")
    case = large(np.float32, 5000)
    found = nearest_peers(cupy.asarray(case.features), case.k, cupy.asarray(case.labels))
    assert isinstance(found.index, cupy.ndarray)
    expected = nearest_peers(case.features, case.k, case.labels)
    np.testing.assert_allclose(cupy.asnumpy(found.distance), expected.distance, rtol=1e-5)


@settings(max_examples=30, deadline=None)
@given(array_of(np.int16, (9, 3), elements=st.integers(-50, 50)), st.integers(-100, 100), st.integers(-20, 20))
def test_neither_offset_nor_unit_matters(steps: np.ndarray, offset: int, power: int) -> None:
    plain = nearest_peers(steps.astype(np.float64), 3)
    moved = nearest_peers((steps + offset) * 2.0**power, 3)
    np.testing.assert_array_equal(moved.index, plain.index)
    np.testing.assert_array_equal(moved.distance, plain.distance * 2.0**power)
    assert (np.diff(plain.distance, axis=1) >= 0).all()


@settings(max_examples=30, deadline=None)
@given(st.integers(0, 2**32 - 1), st.integers(2, 40))
def test_the_nearest_of_all_is_mutual(seed: int, rows: int) -> None:
    found = nearest_peers(np.random.default_rng(seed).normal(size=(rows, 5)).astype(np.float32), 1)
    first = int(found.distance[:, 0].argmin())
    assert found.index[found.index[first, 0], 0] == first


def test_features_are_read_in_place_and_left_alone() -> None:
    tensor = torch.tensor([[0.0, 1.0], [0.0, 2.0], [torch.nan, 0.0]])
    before = tensor.clone()
    assert nearest_peers(tensor.numpy(), 1).index[:, 0].tolist() == [1, 0, -1]
    torch.testing.assert_close(tensor, before, equal_nan=True, rtol=0, atol=0)


def test_wrong_arguments_are_named() -> None:
    features, labels = np.ones((4, 2)), np.zeros(4, np.int32)
    with pytest.raises(TypeError, match="features must be a NumPy or a CuPy array, got list"):
        nearest_peers([[1.0]], 1)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="features must be float32 or float64, got int64"):
        nearest_peers(features.astype(np.int64), 1)
    with pytest.raises(ValueError, match=r"\[rows, features\], got shape \(4,\)"):
        nearest_peers(features[:, 0], 1)
    with pytest.raises(ValueError, match="k must be 1 to 32, got 0"):
        nearest_peers(features, 0)
    with pytest.raises(ValueError, match="k must be 1 to 32, got 33"):
        nearest_peers(features, 33)
    with pytest.raises(ValueError, match="euclidean or correlation, got cosine"):
        nearest_peers(features, 1, metric="cosine")  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="labels must be int32, got int64"):
        nearest_peers(features, 1, labels.astype(np.int64))
    with pytest.raises(ValueError, match=r"one per row \[4\], got shape \(3,\)"):
        nearest_peers(features, 1, labels[:3])
    with pytest.raises(TypeError, match="labels must be a NumPy or a CuPy array, got list"):
        nearest_peers(features, 1, [0, 0, 0, 0])  # type: ignore[arg-type]
