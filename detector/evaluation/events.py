"""What operators feel: how many events are found, how soon, and at how many false alarms."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Scores = NDArray[np.floating]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Event:
    """One anomaly: the entities it befalls and its steps, `start` up to but without `end`.

    creeping: it grows slowly, so that its delay says nothing. signals: those that are to blame, where known.
    """

    entities: tuple[int, ...]
    start: int
    end: int
    kind: str = "labelled"
    severity: float = 1.0
    creeping: bool = False
    signals: tuple[str, ...] = ()


def labels(events: Sequence[Event], entities: int, steps: int, after: int = 0) -> Mask:
    """Which samples are anomalous, bool [entities, steps]; with `after`, that many steps of recovery too."""
    mask = np.zeros((entities, steps), np.bool_)
    for event in events:
        mask[list(event.entities), event.start : event.end + after] = True
    return mask


def bin_maxima(scores: Scores, excused: Mask, width: int) -> NDArray[np.float64]:
    """The highest score in each bin of `width` steps of each entity, highest first; each may be one false alarm.

    Bins are fixed: were adjacent alarms merged instead, a score that always alarms would have a single one.
    excused: samples in which an alarm is not false, of events and of the recovery from them.
    """
    judged = np.where(excused | np.isnan(scores), -np.inf, scores).astype(np.float64)
    bins = -(-judged.shape[1] // width)
    padded = np.full((len(judged), bins * width), -np.inf)
    padded[:, : judged.shape[1]] = judged
    maxima = padded.reshape(-1, width).max(axis=1)
    return np.sort(maxima[maxima > -np.inf])[::-1]


def threshold(maxima: NDArray[np.float64], allowed: float) -> float:
    """The lowest threshold that at most `allowed` bins exceed. It is chosen on the test data: an upper bound."""
    count = int(allowed)
    return float(maxima[count]) if count < len(maxima) else float("-inf")


def delays(scores: Scores, events: Sequence[Event], above: float) -> NDArray[np.float64]:
    """Steps from each event's start to the first alarm (score > above) on any entity of it; NaN where there is none."""
    found = np.full(len(events), np.nan)
    for index, event in enumerate(events):
        alarms = np.flatnonzero((scores[list(event.entities), event.start : event.end] > above).any(axis=0))
        if len(alarms):
            found[index] = alarms[0]
    return found


def recall_at_budget(scores: Scores, events: Sequence[Event], excused: Mask, width: int, allowed: float) -> float:
    """Share of the events found at no more than `allowed` false alarms; NaN without events."""
    if not events:
        return float("nan")
    above = threshold(bin_maxima(scores, excused, width), allowed)
    return float(np.mean(~np.isnan(delays(scores, events, above))))


def hit_rate(blamed: Sequence[str], guilty: Sequence[str], share: float) -> float:
    """Share of an event's guilty signals among the first `share` times as many that are blamed.

    HitRate@100 % and @150 %: Su et al., KDD 2019. blamed: all signals, the most suspicious first.
    """
    first = blamed[: int(share * len(guilty))]
    return len(set(first) & set(guilty)) / len(guilty)
