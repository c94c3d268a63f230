"""Ranks of a job that nobody names are known by what they do together."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from numpy.typing import NDArray

from detector.batches import peers
from detector.contexts import alone
from detector.lockstep import LAG, SPAN, ranks
from detector.telemetry import IDLE, Floats
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


def test_the_model_sees_the_ranks_of_a_nameless_job_and_nobody_is_judged_by_them() -> None:
    """Two jobs that no label names, on eight GPUs each; the others idle."""
    named = fleets.telemetry(steps=120)
    random = np.random.default_rng(5)
    values = named.values.copy()
    for first, period in ((0, 7), (8, 11)):
        utilization, power = work(8, period, random, 120)
        values[fleets.row("utilization_ratio"), first : first + 8] = utilization
        values[fleets.row("power_watts"), first : first + 8] = power
    fleet = replace(named, values=values, job=np.full_like(named.job, IDLE), jobs=())
    topologies, graph, context, _ = peers(fleet, fleet.values, STATE, 119)
    found = graph[0]["job"]
    assert [sorted(found.members[start:end]) for start, end in pairwise(found.offsets)] == [
        list(range(8)),
        list(range(8, 16)),
    ]
    assert not len(topologies[0]["job"].members)
    assert alone(context[:16, 0]).all()
    _, graph, *_ = peers(replace(fleet, edges=frozenset({"node", "rack", "load"})), fleet.values, STATE, 119)
    assert not len(graph[0]["job"].members)


def test_a_job_that_has_a_name_keeps_its_ranks() -> None:
    fleet = fleets.telemetry(steps=120)
    topologies, graph, *_ = peers(fleet, fleet.values, STATE, 119)
    np.testing.assert_array_equal(graph[0]["job"].of, topologies[0]["job"].of)
    assert (topologies[0]["job"].of[:16] == 0).all()
