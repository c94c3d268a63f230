"""Evidence and thresholds → a score per GPU, and what it is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector.calibration import HORIZONS, Thresholds, evidence
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

    residuals: float32 [signals, gpus, steps], at least HISTORY steps.
    """
    best = ratios(residuals, signals, thresholds)
    recent: Floats = np.nansum(residuals[..., -min(HORIZONS) :], axis=-1)  # its sign: did the signal go up or down?
    return [_verdict(best[:, gpu], recent[:, gpu], signals) for gpu in range(best.shape[1])]


def ratios(residuals: Floats, signals: Sequence[Signal], thresholds: Thresholds) -> Floats:
    """The newest step's evidence over its threshold, at the worse horizon; -infinity where absent. [signals, gpus]."""
    found = evidence(residuals, signals, thresholds.spike)[..., -1] / thresholds.values[:, :, None]
    worse: Floats = np.where(np.isnan(found), -np.inf, found).max(axis=0)
    return worse


def scores(residuals: Floats, signals: Sequence[Signal], thresholds: Thresholds) -> Floats:
    """The scores of every step at once: [signals, gpus, steps] → [gpus, steps], NaN where nothing could be judged."""
    found = evidence(residuals, signals, thresholds.spike) / thresholds.values[:, :, None, None]
    flat = found.reshape(-1, *found.shape[2:])
    absent = np.isnan(flat).all(axis=0)
    result: Floats = np.where(absent, np.nan, np.nanmax(np.where(np.isnan(flat), -np.inf, flat), axis=0))
    return np.maximum(result, 0.0)


def missing(silent: int) -> Verdict:
    """A GPU that has been silent for that many steps while its exporter answers."""
    return Verdict(min(silent / MISSING_STEPS, _MOST), MISSING, ((MISSING, 1.0),))


def _verdict(ratios: Floats, recent: Floats, signals: Sequence[Signal]) -> Verdict | None:
    worst = float(ratios.max())
    if worst == -np.inf:
        return None
    excess: NDArray[np.float64] = np.square(np.maximum(ratios, 0.0), dtype=np.float64)
    total = float(excess.sum())
    if total <= 0:
        return Verdict(0.0)
    order = np.argsort(-excess, kind="stable")[:TOP]
    shares = tuple((signals[i].name, float(excess[i] / total)) for i in order if excess[i] >= _LEAST_SHARE * total)
    leading = signals[int(order[0])]
    cause = leading.cause(float(recent[order[0]])) if worst >= 1 else ""
    return Verdict(worst, cause, shares)
