"""What the baselines see: the same samples as the detector, scaled by the training part, gaps filled."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from detector.telemetry import IDLE, Floats, Telemetry, clean

_CLIP = 20.0
_LEAST = 0.01
_CODES = ("xid",)  # no quantities


@dataclass(frozen=True, slots=True)
class Series:
    """Telemetry [gpus, steps, signals] for methods that know no gaps.

    raw: in the signals' own units, counters as increases, NaN where absent. values: in standard deviations of the
    training part, absent readings carried forward. split: the first test step. pools: rows that one model is fitted
    to. job: int32 [gpus, steps]. names: of the signals.
    """

    raw: Floats
    values: Floats
    split: int
    pools: tuple[NDArray[np.int64], ...]
    job: NDArray[np.int32]
    names: tuple[str, ...]
    step_seconds: float

    @property
    def test(self) -> Floats:
        return self.values[:, self.split :]

    def training(self, pool: NDArray[np.int64]) -> Floats:
        """The training part of a pool, [gpus of the pool, steps, signals]."""
        return self.values[pool, : self.split]


class Baseline(Protocol):
    """A method: fit to the training part, then score the test part."""

    def fit(self, series: Series) -> None:
        """Learn from the steps before `split`; what comes later must not be looked at."""

    def score(self, series: Series) -> Floats:
        """How anomalous each signal is at each test step, [gpus, test steps, signals], or one column for all."""


def prepare(telemetry: Telemetry, split: int, by_model: bool) -> Series:
    """by_model: GPUs of one model share a fit; otherwise every entity has its own."""
    readings = clean(telemetry.signals, telemetry.values).transpose(1, 2, 0)
    reported: NDArray[np.bool_] = np.any(~np.isnan(readings[:, :split]), axis=(0, 1))
    reported &= [signal.name not in _CODES for signal in telemetry.signals]
    raw = np.ascontiguousarray(readings[..., reported])
    models = np.array([gpu.model for gpu in telemetry.gpus])
    pools = [np.flatnonzero(models == model) for model in np.unique(models)] if by_model else list(
        np.arange(len(models))[:, None]
    )  # fmt: skip
    signals = [signal for signal, kept in zip(telemetry.signals, reported, strict=True) if kept]
    resolution = np.array([signal.resolution for signal in signals])
    values = np.empty_like(raw)
    for pool in pools:
        centre, spread = _scale(raw[pool, :split], resolution)
        values[pool] = np.clip((raw[pool] - centre) / spread, -_CLIP, _CLIP)
    return Series(
        raw,
        _carried_forward(values),
        split,
        tuple(pools),
        telemetry.job,
        tuple(signal.name for signal in signals),
        telemetry.step,
    )


def errors_scaled(errors: Floats, series: Series) -> Floats:
    """Absolute errors of all steps in units of what is usual in training (median and quartiles): [.., signals]."""
    size = np.abs(errors)
    scaled = np.empty_like(size)
    for pool in series.pools:
        known = size[pool, : series.split].reshape(-1, size.shape[2])
        low, middle, high = np.quantile(known, [0.25, 0.5, 0.75], axis=0)
        scaled[pool] = (size[pool] - middle) / np.maximum(high - low, _LEAST)
    return scaled[:, series.split :]


def peer_groups(series: Series, step: int) -> list[NDArray[np.int64]]:
    """Ranks of one job, and the GPUs of a pool that have no job; all entities where every pool is one entity."""
    job = series.job[:, step]
    groups = [np.flatnonzero(job == name) for name in np.unique(job[job != IDLE])]
    idle = np.flatnonzero(job == IDLE)
    together = max(len(pool) for pool in series.pools) == 1
    rest = [idle] if together else [np.intersect1d(pool, idle, assume_unique=True) for pool in series.pools]
    return [group for group in [*groups, *rest] if len(group)]


def _scale(values: Floats, resolution: NDArray[np.float64]) -> tuple[Floats, Floats]:
    """Mean and standard deviation per signal. A signal that never moved yet is given a hundredth of its size."""
    present = ~np.isnan(values)
    count = np.maximum(present.sum(axis=(0, 1)), 1)
    filled = np.where(present, values, 0.0).astype(np.float64)
    mean = filled.sum(axis=(0, 1)) / count
    deviation = np.sqrt((np.where(present, filled - mean, 0.0) ** 2).sum(axis=(0, 1)) / count)
    largest = np.abs(filled).max(axis=(0, 1))
    floor = np.maximum(resolution, np.where(largest > 0, _LEAST * largest, _LEAST))
    return mean.astype(np.float32), np.maximum(deviation, floor).astype(np.float32)


def _carried_forward(values: Floats) -> Floats:
    """Absent readings become the last one before; at the beginning the mean of the training part, 0."""
    present = ~np.isnan(values)
    last = np.where(present, np.arange(values.shape[1])[None, :, None], -1)
    np.maximum.accumulate(last, axis=1, out=last)
    filled = np.take_along_axis(values, np.maximum(last, 0), axis=1)
    return np.where(last >= 0, filled, np.float32(0))
