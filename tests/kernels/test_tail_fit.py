"""Tail fits: hand values, the fast versions against the definition, and the estimator against maximum likelihood."""

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
from scipy.stats import genpareto

from kernels.tail_fit import Tail, cpu, reference, tail_fit, tail_quantile
from tests.kernels.tails import TOLERANCE, Case, cases, check, draws, expect
from tests.kernels.test_group_deviation import needs_card

ROOT = Path(__file__).parents[2]
DTYPES = (np.float32, np.float64)
CASES = [case for dtype in DTYPES for case in cases(dtype)]


@pytest.mark.parametrize("version", [reference.tail_fit, tail_fit])
def test_hand_values(version: object) -> None:
    """1 to 10 have the mean 5.5 and differ by 11/3 on average: shape 2 - 5.5 / (11/6), with what is absent left out."""
    assert callable(version)
    found = version(np.array([[*range(10, 0, -1), np.nan, -1, 0, np.inf]]), lightest=-3)
    np.testing.assert_allclose((found.shape, found.scale), ([-1.0], [11.0]), rtol=1e-12)
    assert (found.count[0], found.share[0]) == (10, 10 / 12)


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_cpu_equals_the_reference(case: Case) -> None:
    check(cpu.fill, case)
    limits = {"lightest": case.lightest, "heaviest": case.heaviest}
    expect(tail_fit(case.values, np.asarray(case.start), minimum=case.minimum, **limits), case)


def test_many_blocks_on_many_threads() -> None:
    check(cpu.fill, Case("many blocks", draws(0.1, 700, 311).astype(np.float32), start=0.5))


def on_card(**environment: str) -> str:
    finished = subprocess.run(
        [sys.executable, "-m", "tests.kernels.tails"],
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
    values = draws(0.1, 5, 60).astype(np.float32)
    found, expected = tail_fit(cupy.asarray(values)), tail_fit(values)
    assert isinstance(found.shape, cupy.ndarray)
    np.testing.assert_allclose(found.shape.get(), expected.shape, atol=TOLERANCE[np.float32])
    quantiles = tail_quantile(found, 1e-3)
    assert isinstance(quantiles, cupy.ndarray)
    np.testing.assert_allclose(quantiles.get(), tail_quantile(expected, 1e-3), rtol=1e-5)


def test_beyond_a_limit_the_mean_is_kept() -> None:
    values = draws(0.6, 1, 500)
    found = tail_fit(values, lightest=0, heaviest=0.1)
    assert found.shape[0] == 0.1
    assert found.scale[0] / (1 - found.shape[0]) == pytest.approx(values.mean())


def test_no_excess_lies_beyond_the_end() -> None:
    """The moments put the end at 3.31, the largest excess is 3.4: the end is moved there."""
    found = tail_fit(np.array([[1.0] * 20 + [3.4]]))
    assert -found.scale[0] / found.shape[0] == pytest.approx(3.4)


@settings(max_examples=40, deadline=None)
@given(
    array_of(np.float64, 12, elements=st.floats(0.125, 1e3)),
    st.integers(-30, 30),
    st.randoms(use_true_random=False),
)
def test_order_gaps_and_unit_do_not_matter(values: np.ndarray, power: int, random: object) -> None:
    row = [*values, np.nan, np.nan, np.inf]
    plain = tail_fit(np.array([row]), 0.1)
    getattr(random, "shuffle")(row)  # noqa: B009
    other = tail_fit(np.array([row]) * 2.0**power, 0.1 * 2.0**power)
    np.testing.assert_array_equal(other.shape, plain.shape)
    np.testing.assert_array_equal(other.scale, plain.scale * 2.0**power)
    assert -0.5 <= plain.shape[0] <= 0.5
    assert plain.scale[0] + plain.shape[0] * (values.max() - 0.1) >= -1e-9 * plain.scale[0]


@pytest.mark.parametrize("shape", [-0.2, 0.2])
def test_as_good_as_maximum_likelihood(shape: float) -> None:
    """50 peaks, 60 series: less biased than scipy's fit, and its error at most a fifth larger."""
    peaks = genpareto.rvs(shape, scale=3, size=(60, 50), random_state=7)
    ours = tail_fit(peaks).shape - shape
    theirs = np.array([genpareto.fit(row, floc=0)[0] for row in peaks]) - shape
    assert abs(ours.mean()) < max(abs(theirs.mean()), 0.05)
    assert np.sqrt((ours**2).mean()) < 1.2 * np.sqrt((theirs**2).mean())


@pytest.mark.parametrize("shape", [-0.3, 0.0, 0.2])
def test_quantiles_of_a_known_tail(shape: float) -> None:
    """One value in five is above 7, and beyond that a generalised Pareto distribution."""
    tail = Tail(np.array([shape]), np.array([2.0]), np.array([40], np.int32), np.array([0.2]))
    chances = np.array([0.2, 0.1, 1e-3, 1e-9])
    found = tail_quantile(tail, chances, start=7.0)
    np.testing.assert_allclose(found, 7 + genpareto.isf(chances / 0.2, shape, scale=2), rtol=1e-9)
    assert np.isnan(tail_quantile(tail, 0.3, start=7.0))


def test_a_fitted_quantile_is_exceeded_as_often_as_asked() -> None:
    """40,000 values with an exponential tail: 1 in 1,000 are above the quantile, up to its standard error."""
    values = np.random.default_rng(3).exponential(size=(1, 40_000))
    found = tail_quantile(tail_fit(values, 2.3), 1e-3, 2.3)
    assert (values > found).mean() == pytest.approx(1e-3, abs=3e-4)


def test_without_a_fit_there_is_no_quantile() -> None:
    assert np.isnan(tail_quantile(tail_fit(np.array([[1.0, 2.0], [np.nan, np.nan]])), 1e-3)).all()
    assert tail_fit(np.zeros((0, 5))).shape.shape == (0,)


def test_values_are_read_in_place_and_left_alone() -> None:
    tensor = torch.tensor([[3.0, 1.0, 2.0, 5.0, 4.0]])
    before = tensor.clone()
    assert tail_fit(tensor.numpy()).count[0] == 5
    assert torch.equal(tensor, before)


def test_wrong_arguments_are_named() -> None:
    values = np.ones((2, 6))
    with pytest.raises(TypeError, match="values must be a NumPy or a CuPy array, got list"):
        tail_fit([[1.0]])  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="float32 or float64, got int64"):
        tail_fit(values.astype(np.int64))
    with pytest.raises(ValueError, match=r"\[series, values\], got shape \(6,\)"):
        tail_fit(values[0])
    with pytest.raises(ValueError, match="C-contiguous"):
        tail_fit(values.T)
    with pytest.raises(ValueError, match=r"one per series \[2\], got shape \(3,\)"):
        tail_fit(values, np.zeros(3))
    with pytest.raises(ValueError, match=r"got 0\.1 and 0\.5"):
        tail_fit(values, lightest=0.1)
    with pytest.raises(ValueError, match=r"got -0.5 and 1.0"):
        tail_fit(values, heaviest=1.0)
    with pytest.raises(ValueError, match="at least 2 excesses, got 1"):
        tail_fit(values, minimum=1)
    with pytest.raises(ValueError, match="chance must be above 0 and at most 1, got 0"):
        tail_quantile(tail_fit(values), 0)
