import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from detector.features import WINDOW, channels, freshness, smooth

RANDOM = np.random.default_rng(3)


@given(st.integers(0, 60), st.floats(1, 30))
def test_one_live_step_and_the_same_step_of_a_recording_come_out_equal(missing: int, memory: float) -> None:
    series = RANDOM.standard_normal((2, 150)).astype(np.float32)
    series[0, 100 : 100 + missing] = np.nan
    whole = smooth(series, memory)[:, -1]
    live = smooth(series[:, -WINDOW:], memory, WINDOW - 1)[:, 0]
    np.testing.assert_array_equal(whole, live)


def test_smoothing_leaves_absent_samples_out() -> None:
    np.testing.assert_allclose(smooth(np.array([3, np.nan, np.nan], np.float32), 4.0), [3, 3, 3])


def test_smoothing_looks_back_only() -> None:
    series = np.array([1, 1, 1, 9], np.float32)
    np.testing.assert_allclose(smooth(series, 4.0)[:3], 1)


def test_the_older_the_newest_reading_the_less_fresh_it_is() -> None:
    values = np.full((1, 1, WINDOW + 3), np.nan, np.float32)
    values[..., 1] = 7.0
    found = freshness(values, 0)[0, 0]
    np.testing.assert_allclose(found[:4], [0, 1, 1 / 2, 1 / 3])
    assert found[WINDOW] == pytest.approx(1 / WINDOW)
    assert found[WINDOW + 1] == 0.0  # beyond what it looks back on
    np.testing.assert_array_equal(freshness(values, WINDOW)[0, 0], found[WINDOW:])


def test_absence_is_told_apart_from_a_reading_at_the_centre() -> None:
    both = channels(np.array([[[0.0], [np.nan]]], np.float32))
    assert both[0, :, 0, -1].tolist() == [1.0, 0.0]
    assert np.isfinite(both).all()
