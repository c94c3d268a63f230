"""Affiliation precision and recall: how close predicted and real events are, against what chance would do.

Huet, Navarro, Rossi, "Local evaluation of time series anomaly detection algorithms", KDD 2022. A random score does
well by it too: compare with the random score only.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector.evaluation.metrics import Labels, Scores, Spans, spans

_THRESHOLDS = 100
# What is integrated is linear between quarters of a step, so the value amid each quarter gives it exactly.
_QUARTERS = (np.arange(4) + 0.5) / 4


@dataclass(frozen=True, slots=True)
class _Zone:
    """The stretch of time that is closer to one event than to any other, and the event; in steps."""

    low: float
    high: float
    begin: int
    end: int


def affiliation_f1(score: NDArray[np.floating], label: Labels) -> float:
    """The best affiliation F1 of 100 thresholds. NaN where the labels hold only one class."""
    if not label.any() or label.all():
        return float("nan")
    ranked = np.nan_to_num(np.asarray(score, np.float64), nan=np.nanmin(score))
    zones = _zones(spans(label), len(label))
    levels = np.linspace(ranked.min(), ranked.max(), _THRESHOLDS)
    # At the highest level nothing is predicted, which has no precision.
    return max((_f1(ranked > level, zones) for level in levels[:-1]), default=0.0)


def _zones(events: Spans, steps: int) -> list[_Zone]:
    middles = (events[:-1, 1] + events[1:, 0]) / 2
    lows, highs = np.r_[0.0, middles], np.r_[middles, float(steps)]
    return [
        _Zone(float(low), float(high), int(begin), int(end))
        for low, high, (begin, end) in zip(lows, highs, events, strict=True)
    ]


def _f1(predicted: Labels, zones: list[_Zone]) -> float:
    precisions, recalls = zip(*(_precision_recall(predicted, zone) for zone in zones), strict=True)
    found = [value for value in precisions if value is not None]
    if not found:
        return 0.0
    precision, recall = float(np.mean(found)), float(np.mean(recalls))
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def _precision_recall(predicted: Labels, zone: _Zone) -> tuple[float | None, float]:
    first, last = int(np.floor(zone.low)), int(np.ceil(zone.high))
    steps = np.flatnonzero(predicted[first:last]) + first
    if len(steps) == 0:
        return None, 0.0
    # A zone may end within a step; only what lies inside counts.
    points = (steps[:, None] + _QUARTERS).ravel()
    points = points[(points > zone.low) & (points < zone.high)]
    distance = np.maximum(np.maximum(zone.begin - points, points - zone.end), 0.0)
    precision = float(_closer_than_chance(points, distance, zone).mean())

    real = (np.arange(zone.begin, zone.end)[:, None] + _QUARTERS).ravel()
    begins, ends = np.maximum(steps, zone.low), np.minimum(steps + 1, zone.high)
    after = np.searchsorted(begins, real, side="right")
    left = np.where(after > 0, np.maximum(real - ends[np.maximum(after - 1, 0)], 0.0), np.inf)
    right = np.where(after < len(begins), begins[np.minimum(after, len(begins) - 1)] - real, np.inf)
    return precision, float(_farther_by_chance(real, np.minimum(left, right), zone).mean())


def _closer_than_chance(points: Scores, distance: Scores, zone: _Zone) -> Scores:
    """The chance that a random place in the zone is farther from the event than each point is."""
    width = zone.high - zone.low
    nearer = np.minimum(distance, zone.begin - zone.low) + np.minimum(distance, zone.high - zone.end)
    inside = (points >= zone.begin) & (points <= zone.end)
    chance: Scores = np.where(inside, 1.0, 1 - (zone.end - zone.begin + nearer) / width)
    return chance


def _farther_by_chance(real: Scores, distance: Scores, zone: _Zone) -> Scores:
    """The chance that a random place in the zone is farther from each real point than the nearest prediction is."""
    nearer = np.minimum(real + distance, zone.high) - np.maximum(real - distance, zone.low)
    chance: Scores = 1 - nearer / (zone.high - zone.low)
    return chance
