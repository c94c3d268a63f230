"""How well a score ranks anomalous samples above normal ones. One series; a score that is NaN ranks lowest.

Every function takes score [steps] and label bool [steps], and returns NaN where the labels hold only one class.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.float64]
Labels = NDArray[np.bool_]
Spans = NDArray[np.int64]  # [events, 2]: the first step, and the one after the last

_PA_THRESHOLDS = 100


def spans(label: Labels) -> Spans:
    """The runs of labelled samples, in order."""
    edges = np.flatnonzero(np.diff(np.concatenate([[False], label, [False]]).astype(np.int8)))
    return edges.reshape(-1, 2)


def vus_pr(score: NDArray[np.floating], label: Labels, buffer: int, thresholds: int = 250) -> float:
    """Volume under the surface of the range-based precision-recall curve over buffers of 0 to `buffer` steps.

    Paparrizos et al., "Volume under the surface", PVLDB 15, 2022, as TSB-AD computes it (Liu, Paparrizos, "The
    elephant in the room", NeurIPS 2024). Samples within half a buffer of an event count in part, and an event that is
    not touched at all costs recall.
    """
    score = _ranked(score)
    events = spans(label)
    if not _both(label):
        return float("nan")
    levels = np.sort(score)[::-1][np.linspace(0, len(score) - 1, thresholds).astype(int)]
    # A sample is predicted from its first level on: the levels fall.
    first = np.searchsorted(-levels, -score, side="left")
    predicted = np.cumsum(np.bincount(first, minlength=thresholds + 1)[:thresholds])
    areas = [_range_pr(score, first, predicted, levels, label, events, width) for width in range(buffer + 1)]
    return float(np.mean(areas))


def _range_pr(
    score: Scores, first: Spans, predicted: Spans, levels: Scores, label: Labels, events: Spans, width: int
) -> float:
    weight = _softened(label, events, width)
    near = np.flatnonzero(weight)
    hits = np.cumsum(np.bincount(first[near], weight[near], minlength=len(levels) + 1)[: len(levels)])
    core = np.flatnonzero(label)
    core_hits = np.cumsum(np.bincount(first[core], minlength=len(levels) + 1)[: len(levels)])
    # The mean of the labels as given and of those that this level could have hit.
    positives = len(core) + (hits - core_hits) / 2
    zones = _zones(events, width, len(label))
    peaks = np.array([score[begin:end].max() for begin, end in zones])
    touched = (peaks[:, None] >= levels).mean(axis=0)
    recall = np.minimum(hits / positives, 1.0) * touched
    return float(np.diff(recall, prepend=0.0) @ (hits / predicted))


def _softened(label: Labels, events: Spans, width: int) -> Scores:
    """1 within events, falling to the square root of a half at half a buffer from them."""
    weight = label.astype(np.float64)
    distance = np.arange(1, width // 2 + 1)
    if len(distance):
        fall = np.sqrt(1 - distance / width)
        for places in (events[:, 1:] - 1 + distance, events[:, :1] - distance):
            inside = (places >= 0) & (places < len(weight))
            np.add.at(weight, places[inside], np.broadcast_to(fall, places.shape)[inside])
    return np.minimum(weight, 1.0)


def _zones(events: Spans, width: int, steps: int) -> Spans:
    """The events with their buffers; what touches is one."""
    half = width // 2
    apart = events[:-1, 1] - 1 + half < events[1:, 0] - half
    begins = events[np.r_[True, apart], 0] - half
    ends = events[np.r_[apart, True], 1] + half
    return np.stack([np.maximum(begins, 0), np.minimum(ends, steps)], axis=1)


def auc_pr(score: NDArray[np.floating], label: Labels) -> float:
    """Area under the precision-recall curve as average precision, without interpolation."""
    if not _both(label):
        return float("nan")
    hits, predicted = _curve(score, label)
    return float(np.diff(hits / label.sum(), prepend=0.0) @ (hits / predicted))


def auc_roc(score: NDArray[np.floating], label: Labels) -> float:
    """Chance that an anomalous sample outscores a normal one, ties counting half."""
    if not _both(label):
        return float("nan")
    hits, predicted = _curve(score, label)
    recall, fallout = hits / label.sum(), (predicted - hits) / (~label).sum()
    return float(np.trapezoid(np.r_[0.0, recall], np.r_[0.0, fallout]))


def oracle_f1(score: NDArray[np.floating], label: Labels) -> float:
    """The best F1 of any threshold. An upper bound: the threshold is chosen by the labels."""
    if not _both(label):
        return float("nan")
    hits, predicted = _curve(score, label)
    return float((2 * hits / (label.sum() + predicted)).max())


def point_adjusted_f1(score: NDArray[np.floating], label: Labels) -> float:
    """The best F1 of 100 thresholds when one hit counts for the whole event. Inflated: a random score does well.

    Xu et al., WWW 2018, who introduced the adjustment; Kim et al., AAAI 2022, who showed what it is worth.
    """
    if not _both(label):
        return float("nan")
    score = _ranked(score)
    events = spans(label)
    peaks = np.array([score[begin:end].max() for begin, end in events])
    levels = np.linspace(score.min(), score.max(), _PA_THRESHOLDS)
    hits = (peaks > levels[:, None]) @ (events[:, 1] - events[:, 0])
    normal = np.sort(score[~label])
    false = len(normal) - np.searchsorted(normal, levels, side="right")
    return float((2 * hits / (label.sum() + hits + false)).max())


def _curve(score: NDArray[np.floating], label: Labels) -> tuple[Scores, Scores]:
    """Hits and predictions at every distinct threshold, highest first."""
    ranked = _ranked(score)
    order = np.argsort(-ranked, kind="stable")
    last = np.r_[np.flatnonzero(np.diff(ranked[order])), len(order) - 1]
    return np.cumsum(label[order])[last].astype(np.float64), (last + 1).astype(np.float64)


def _ranked(score: NDArray[np.floating]) -> Scores:
    """float64 without NaN: what was not judged ranks with the lowest score."""
    ranked = np.asarray(score, np.float64)
    absent = np.isnan(ranked)
    if absent.any():
        lowest = 0.0 if absent.all() else float(np.nanmin(ranked))
        ranked = np.where(absent, lowest, ranked)
    return ranked


def _both(label: Labels) -> bool:
    return bool(label.any() and not label.all())
