"""Ranks of a job that nobody names are known by what they do together."""

from dataclasses import replace

import numpy as np
import pytest
from numpy.typing import NDArray

from detector.calibration import HISTORY
from detector.lockstep import LAG, SPAN, ranks
from detector.residuals import PeerJudge
from detector.telemetry import IDLE, Floats, Telemetry
from tests.detector import fleets

STEPS = LAG + SPAN
STATE = ("utilization_ratio", "power_watts")
EVERYBODY = np.ones(12, np.bool_)
ALIKE = np.zeros(12, np.int64)


def work(gpus: int, period: int, random: np.random.Generator, steps: int = STEPS) -> Floats:
    """Utilisation and power of ranks that write a checkpoint every so many steps, [2, gpus, steps]."""
    busy = np.where(np.arange(steps) % period == 0, 0.3, 0.95)
    shape = np.stack([busy + 0.01 * random.standard_normal((gpus, steps)) for _ in range(2)])
    shape[1] = 70 + 500 * shape[1]
    return shape.astype(np.float32)


@pytest.fixture
def readings() -> Floats:
    """Four ranks of one job, four of another, and four that work steadily."""
    random = np.random.default_rng(3)
    return np.concatenate([work(4, 7, random), work(4, 9, random), work(4, STEPS, random)[..., ::-1]], axis=1)


def companies(codes: NDArray[np.int32]) -> set[frozenset[int]]:
    return {frozenset(np.flatnonzero(codes == code).tolist()) for code in np.unique(codes[codes >= 0])}


def test_who_pauses_together_is_taken_for_one_job_and_steady_work_for_none(readings: Floats) -> None:
    found = ranks(readings, EVERYBODY, ALIKE)
    assert companies(found) == {frozenset(range(4)), frozenset(range(4, 8))}


def test_models_and_those_whose_job_is_known_stay_apart(readings: Floats) -> None:
    model = np.where(np.arange(12) < 2, 0, 1)
    assert companies(ranks(readings, EVERYBODY, model)) == {
        frozenset({0, 1}),
        frozenset({2, 3}),
        frozenset(range(4, 8)),
    }
    unnamed = np.arange(12) >= 3
    assert companies(ranks(readings, unnamed, ALIKE)) == {frozenset(range(4, 8))}


def test_gaps_do_no_harm_and_who_is_mostly_silent_is_in_no_company(readings: Floats) -> None:
    readings[:, 0, 5:9] = np.nan
    readings[:, 4, :20] = np.nan
    assert companies(ranks(readings, EVERYBODY, ALIKE)) == {frozenset(range(4)), frozenset(range(5, 8))}
    assert (ranks(np.full_like(readings, np.nan), EVERYBODY, ALIKE) == -1).all()


def test_what_goes_wrong_now_does_not_dissolve_the_company(readings: Floats) -> None:
    readings[:, 1, -LAG:] = 0.5
    assert frozenset(range(4)) in companies(ranks(readings, EVERYBODY, ALIKE))


def unnamed_fleet() -> Telemetry:
    """Twelve GPUs at work for two jobs that no label names, five long minutes; the others idle."""
    whole = fleets.telemetry(steps=120)
    random = np.random.default_rng(5)
    values = whole.values.copy()
    for first, period in ((0, 7), (8, 11)):
        utilization, power = work(8, period, random, 120)
        values[fleets.row("utilization_ratio"), first : first + 8] = utilization
        values[fleets.row("power_watts"), first : first + 8] = power
    values[fleets.row("sm_clock_hertz"), :16] = 1.98e9
    return replace(whole, values=values, job=np.full_like(whole.job, IDLE), jobs=())


def test_a_straggler_is_seen_beside_the_ranks_of_its_nameless_job() -> None:
    fleet = unnamed_fleet()
    fleet.values[fleets.row("utilization_ratio"), 3, -HISTORY:] *= 0.5
    judge = PeerJudge(fleet.signals, STATE)
    found = judge.residuals(fleet, 120 - HISTORY).own[fleets.row("utilization_ratio")]
    assert found[3, -1] < -1
    assert np.abs(found[[0, 1, 2, 4, 5, 6, 7], -1]).max() < 0.5
    without = judge.residuals(replace(fleet, edges=frozenset({"node"})), 120 - HISTORY).own
    assert np.isnan(without[fleets.row("utilization_ratio"), 3, -1])
