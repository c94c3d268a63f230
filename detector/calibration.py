"""Residuals → evidence → thresholds: how much is too much, for the false alarms that the operator can live with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numba import njit
from numpy.typing import NDArray

from detector.habits import MOST
from detector.signals import Direction, Signal
from detector.telemetry import Floats
from kernels import tail_fit, tail_quantile

HORIZONS = (6, 24)  # steps over which residuals are averaged: gross faults soon, faint ones in time
HISTORY = max(HORIZONS)
BLOCK = 60  # steps in which an alarm counts once
_FEWEST = 4  # witnesses that many peaks are at least, whosever they are: it is the same GPUs that will be judged
_SURE = 1.645  # standard errors of the scale, which is an exponential mean's: 95 % from one side
_LEAST = 1.2  # no threshold of a signal by itself below that before the level is set, however quiet it was
BOUND = 15.0  # a residual counts for no more, so that the first moments of a job do not set the thresholds
_CEILING = 0.8  # of what evidence can reach; no threshold is above: what is as wrong as can be for long is an alarm
_NEVER = 1e3  # out of reach, but finite: such a signal never alarms by itself and still has its share of the blame
_SPIKE = 2.0  # nor for more than this many thresholds, so that one wild sample is no alarm
_UNCALIBRATED = (1.0, 0.7)  # per horizon
_TAIL = 0.1  # share of the block maxima that the tail is fitted to
_LEAST_TOGETHER = 0.5  # of that, for the mean of all signals
_CENSORED = 0.02  # share of the blocks in which something may have been wrong
_LASTING = 1 / 3
_LOWER = 0.75  # the lowest level: so far do thresholds fall where many signals share the same few alarms


@dataclass(frozen=True, slots=True)
class Thresholds:
    """The evidence at which the score is 1, float32 [horizons, rows + 1]; infinity for what is not scored.

    The last column is for all signals together, see `evidence`.
    """

    values: Floats

    @classmethod
    def uncalibrated(cls, signals: Sequence[Signal]) -> Thresholds:
        """One unit over the shortest horizon and less over longer ones, for residuals that nothing calibrated yet."""
        scored = np.array([*(signal.scored for signal in signals), False])
        return cls(np.where(scored, np.array(_UNCALIBRATED)[:, None], np.inf).astype(np.float32))

    @property
    def spike(self) -> Floats:
        """The largest residual that counts, [rows]."""
        first = np.where(np.isfinite(self.values[0]), self.values[0], self.values[1])
        largest: Floats = np.float32(_SPIKE) * first[:-1]
        return largest


def evidence(residuals: Floats, signals: Sequence[Signal], spike: Floats | None = None, newest: int = 0) -> Floats:
    """Signed means of the residuals over each horizon, turned so that positive is bad.

    residuals: float32 [rows, gpus, steps], NaN where absent, a row for each signal, once or several times over →
    [horizons, rows + 1, gpus, steps], or only the `newest` steps. Averaging with the sign lets noise cancel and a
    lasting shift add up. An absent residual counts as none; where more than half of a horizon is absent, so is the
    mean. The first steps, with less past than a horizon, are NaN too.

    The last row is the mean size of the scored residuals, as far as they are bad, of the model's over the shortest
    horizon or where there are habits, of `sizes`: what moves many signals a little shows in none of them, and on
    servers whose signals say little one by one it ranks best.
    """
    rows = rows_of(signals, len(residuals))
    bound = np.full(len(rows), BOUND, np.float32) if spike is None else np.minimum(spike, np.float32(BOUND))
    steps = newest or residuals.shape[-1]
    means = np.full((len(HORIZONS), len(rows) + 1, residuals.shape[1], steps), np.nan, np.float32)
    for index, horizon in enumerate(HORIZONS):
        _means(residuals[..., -(steps + horizon - 1) :], bound, horizon, means[index, :-1])
    if habitual(residuals, signals):
        means[0, -1] = _mean_size(sizes(residuals, signals, steps))
    else:
        recent = residuals[: len(signals), :, -(steps + HORIZONS[0] - 1) :]
        size = [_badness(row, signal.direction) for row, signal in zip(recent, signals, strict=True) if signal.scored]
        if size:
            together = _mean_size(np.clip(np.stack(size), 0, BOUND))
            _means(together[None], np.full(1, BOUND, np.float32), HORIZONS[0], means[0, -1:])
    for index, signal in enumerate(rows):
        means[:, index] = _badness(means[:, index], signal.direction)
    return means


def _badness(values: Floats, direction: Direction) -> Floats:
    """The same, turned so that positive is bad."""
    if direction == "both":
        return np.abs(values)
    return values if direction == "high" else -values


def rows_of(signals: Sequence[Signal], count: int) -> list[Signal]:
    """The signal of each of `count` rows; of three times and more, the last is how long a reading has been the same."""
    times = count // max(1, len(signals))
    if times < 3:
        return [*signals] * times
    return [*signals] * (times - 1) + [signal.stuck() for signal in signals]


@njit(cache=True, nogil=True)
def _newest_means(values: Floats, bound: Floats, out: Floats) -> None:
    """Means over all the steps there are of values cut off at ±bound, see `_means`; out: [rows, gpus, 1]."""
    rows, gpus, steps = values.shape
    for row in range(rows):
        for gpu in range(gpus):
            total, count = 0.0, 0
            for step in range(steps):
                value = values[row, gpu, step]
                if not np.isnan(value):
                    total += min(max(value, -bound[row]), bound[row])
                    count += 1
            if count >= (steps + 1) // 2:
                out[row, gpu, 0] = total / steps


@njit(cache=True, nogil=True)
def _means(values: Floats, bound: Floats, horizon: int, out: Floats) -> None:
    """Means over the last `horizon` steps of values cut off at ±bound, 0 for those that are absent.

    NaN where less than half of them are there.

    values: [rows, gpus, steps]; bound: [rows]; out: [rows, gpus, newest], full of NaN.
    """
    rows, gpus, steps = values.shape
    if steps == horizon and out.shape[2] == 1:
        _newest_means(values, bound, out)
        return
    total, count = np.zeros(steps + 1), np.zeros(steps + 1, np.int64)
    for row in range(rows):
        for gpu in range(gpus):
            for step in range(steps):
                value = values[row, gpu, step]
                there = not np.isnan(value)
                total[step + 1] = total[step] + (min(max(value, -bound[row]), bound[row]) if there else 0.0)
                count[step + 1] = count[step] + there
            for place in range(out.shape[2]):
                end = steps - out.shape[2] + place + 1
                if end >= horizon:
                    counted = count[end] - count[end - horizon]
                    if counted >= (horizon + 1) // 2:
                        out[row, gpu, place] = (total[end] - total[end - horizon]) / horizon


def habitual(residuals: Floats, signals: Sequence[Signal]) -> bool:
    """Whether there are residuals against a GPU's own habits among them, see residuals.py."""
    return len(residuals) == 5 * len(signals)


def sizes(residuals: Floats, signals: Sequence[Signal], newest: int) -> Floats:
    """What each signal adds to the evidence of all together where there are habits, [signals, gpus, newest].

    The size of the residual against its habits, which look back on a window already. Where it has none, that of the
    model's over the shortest horizon. NaN for what is not scored.
    """
    count = len(signals)
    model = np.full((count, residuals.shape[1], newest), np.nan, np.float32)
    recent = np.abs(residuals[:count, :, -(newest + HORIZONS[0] - 1) :])
    _means(recent, np.full(count, BOUND, np.float32), HORIZONS[0], model)
    own = residuals[3 * count : 4 * count, :, -newest:]
    chosen: Floats = np.where(np.isnan(own), model, own)
    chosen[[not signal.scored for signal in signals]] = np.nan
    return chosen


def _mean_size(size: Floats) -> Floats:
    """The mean over the signals, [gpus, steps]; NaN where there are none."""
    present = ~np.isnan(size)
    number = present.sum(axis=0)
    mean: Floats = np.where(number > 0, np.where(present, size, 0.0).sum(axis=0) / np.maximum(number, 1), np.nan)
    return mean


def calibrate(
    maxima: Floats,
    signals: Sequence[Signal],
    chance: float,
    heaviest: float = 0.0,
    bearers: NDArray[np.int64] | None = None,
) -> Thresholds:
    """Thresholds that a block passes with that chance when nothing is wrong.

    maxima: of blocks in which nothing was wrong, [horizons, rows + 1, blocks]. An alarm that lasts is one alarm,
    so maxima over blocks are what counts. First for each signal and horizon by itself, with an equal share each, then
    for all of them together, which sets the level. heaviest: the largest tail shape that is believed. bearers: whose
    each block is, ascending, [blocks].
    """
    values = _by_signal(maxima, signals, chance, heaviest, bearers=bearers)
    judged = np.isfinite(values)
    worst = (maxima[judged] / values[judged][:, None]).max(axis=0, initial=-np.inf)
    level = np.float32(max(_tail_quantiles(worst[None], chance, heaviest, bearers=bearers)[0], _LOWER))
    ceiling = np.full(values.shape[1], _CEILING * BOUND, np.float32)
    if habitual(maxima[0, :-1], signals):
        ceiling[-1] = _CEILING * MOST
    bounded = np.where(values < _NEVER, np.minimum(values * level, ceiling), values)
    return Thresholds(bounded.astype(np.float32))


def rough(maxima: Floats, signals: Sequence[Signal], chance: float) -> Thresholds:
    """The same when something may have been wrong in a few blocks: nothing is made of how far the worst of them go."""
    return Thresholds(_by_signal(maxima, signals, chance, heaviest=0.0, censored=_CENSORED))


def _by_signal(
    maxima: Floats,
    signals: Sequence[Signal],
    chance: float,
    heaviest: float,
    censored: float = 0.0,
    bearers: NDArray[np.int64] | None = None,
) -> Floats:
    rows = rows_of(signals, maxima.shape[1] - 1)
    values = np.full(maxima.shape[:2], np.inf, np.float32)
    scored = np.array([*(signal.scored for signal in rows), True])
    alone = np.array([*(signal.alone for signal in rows), True])
    values[:, scored & ~alone] = _NEVER
    judged = np.tile(scored & alone, (len(HORIZONS), 1))
    judged[1:, -1] = False
    judged[0, :-1] &= ~np.array([signal.lasting for signal in rows])
    lowest = np.where(np.arange(len(scored)) < len(rows), _LEAST, _LEAST_TOGETHER * _LEAST)
    heard = np.isfinite(maxima[0, :-1]).any(axis=1)
    each = chance / (len(HORIZONS) * max(1, int((scored[:-1] & heard).sum())) + 1)
    found = _tail_quantiles(maxima[judged], each, heaviest, censored, bearers)
    values[judged] = np.maximum(np.broadcast_to(lowest, values.shape)[judged], found)
    return values


def incidents(found: Floats, thresholds: Thresholds) -> NDArray[np.bool_]:
    """Blocks with an alarm that lasts a third of them, and their neighbours: what is wrong for long is no chance.

    found: evidence [horizons, rows + 1, gpus, steps] → bool [gpus * blocks], in the order of `block_maxima`.
    """
    blocks = found.shape[3] // BLOCK
    with np.errstate(invalid="ignore"):
        alarm = (found[..., : blocks * BLOCK] >= thresholds.values[:, :, None, None]).any(axis=(0, 1))
    lasting = alarm.reshape(found.shape[2], blocks, BLOCK).mean(axis=-1) >= _LASTING
    near = lasting.copy()
    near[:, 1:] |= lasting[:, :-1]
    near[:, :-1] |= lasting[:, 1:]
    flat: NDArray[np.bool_] = near.ravel()
    return flat


def chance(budget: float, step: float) -> float:
    """The chance of an alarm in one block of one GPU that `budget` false alarms per 1,000 GPU-hours leave.

    step: seconds.
    """
    return budget / 1000.0 * (BLOCK * step / 3600.0)


def block_maxima(found: Floats) -> Floats:
    """Evidence [horizons, rows + 1, gpus, steps] → the maximum of every full block, [horizons, rows + 1, blocks].

    -inf where a block reported nothing.
    """
    blocks = found.shape[3] // BLOCK
    cut = np.where(np.isnan(found), -np.inf, found)[..., : blocks * BLOCK]
    maxima: Floats = cut.reshape(*found.shape[:2], -1, BLOCK).max(axis=-1)
    return maxima


def _tail_quantiles(
    maxima: Floats,
    chance: float,
    heaviest: float,
    censored: float = 0.0,
    bearers: NDArray[np.int64] | None = None,
) -> NDArray[np.float64]:
    """The value that a block's maximum exceeds with that chance, for each row of [rows, blocks]; 0 where none is known.

    Without any block NaN: what never was, like a group in a fleet without groups, is not judged. Peaks over the 90 %
    quantile are fitted with a generalised Pareto distribution. The share of all blocks that is censored counts only as
    "at least so large". The fewer the peaks, and the fewer GPUs they are of, the less is known of the tail: its upper
    confidence bound counts.
    """
    if not maxima.shape[1]:
        return np.full(len(maxima), np.nan)
    values = np.where(np.isfinite(maxima), maxima, np.nan).astype(np.float64)
    bare = np.isnan(values).all(axis=1)
    values[bare] = 0.0
    start = np.nanquantile(values, 1 - _TAIL, axis=1)
    plain: NDArray[np.float64] = np.nanquantile(values, 1 - min(chance, _TAIL), axis=1)
    largest = np.nanquantile(values, 1 - censored, axis=1, method="lower")
    cut = np.minimum(values, largest[:, None])
    tail = tail_fit(cut, start, lightest=0.0, heaviest=heaviest)
    tail = replace(tail, scale=tail.scale / (1 - censored / _TAIL))
    depth = tail_quantile(tail, min(chance, _TAIL))
    with np.errstate(divide="ignore", invalid="ignore"):
        witnesses = tail.count
        if bearers is not None:
            alike = _alike(cut - start[:, None], bearers)
            witnesses = np.fmax(tail.count / alike, np.minimum(tail.count, _FEWEST))
        sure = start + depth * (1 + _SURE / np.sqrt(witnesses))
    return np.where(np.isnan(depth) | (chance >= _TAIL), plain, sure)


def _alike(excess: NDArray[np.float64], bearers: NDArray[np.int64]) -> NDArray[np.float64]:
    """How many times as uncertain the mean of the positive excesses is as if all were independent, squared; 1 and more.

    Those of one bearer are alike: a GPU with a trait of its own has many. That is the variance clustered by bearer
    (Cameron and Miller, A Practitioner's Guide to Cluster-Robust Inference, 2015), against an exponential's.
    excess: [rows, blocks]; bearers: ascending, [blocks] → [rows].
    """
    peaks = excess > 0
    count = peaks.sum(axis=1)
    mean = np.where(peaks, excess, 0.0).sum(axis=1) / count
    apart = np.where(peaks, excess - mean[:, None], 0.0)
    sums = np.add.reduceat(apart, np.flatnonzero(np.diff(bearers, prepend=-1)), axis=1)
    variance: NDArray[np.float64] = np.square(sums).sum(axis=1) / (count * np.square(mean))
    return np.fmax(variance, 1.0)
