"""Evidence and thresholds → a score per GPU, and what it is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detector.calibration import HORIZONS, Thresholds, evidence, habitual, rows_of, sizes
from detector.signals import Signal
from detector.telemetry import Floats

TOP = 3
MISSING_STEPS = 3  # of silence, and a GPU whose neighbours report is called missing
MISSING = "missing"
_MOST = 10.0
_HINT = 0.5  # the score from which a signal may be what brings the alarm about


@dataclass(frozen=True, slots=True)
class Verdict:
    """One GPU at one step. The score is 1 at the alert threshold; contributions are shares, largest first."""

    score: float
    cause: str = ""
    contributions: tuple[tuple[str, float], ...] = ()


def causes_of(residuals: Floats, signals: Sequence[Signal], thresholds: Thresholds) -> list[str]:
    """What the newest step's evidence points to, whether it is an alarm or not; one of each GPU.

    Of the signals that are half an alarm by themselves, or the worst of them, the cause that brings the others about.
    """
    by_row = _row_ratios(residuals, signals, thresholds, newest=1)[..., -1]
    ratio, by_signal = _together(by_row[..., None], residuals, signals)[..., 0], _by_signal(by_row[:-1], signals)
    worst = by_signal.argmax(axis=0) * len(signals) + np.arange(len(signals))[:, None]
    recent: Floats = np.nansum(residuals[..., -min(HORIZONS) :], axis=-1)
    upward = np.take_along_axis(recent, worst, axis=0) > 0
    rows = rows_of(signals, len(residuals))
    names = sorted({row.cause(sign) for row in rows for sign in (-1.0, 1.0)})
    rank, name = (
        np.where(upward, *(np.array([tell(row, sign) for row in rows], np.int64)[worst] for sign in (1.0, -1.0)))
        for tell in (Signal.rank, lambda row, sign: names.index(row.cause(sign)))
    )
    told = ratio >= np.minimum(_HINT, ratio.max(axis=0, initial=-np.inf))
    for key in (rank, -ratio, name):  # the lowest of the first, of equal ones of the second ...
        told &= key == np.where(told, key, np.inf).min(axis=0, initial=np.inf)
    return [names[place] for place in np.take_along_axis(name, told.argmax(axis=0)[None], axis=0)[0].tolist()]


def worst(ratios: Floats) -> Floats:
    """The score: the largest ratio, not below 0; NaN where nothing was judged. [signals, gpus] → [gpus]."""
    largest = ratios.max(axis=0, initial=-np.inf)
    score: Floats = np.where(largest == -np.inf, np.nan, np.maximum(largest, 0.0)).astype(np.float32)
    return score


def ratios(residuals: Floats, signals: Sequence[Signal], thresholds: Thresholds) -> Floats:
    """The newest step's evidence over its threshold, at the worse horizon; -infinity where absent. [signals, gpus]."""
    return all_ratios(residuals, signals, thresholds, newest=1)[..., -1]


def all_ratios(residuals: Floats, signals: Sequence[Signal], thresholds: Thresholds, newest: int = 0) -> Floats:
    """Every step's evidence over its threshold, or only the `newest` steps': [signals, gpus, steps].

    The worst row and horizon of each signal. Where the signals together say more than the worst of them, they are all
    raised by the same factor, so that the largest is the score and the shares stay. Where there are habits, the squares
    are then as what each signal adds.
    """
    return _together(_row_ratios(residuals, signals, thresholds, newest), residuals, signals)


def _row_ratios(residuals: Floats, signals: Sequence[Signal], thresholds: Thresholds, newest: int) -> Floats:
    """Evidence over its threshold at the worse horizon, [rows + 1, gpus, steps]; -infinity where absent."""
    found = evidence(residuals, signals, thresholds.spike, newest) / thresholds.values[:, :, None, None]
    worst: Floats = np.where(np.isnan(found), -np.inf, found).max(axis=0)
    return worst


def _together(worst: Floats, residuals: Floats, signals: Sequence[Signal]) -> Floats:
    """[rows + 1, gpus, steps] → [signals, gpus, steps], see `all_ratios`."""
    each: Floats = _by_signal(worst[:-1], signals).max(axis=0)
    together = worst[-1]
    said = together > each.max(axis=0, initial=-np.inf)
    if habitual(residuals, signals):
        added = np.sqrt(sizes(residuals, signals, together.shape[-1]))
        each = np.where(said, np.where(np.isnan(added), -np.inf, added), each)
    most = each.max(axis=0, initial=-np.inf)
    raised = said & (most > 0)
    each *= np.where(raised, together / np.where(raised, most, 1.0), 1.0).astype(np.float32)
    return each


def _by_signal(rows: Floats, signals: Sequence[Signal]) -> Floats:
    """[rows, ...] → [times, signals, ...]; a signal may have several rows."""
    return rows.reshape(len(rows) // max(1, len(signals)), len(signals), *rows.shape[1:])


def missing(silent: int) -> Verdict:
    """A GPU that has been silent for that many steps while its exporter answers."""
    return Verdict(min(silent / MISSING_STEPS, _MOST), MISSING, ((MISSING, 1.0),))
