"""The measures, against what TSB-AD's own module says of the same series, and small cases by hand."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from detector.evaluation import affiliation, events, metrics
from detector.evaluation.events import Event

Vector = dict[str, Any]

VECTORS: list[Vector] = json.loads(Path(__file__).with_name("tsb_ad.json").read_text())["cases"]
# TSB-AD adds 1e-5 to the denominator of F1.
MEASURES: dict[str, tuple[Callable[..., float], float]] = {
    "auc_pr": (metrics.auc_pr, 1e-9),
    "auc_roc": (metrics.auc_roc, 1e-9),
    "f1": (metrics.oracle_f1, 6e-6),
    "pa_f1": (metrics.point_adjusted_f1, 1e-9),
    "affiliation_f1": (affiliation.affiliation_f1, 1e-9),
}


def series(vector: Vector) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    score = np.array(vector["score"])
    label = np.zeros(len(score), bool)
    for begin, end in vector["events"]:
        label[begin:end] = True
    return score, label


@pytest.mark.parametrize("vector", VECTORS, ids=lambda vector: vector["name"])
def test_vus_pr_is_tsb_ads(vector: Vector) -> None:
    assert metrics.vus_pr(*series(vector), vector["buffer"]) == pytest.approx(vector["vus_pr"], abs=1e-9)


# Not frozen: TSB-AD leaves an event's step 0 out of the adjustment, and has no affiliation without a prediction.
@pytest.mark.parametrize(
    ("vector", "measure"), [(vector, name) for vector in VECTORS for name in MEASURES if vector[name] is not None]
)
def test_the_other_measures_are_tsb_ads(vector: Vector, measure: str) -> None:
    function, tolerance = MEASURES[measure]
    assert function(*series(vector)) == pytest.approx(vector[measure], abs=tolerance)


def test_a_perfect_score_is_one_by_every_measure() -> None:
    label = np.zeros(400, bool)
    label[100:140] = True
    score = label.astype(float)
    assert metrics.auc_pr(score, label) == metrics.auc_roc(score, label) == metrics.oracle_f1(score, label) == 1
    assert metrics.vus_pr(score, label, 0) == pytest.approx(1)
    assert affiliation.affiliation_f1(score, label) == pytest.approx(1)


def test_labels_of_one_class_have_no_measure() -> None:
    score = np.random.default_rng(1).random(50)
    for label in (np.zeros(50, bool), np.ones(50, bool)):
        assert np.isnan(metrics.vus_pr(score, label, 4))
        assert all(np.isnan(function(score, label)) for function, _ in MEASURES.values())


def test_what_was_not_judged_ranks_lowest() -> None:
    label = np.array([False, True, True, False])
    score = np.array([np.nan, 0.9, np.nan, 0.1])
    assert metrics.auc_pr(score, label) == metrics.auc_pr(np.array([0.1, 0.9, 0.1, 0.1]), label)


def test_a_lasting_false_alarm_counts_once_in_every_bin() -> None:
    scores = np.zeros((2, 100))
    scores[0, 10:50] = 5.0
    found = events.bin_maxima(scores, np.zeros((2, 100), bool), 10)
    assert len(found) == 20
    assert (found == 5.0).sum() == 4


def test_recall_grows_with_the_budget_and_alarms_in_recovery_are_not_false() -> None:
    scores = np.zeros((2, 100))
    scores[0, 30:35], scores[0, 35:40], scores[1, 80] = 3.0, 9.0, 4.0
    happened = [Event((0,), 30, 35)]
    judged = events.labels(happened, 2, 100), events.labels(happened, 2, 100, after=5)
    assert events.recall_at_budget(scores, happened, judged[1], 10, 0) == 0
    assert events.recall_at_budget(scores, happened, judged[1], 10, 1) == 1
    assert events.recall_at_budget(scores, happened, judged[0], 10, 1) == 0


def test_the_delay_is_to_the_first_alarm_on_any_of_an_events_entities() -> None:
    scores = np.zeros((3, 100))
    scores[2, 24] = 2.0
    scores[0, 22] = 2.0
    found = events.delays(scores, [Event((1, 2), 20, 40), Event((1,), 20, 40)], 1.0)
    assert found[0] == 4
    assert np.isnan(found[1])


def test_hit_rate_counts_the_guilty_among_the_first_blamed() -> None:
    blamed = ["b", "x", "a", "y", "c"]
    assert events.hit_rate(blamed, ["a", "b"], 1.0) == 0.5
    assert events.hit_rate(blamed, ["a", "b"], 1.5) == 1.0
