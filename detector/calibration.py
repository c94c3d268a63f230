"""Residuals → evidence → thresholds: how much is too much, for the false alarms that the operator can live with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from detector.signals import Signal
from detector.telemetry import Floats

HORIZONS = (6, 24)  # steps over which residuals are averaged: gross faults soon, faint ones in time
HISTORY = max(HORIZONS)
BLOCK = 60  # steps in which an alarm counts once
_LEAST = 1.0  # no threshold below one 99 % quantile of single residuals, however quiet the calibration was
_BOUND = 5.0  # a residual counts for no more, so that the first moments of a job do not set the thresholds
_SPIKE = 2.0  # nor for more than this many thresholds, so that one wild sample is no alarm
_UNCALIBRATED = (1.0, 0.7)  # per horizon
_TAIL = 0.1  # share of the block maxima that the tail is fitted to
_HEAVIEST = 0.1  # largest tail shape believed: with few peaks the estimate of a heavier one is noise


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The evidence at which the score is 1, float32 [horizons, signals]; infinity for a signal that is not scored."""

    values: Floats

    @classmethod
    def uncalibrated(cls, signals: Sequence[Signal]) -> Thresholds:
        """One unit over the shortest horizon and less over longer ones, for residuals that nothing calibrated yet."""
        scored = np.array([signal.scored for signal in signals])
        return cls(np.where(scored, np.array(_UNCALIBRATED)[:, None], np.inf).astype(np.float32))

    @property
    def spike(self) -> Floats:
        """The largest residual that counts, [signals]."""
        largest: Floats = np.float32(_SPIKE) * self.values[0]
        return largest


def evidence(residuals: Floats, signals: Sequence[Signal], spike: Floats | None = None) -> Floats:
    """Signed means of the residuals over each horizon, turned so that positive is bad.

    residuals: float32 [signals, gpus, steps], NaN where absent → [horizons, signals, gpus, steps]. Averaging with
    the sign lets noise cancel and a lasting shift add up. A mean over less than half its horizon is NaN. The first
    steps, with less past than a horizon, are NaN too.
    """
    bound = np.full(len(signals), _BOUND, np.float32) if spike is None else np.minimum(spike, _BOUND)
    bounded = np.clip(residuals, -bound[:, None, None], bound[:, None, None])
    present = ~np.isnan(bounded)
    total = np.cumsum(np.where(present, bounded, 0.0), axis=-1, dtype=np.float64)
    count = np.cumsum(present, axis=-1, dtype=np.int32)
    means = np.full((len(HORIZONS), *residuals.shape), np.nan, np.float32)
    for index, horizon in enumerate(HORIZONS):
        if residuals.shape[-1] < horizon:
            continue
        summed, counted = total[..., horizon - 1 :].copy(), count[..., horizon - 1 :].copy()
        summed[..., 1:] -= total[..., :-horizon]
        counted[..., 1:] -= count[..., :-horizon]
        enough = counted >= (horizon + 1) // 2
        means[index, ..., horizon - 1 :] = np.where(enough, summed / np.maximum(counted, 1), np.nan)
    sign = {"high": 1.0, "low": -1.0}
    for index, signal in enumerate(signals):
        means[:, index] = (
            np.abs(means[:, index]) if signal.direction == "both" else sign[signal.direction] * means[:, index]
        )
    return means


def calibrate(residuals: Floats, signals: Sequence[Signal], step: float, budget: float) -> Thresholds:
    """Thresholds that spend the budget: `budget` false alarms per 1,000 GPU-hours, shared by signals and horizons.

    residuals: [signals, gpus, steps] of a stretch believed to be mostly healthy, not seen in training. step: seconds.
    Maxima over blocks of BLOCK steps (an alarm that lasts is one alarm) beyond their 90 % quantile are fitted with a
    generalised Pareto distribution (probability-weighted moments: Hosking and Wallis, Technometrics 29, 1987), and
    the threshold is its quantile at the share of the budget.
    """
    found = evidence(residuals, signals)
    values = np.full(found.shape[:2], np.inf, np.float32)
    scored = [index for index, signal in enumerate(signals) if signal.scored]
    chance = budget / 1000.0 * (BLOCK * step / 3600.0) / max(1, len(scored) * len(HORIZONS))
    for horizon in range(len(HORIZONS)):
        for index in scored:
            needed = _tail_quantile(_block_maxima(found[horizon, index]), chance)
            values[horizon, index] = max(_LEAST, needed)
    return Thresholds(values)


def _block_maxima(rows: Floats) -> Floats:
    """[gpus, steps] → the maximum of every full block that reported anything, flat."""
    blocks = rows.shape[1] // BLOCK
    cut = rows[:, : blocks * BLOCK].reshape(-1, BLOCK)
    reported = cut[~np.isnan(cut).all(axis=1)]
    maxima: Floats = np.nanmax(reported, axis=1) if len(reported) else np.zeros(0, np.float32)
    return maxima


def _tail_quantile(maxima: Floats, chance: float) -> float:
    """The value that a block's maximum exceeds with that chance."""
    if len(maxima) == 0:
        return 0.0
    start = float(np.quantile(maxima, 1 - _TAIL))
    peaks = np.sort(maxima[maxima > start] - start).astype(np.float64)
    if len(peaks) < 5 or chance >= _TAIL:
        return float(np.quantile(maxima, 1 - min(chance, _TAIL)))
    rank = np.arange(1, len(peaks) + 1)
    mean = float(peaks.mean())
    weighted = float((peaks * (len(peaks) - rank)).sum() / (len(peaks) * (len(peaks) - 1)))
    shape = min(max(2.0 - mean / max(mean - 2.0 * weighted, 1e-12), 0.0), _HEAVIEST)
    scale = mean * (1.0 - shape)  # keeps the tail's mean when the shape is bounded
    ratio = chance / _TAIL
    excess = -np.log(ratio) if shape == 0.0 else (ratio**-shape - 1.0) / shape
    return start + scale * float(excess)
