"""What the model sees of a GPU: its signals at three time scales, and the median of each of its peer groups."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Self

import numpy as np
from numba import njit
from numpy.typing import NDArray

from detector.signals import Signal
from detector.telemetry import Floats
from detector.topology import PRESENT, Topology
from kernels import median_mad, peer_deviation

WINDOW = 48  # steps that a feature looks back
MEMORY = (0.0, 4.0, 16.0)  # time constants in steps: now, short, long
CHANNELS = len(MEMORY) + 1  # and how fresh the newest sample is
LATELY = 6  # steps at the beginning of a window in which somebody who is not new has reported
TREND = 16  # steps over which a reading's own pace is taken
CLIP = 10.0
_RARE = 0.001  # share of the readings
Bools = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Scaling:
    """Robust centre and spread of each signal, [models + 1, signals] each; the last row is for unknown GPU models.

    lowest, highest: what was commonly seen of it, in these units. idle: what idle GPUs report; NaN where none was.
    """

    centre: Floats
    spread: Floats
    lowest: Floats
    highest: Floats
    idle: Floats

    @classmethod
    def fit(cls, values: Floats, model: NDArray[np.int64], models: int, resolution: Floats) -> Scaling:
        """values: [signals, gpus, steps]; model: [gpus], -1 where unknown; resolution: [signals], a floor."""
        everyone = np.ones(len(model), dtype=bool)
        rows = [_scale(values[:, mine], resolution) for mine in [*(model == m for m in range(models)), everyone]]
        centre, spread, lowest, highest = (np.stack(each) for each in zip(*rows, strict=True))
        return cls(centre, spread, lowest, highest, np.full_like(centre, np.nan))

    def knowing_idle(self, scaled: Sequence[Floats], model: Sequence[NDArray[np.int64]], idle: Sequence[Bools]) -> Self:
        """The same with the medians of idle GPUs. Of each recording: [signals, gpus, steps], [gpus], [gpus, steps]."""
        found = np.full_like(self.idle, np.nan)
        for number in range(len(found) - 1):
            parts = [
                plane[:, of == number][:, resting[of == number]]
                for plane, of, resting in zip(scaled, model, idle, strict=True)
            ]
            together = np.concatenate(parts, axis=1)
            known = (~np.isnan(together)).any(axis=1)
            if known.any():
                found[number, known] = np.nanmedian(together[known], axis=1)
        return replace(self, idle=found)

    def apply(self, values: Floats, model: NDArray[np.int64]) -> Floats:
        """values: [signals, gpus, steps], model: [gpus] → robust units, clipped: no outlier swamps the model."""
        centre, spread = self.centre[model].T[:, :, None], self.spread[model].T[:, :, None]
        scaled: Floats = values - centre
        scaled /= spread
        return np.clip(scaled, -CLIP, CLIP, out=scaled)

    def seen(self, channels: Floats, model: NDArray[np.int64]) -> Floats:
        """Readings as far as they are common: of what it hardly ever saw, a network makes anything.

        channels: [signals, gpus, steps, CHANNELS], bounded in place but for the last, which is no reading.
        """
        lowest, highest = (each[model].T[:, :, None, None] for each in (self.lowest, self.highest))
        np.clip(channels[..., :-1], lowest, highest, out=channels[..., :-1])
        return channels


def _scale(values: Floats, resolution: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """Centre, spread, and the lowest and the highest that are common, in these units; [signals] each."""
    flat = values.reshape(values.shape[0], -1)
    centre, spread = np.zeros(len(flat), np.float32), np.ones(len(flat), np.float32)
    ends = np.zeros((2, len(flat)), np.float32)
    for signal, row in enumerate(flat):
        present = row[~np.isnan(row)]
        if len(present):
            lowest, low, middle, high, highest = np.quantile(present, [_RARE, 0.05, 0.5, 0.95, 1 - _RARE])
            centre[signal] = middle
            spread[signal] = max(float(high - low) / 2, float(resolution[signal]), 1e-6 * abs(float(middle)), 1e-9)
            ends[:, signal] = (lowest - middle) / spread[signal], (highest - middle) / spread[signal]
    return centre, spread, *np.clip(ends, -CLIP, CLIP)


def smooth(values: Floats, memory: float, first: int = 0) -> Floats:
    """Exponential mean with a time constant of `memory` steps over the last WINDOW steps, absent samples left out.

    values: [..., steps] → [..., steps - first]: the means of step `first` and later, each looking back only.
    The window is finite, so one live step and the same step of a recording come out equal.
    """
    if memory == 0.0:
        return values[..., first:]
    rows = np.ascontiguousarray(values).reshape(-1, values.shape[-1])
    means = _means(rows, np.exp(-np.arange(WINDOW) / memory), first)
    return means.reshape(*values.shape[:-1], means.shape[-1])


@njit(cache=True, nogil=True)
def _means(rows: Floats, weights: NDArray[np.float64], first: int) -> Floats:
    """[rows, steps] → the weighted means of step `first` and later; weights by lag."""
    means = np.full((rows.shape[0], rows.shape[1] - first), np.nan, np.float32)
    for row in range(rows.shape[0]):
        for step in range(first, rows.shape[1]):
            total, weight = 0.0, 0.0
            for lag in range(min(weights.size, step + 1)):
                value = rows[row, step - lag]
                if not np.isnan(value):
                    total += weights[lag] * value
                    weight += weights[lag]
            if weight > 1e-6:
                means[row, step - first] = total / weight
    return means


@njit(cache=True, nogil=True)
def unchanged(values: Floats, first: int, twin: NDArray[np.int64], resolution: Floats) -> Floats:
    """For how many steps, at most WINDOW, a reading has been the very same; NaN where there is none.

    Of a signal with a twin, how far that one has gone meanwhile, in its resolution; NaN where it does not report.
    [signals, gpus, steps] → [signals, gpus, steps - first]. Steps without a reading neither count nor end it. NaN also
    for who has come only lately and never changed: since when is not known. twin: see `twins`, [signals]; resolution:
    [signals].
    """
    signals, gpus, steps = values.shape
    runs = np.full((signals, gpus, steps - first), np.nan, np.float32)
    for signal in range(signals):
        for gpu in range(gpus):
            last, run, since, newest = np.float32(np.nan), 0, 0, 0
            for step in range(max(0, first - WINDOW), steps):
                value = values[signal, gpu, step]
                if np.isnan(value):
                    continue
                since = since if value == last or np.isnan(last) else newest + 1
                run = min(run + 1, WINDOW) if value == last else 0
                last, newest = value, step
                if step >= first and (run == WINDOW or not _newcomer(values[signal, gpu, : step + 1])):
                    if twin[signal] < 0:
                        runs[signal, gpu, step - first] = run
                    else:
                        moving = values[twin[signal], gpu, max(since, step - WINDOW) : step + 1]
                        runs[signal, gpu, step - first] = _way(moving) / resolution[twin[signal]]
    return runs


@njit(cache=True, nogil=True)
def _way(readings: Floats) -> np.float32:
    """From the lowest to the highest; NaN where there are none."""
    lowest, highest = np.float32(np.inf), np.float32(-np.inf)
    for reading in readings:
        if not np.isnan(reading):
            lowest, highest = min(lowest, reading), max(highest, reading)
    return highest - lowest if highest >= lowest else np.float32(np.nan)


def twins(signals: Sequence[Signal]) -> NDArray[np.int64]:
    """The row of each signal's twin, -1 where it has none or that one is not among them, [signals]."""
    rows = {signal.name: row for row, signal in enumerate(signals)}
    return np.array([rows.get(signal.twin or "", -1) for signal in signals], np.int64)


def resolutions(signals: Sequence[Signal]) -> Floats:
    """What each sensor can tell apart, [signals]; something very small where nobody says."""
    return np.array([max(signal.resolution, 1e-6) for signal in signals], np.float32)


@njit(cache=True, nogil=True)
def _newcomer(readings: Floats) -> bool:
    """Whether nobody reported when the last WINDOW began, and all readings since then are the same."""
    begin = max(0, readings.size - 1 - WINDOW)
    for step in range(begin, readings.size):
        if not np.isnan(readings[step]) and (step < begin + LATELY or readings[step] != readings[-1]):
            return False
    return True


def trend(scaled: Floats, first: int) -> Floats:
    """How far a reading goes in TREND steps at its usual pace: the median of its one-step changes, times that.

    [signals, gpus, steps] → [signals, gpus, steps - first]; NaN where it was mostly absent. A jump, which is how
    programs begin and end, is no trend, nor is a pace below the changes' spread.
    """
    start = max(0, first - TREND)
    changes = np.full((*scaled.shape[:2], scaled.shape[2] - start), np.nan, np.float32)
    changes[..., 1:] = np.diff(scaled[..., start:], axis=-1)
    usual = median_mad(changes, TREND, steps=scaled.shape[2] - first, minimum=TREND // 2)
    pace = np.where((np.abs(usual.median) <= usual.mad) & (usual.mad > 0), np.float32(0), usual.median)
    paced: Floats = np.float32(TREND) * pace
    return paced


def channels(scaled: Floats, first: int = 0) -> Floats:
    """[signals, gpus, steps] in robust units → [signals, gpus, steps - first, CHANNELS].

    Absence is a channel of its own: a missing reading is never mistaken for one at the centre.
    """
    scales = [np.nan_to_num(smooth(scaled, memory, first), nan=0.0) for memory in MEMORY]
    return np.stack([*scales, freshness(scaled, first)], axis=-1)


@njit(cache=True, nogil=True)
def freshness(values: Floats, first: int) -> Floats:
    """1 / (1 + age), where age is how many steps old the newest reading is; 0 where the last WINDOW hold none.

    [signals, gpus, steps] → [signals, gpus, steps - first].
    """
    signals, gpus, steps = values.shape
    found = np.zeros((signals, gpus, steps - first), np.float32)
    for signal in range(signals):
        for gpu in range(gpus):
            for step in range(first, steps):
                for age in range(min(step + 1, WINDOW)):
                    if not np.isnan(values[signal, gpu, step - age]):
                        found[signal, gpu, step - first] = 1 / (1 + age)
                        break
    return found


def peer_medians(scaled: Floats, topology: Topology, kinds: Sequence[str]) -> tuple[Floats, Floats]:
    """Median of every peer group of these kinds that each GPU is in.

    scaled: [signals, gpus] → medians [kinds, signals, gpus] (0 where there is no such group or it reported
    nothing) and whether there is one, float32 [kinds, signals, gpus].
    """
    medians = np.zeros((len(kinds), *scaled.shape), np.float32)
    known = np.zeros_like(medians)
    for kind, name in enumerate(kinds):
        groups = topology[name]
        if len(groups.members):
            found = peer_deviation(
                np.ascontiguousarray(scaled), groups.members, groups.offsets, floor=1.0, minimum=PRESENT
            )
            mine = np.where(groups.of >= 0, found.median[:, groups.of], np.float32(np.nan))
            known[kind] = ~np.isnan(mine)
            medians[kind] = np.nan_to_num(mine, nan=0.0)
    return medians, known
