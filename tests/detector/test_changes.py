"""How far a GPU has gone from where it stood earlier in the same job."""

import numpy as np
import pytest
from numpy.typing import NDArray

from detector.calibration import BOUND
from detector.changes import GAP, PAST, REACH, changes, tellable
from detector.signals import Signal
from detector.telemetry import Floats

NAN = np.float32(np.nan)


def changed(plain: NDArray[np.float64], job: NDArray[np.int32] | None = None) -> Floats:
    """Of one signal of one GPU, [REACH + steps] → [steps]."""
    of = np.zeros(len(plain), np.int32) if job is None else job
    found: Floats = changes(plain[None, None].astype(np.float32), of[None])[0, 0]
    return found


def test_who_has_always_stood_apart_has_not_changed_and_who_goes_further_has_by_so_much() -> None:
    plain = np.full(REACH + 60, 3.0)
    plain[REACH + 20 :] = 4.5
    found = changed(plain)
    assert not found[:20].any()
    assert found[20 : 20 + GAP].tolist() == pytest.approx([1.5] * GAP)
    assert (np.diff(found[20 + GAP - 1 :]) <= 0).all()  # in time, it is what is usual


def test_back_where_its_peers_are_or_beyond_them_counts_from_there() -> None:
    plain = np.full(REACH + 4, -2.0)
    plain[-3:] = 0.0, -1.0, 1.5
    assert changed(plain).tolist() == pytest.approx([0.0, 0.0, 0.0, 1.5])


def test_only_the_same_job_counts_and_enough_of_it() -> None:
    plain = np.full(REACH + PAST + GAP, 5.0)
    job = np.zeros(len(plain), np.int32)
    job[REACH:] = 1
    found = changed(plain, job)
    first = GAP + PAST // 2 - 1
    assert np.isnan(found[:first]).all()
    assert not found[first:].any()
    plain[: GAP + PAST] = NAN
    assert np.isnan(changed(plain[: REACH + 1])).all()


def test_one_wild_residual_does_not_hide_what_comes() -> None:
    plain = np.zeros(REACH + 1)
    plain[3], plain[-1] = 1e6, 2.0
    assert changed(plain)[0] == pytest.approx(2.0 - BOUND / PAST)


def test_the_newest_step_alone_is_as_among_all() -> None:
    random = np.random.default_rng(3)
    plain = random.normal(0, 3, (4, 7, REACH + 80)).astype(np.float32)
    plain[random.random(plain.shape) < 0.3] = NAN
    job = np.repeat(random.integers(-1, 3, (7, 13)), 10, axis=1)[:, : REACH + 80].astype(np.int32)
    whole = changes(plain, job)
    for step in (0, 1, 40, 79):
        alone = changes(plain[..., step : step + REACH + 1], job[:, step : step + REACH + 1])
        np.testing.assert_array_equal(alone[..., 0], whole[..., step])
    assert np.isfinite(whole).any()


def test_what_a_job_sets_and_what_counts_errors_changes_as_it_likes() -> None:
    signals = [Signal("power"), Signal("activity", follows="job"), Signal("errors", kind="counter")]
    told = tellable(np.ones((3, 2, 5), np.float32), signals)
    np.testing.assert_array_equal(np.isnan(told).all(axis=(1, 2)), [False, True, True])
