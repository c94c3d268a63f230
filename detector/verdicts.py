"""Evidence and thresholds → a score per GPU, and what it is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector.calibration import HORIZONS, Thresholds, evidence, rows_of
from detector.signals import Signal
from detector.telemetry import Floats

TOP = 3
MISSING_STEPS = 3  # of silence, and a GPU whose neighbours report is called missing
MISSING = "missing"
_MOST = 10.0
_LEAST_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Verdict:
    """One GPU at one step. The score is 1 at the alert threshold; contributions are shares, largest first."""

    score: float
    cause: str = ""
    contributions: tuple[tuple[str, float], ...] = ()


def judge(residuals: Floats, signals: Sequence[Signal], thresholds: Thresholds) -> list[Verdict | None]:
    """The newest step's verdict per GPU; None where nothing could be judged.

    residuals: float32 [rows, gpus, steps], at least HISTORY steps.
    """
    by_row = _row_ratios(residuals, signals, thresholds, newest=1)[..., -1]
    best = _together(by_row, signals)
    recent: Floats = np.nansum(residuals[..., -min(HORIZONS) :], axis=-1)  # its sign: did the signal go up or down?
    return [_verdict(best[:, gpu], by_row[:-1, gpu], recent[:, gpu], signals) for gpu in range(best.shape[1])]


def ratios(residuals: Floats, signals: Sequence[Signal], thresholds: Thresholds) -> Floats:
    """The newest step's evidence over its threshold, at the worse horizon; -infinity where absent. [signals, gpus]."""
    return all_ratios(residuals, signals, thresholds, newest=1)[..., -1]


def all_ratios(residuals: Floats, signals: Sequence[Signal], thresholds: Thresholds, newest: int = 0) -> Floats:
    """Every step's evidence over its threshold, or only the `newest` steps': [signals, gpus, steps].

    The worst row and horizon of each signal. Where the signals together say more than the worst of them, they are all
    raised by the same factor, so that the largest is the score and the shares stay.
    """
    return _together(_row_ratios(residuals, signals, thresholds, newest), signals)


def _row_ratios(residuals: Floats, signals: Sequence[Signal], thresholds: Thresholds, newest: int) -> Floats:
    """Evidence over its threshold at the worse horizon, [rows + 1, gpus, steps]; -infinity where absent."""
    found = evidence(residuals, signals, thresholds.spike, newest) / thresholds.values[:, :, None, None]
    worst: Floats = np.where(np.isnan(found), -np.inf, found).max(axis=0)
    return worst


def _together(worst: Floats, signals: Sequence[Signal]) -> Floats:
    """[rows + 1, ...] → [signals, ...], see `all_ratios`."""
    each: Floats = _by_signal(worst[:-1], signals).max(axis=0)
    together = worst[-1]
    most = each.max(axis=0, initial=-np.inf)
    raised = (together > most) & (most > 0)
    each *= np.where(raised, together / np.where(raised, most, 1.0), 1.0).astype(np.float32)
    return each


def _by_signal(rows: Floats, signals: Sequence[Signal]) -> Floats:
    """[rows, ...] → [times, signals, ...]; a signal may have several rows."""
    return rows.reshape(len(rows) // max(1, len(signals)), len(signals), *rows.shape[1:])


def scores(residuals: Floats, signals: Sequence[Signal], thresholds: Thresholds) -> Floats:
    """The scores of every step at once: [signals, gpus, steps] → [gpus, steps], NaN where nothing could be judged."""
    worst = all_ratios(residuals, signals, thresholds).max(axis=0, initial=-np.inf)
    result: Floats = np.where(worst == -np.inf, np.nan, np.maximum(worst, 0.0))
    return result


def missing(silent: int) -> Verdict:
    """A GPU that has been silent for that many steps while its exporter answers."""
    return Verdict(min(silent / MISSING_STEPS, _MOST), MISSING, ((MISSING, 1.0),))


def _verdict(ratios: Floats, by_row: Floats, recent: Floats, signals: Sequence[Signal]) -> Verdict | None:
    worst = float(ratios.max())
    if worst == -np.inf:
        return None
    excess: NDArray[np.float64] = np.square(np.maximum(ratios, 0.0), dtype=np.float64)
    total = float(excess.sum())
    if total <= 0:
        return Verdict(0.0)
    order = np.argsort(-excess, kind="stable")[:TOP]
    shares = tuple((signals[i].name, float(excess[i] / total)) for i in order if excess[i] >= _LEAST_SHARE * total)
    return Verdict(worst, _cause(ratios, by_row, recent, signals) if worst >= 1 else "", shares)


def _cause(ratios: Floats, by_row: Floats, recent: Floats, signals: Sequence[Signal]) -> str:
    """Of the signals that are an alarm by themselves, the cause that brings the others about."""
    rows = rows_of(signals, len(by_row))
    found = []
    for place in np.flatnonzero(ratios >= min(1.0, float(ratios.max()))).tolist():
        row = max(range(place, len(by_row), len(signals)), key=lambda each: float(by_row[each]))
        deviation = float(recent[row])
        found.append((rows[row].rank(deviation), -float(ratios[place]), rows[row].cause(deviation)))
    return min(found)[2]
