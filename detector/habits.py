"""What is usual for one server by itself, where its signals are not described: the patterns its past is made of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from detector.signals import Signal
from detector.telemetry import Floats, Telemetry

WIDTH = 10  # steps of a window
_VARIANCE = 0.98  # share of it that the patterns hold
_NOISE = 1.0  # variances of a signal that are added, so that what hardly varies does not decide about the rest
_CLIP = 20.0  # standard deviations
_OFTEN, _USUAL = 0.95, 1.5  # a residual is 1 at that quantile of what is usual, times that
_FLOOR = 0.3  # standard deviations: errors below are not told apart
MOST = 5.0  # one signal counts for no more among many
_LEAST = 10 * WIDTH  # windows from which patterns can be learned


@dataclass(frozen=True, slots=True)
class Habits:
    """The patterns of each known GPU or server, by its place in `keys`.

    centre, spread: mean and standard deviation of its signals, float32 [known, signals], a spread of 0 for signals that
    are not among them. mean: of its windows, [known, signals * WIDTH]. patterns: orthogonal, [known, most, signals *
    WIDTH], filled up with zeros. aside: makes what the patterns leave of a signal's window what they leave when the
    others alone explain it, [known, signals, WIDTH, WIDTH]. unit: the error that is 1, [known, signals].
    """

    keys: tuple[tuple[str, str], ...]
    centre: Floats
    spread: Floats
    mean: Floats
    patterns: Floats
    aside: Floats
    unit: Floats

    def residuals(self, telemetry: Telemetry, readings: Floats, first: int) -> Floats:
        """How badly the other signals explain each one's window that ends at step `first` and later.

        readings: [signals, gpus, steps] → [signals, gpus, steps - first]: root mean square errors over the window, in
        what is usual, at most MOST; NaN for who is not known, for a signal without a spread, and where less than half
        of the window was reported.
        """
        signals, gpus, steps = readings.shape
        found = np.full((signals, gpus, steps - first), np.nan, np.float32)
        place = {key: row for row, key in enumerate(self.keys)}
        for column, gpu in enumerate(telemetry.gpus):
            row = place.get((gpu.node, gpu.gpu))
            if row is not None:
                scaled = _scaled(readings[:, column], self.centre[row], self.spread[row])
                errors = _errors(scaled, self.mean[row], self.patterns[row], self.aside[row], first)
                errors[self.spread[row] == 0] = np.nan
                found[:, column] = np.minimum(errors / self.unit[row][:, None], MOST)
        return found


def described(signals: Sequence[Signal]) -> bool:
    """Whether every signal is one that the signals file describes: then there is no need of habits."""
    return all(signal.alone for signal in signals)


def fit(telemetry: Telemetry, readings: Floats, split: int) -> tuple[Habits, Habits]:
    """The habits of the steps before `split`, and of all steps. Both are in units of the errors from `split` on.

    Patterns explain what they were learned from better than anything later, so what is usual is taken from later.
    """
    early = _learn(telemetry, readings[..., :split])
    later = early.residuals(telemetry, readings, split)
    unit = np.ones_like(early.unit)
    for row, key in enumerate(early.keys):
        column = [(gpu.node, gpu.gpu) for gpu in telemetry.gpus].index(key)
        for signal, errors in enumerate(later[:, column]):
            known = errors[~np.isnan(errors)]
            usual = float(np.quantile(known, _OFTEN)) if len(known) else 0.0
            unit[row, signal] = _USUAL * (usual + _FLOOR)
    full = _learn(telemetry, readings)
    by_key = dict(zip(early.keys, unit, strict=True))
    everyone = np.stack([by_key.get(key, np.ones(len(readings), np.float32)) for key in full.keys])
    return replace(early, unit=unit), replace(full, unit=everyone.astype(np.float32))


def _learn(telemetry: Telemetry, readings: Floats) -> Habits:
    """Principal components of every GPU's windows; in units of standard deviations."""
    named = np.array([signal.alone for signal in telemetry.signals])
    keys, centres, spreads, means, bases = [], [], [], [], []
    for column, gpu in enumerate(telemetry.gpus):
        own = readings[:, column]
        reported = ~np.isnan(own).all(axis=0)
        if reported.sum() < _LEAST:
            continue
        begin = int(np.argmax(reported))
        centre, spread = _moments(own)
        spread[named] = 0.0
        windows = _windows(np.nan_to_num(_scaled(own[:, begin:], centre, spread), nan=0.0))
        mean = windows.mean(axis=0, dtype=np.float64)
        keys.append((gpu.node, gpu.gpu))
        centres.append(centre)
        spreads.append(spread)
        means.append(mean.astype(np.float32))
        bases.append(_patterns(windows - mean))
    width = len(telemetry.signals) * WIDTH
    patterns = np.zeros((len(keys), max((len(basis) for basis in bases), default=0), width), np.float32)
    for row, basis in enumerate(bases):
        patterns[row, : len(basis)] = basis
    shape = (len(keys), len(telemetry.signals))
    return Habits(
        tuple(keys),
        np.array(centres, np.float32).reshape(shape),
        np.array(spreads, np.float32).reshape(shape),
        np.array(means, np.float32).reshape(len(keys), width),
        patterns,
        np.array([_aside(basis, len(telemetry.signals)) for basis in bases], np.float32).reshape(*shape, WIDTH, WIDTH),
        np.ones(shape, np.float32),
    )


def _moments(own: Floats) -> tuple[Floats, Floats]:
    present = ~np.isnan(own)
    count = np.maximum(present.sum(axis=1), 1)
    centre = np.where(present, own, 0.0).sum(axis=1, dtype=np.float64) / count
    square = np.where(present, np.square(own - centre[:, None]), 0.0).sum(axis=1, dtype=np.float64) / count
    spread = np.maximum(np.sqrt(square), 1e-6 * np.abs(centre))
    return centre.astype(np.float32), spread.astype(np.float32)


def _patterns(windows: NDArray[np.float64]) -> Floats:
    """The fewest directions that hold the share of the variance, as long as noise lets them count: [directions, width].

    With the covariance L + noise, noise * its inverse is 1 - P'P for these directions P.
    """
    values, vectors = np.linalg.eigh(windows.T @ windows / len(windows))
    share = np.cumsum(values[::-1]) / max(float(values.sum()), 1e-12)
    kept = int(np.searchsorted(share, _VARIANCE)) + 1
    strong = np.maximum(values[::-1][:kept], 0.0)
    basis: Floats = (vectors[:, ::-1][:, :kept] * np.sqrt(strong / (strong + _NOISE))).T.astype(np.float32)
    return basis


def _aside(basis: Floats, signals: int) -> NDArray[np.float64]:
    """What sets each signal aside, [signals, WIDTH, WIDTH].

    An anomaly that takes part in explaining itself looks smaller than it is, and its neighbours worse. The error of
    predicting some variables of a Gaussian from all others is the inverse of their block of the precision matrix times
    their part of (precision * deviation): Bishop, Pattern Recognition and Machine Learning, 2006, section 2.3.1.
    """
    blocks = basis.astype(np.float64).reshape(len(basis), signals, WIDTH)
    return np.linalg.inv(np.eye(WIDTH) - np.einsum("psi,psj->sij", blocks, blocks))


def _scaled(own: Floats, centre: Floats, spread: Floats) -> Floats:
    """[signals, steps] in standard deviations; 0 for signals without a spread, NaN where absent."""
    scale = np.where(spread > 0, spread, np.inf)[:, None]
    scaled: Floats = np.clip((own - centre[:, None]) / scale, -_CLIP, _CLIP).astype(np.float32)
    return scaled


def _windows(scaled: Floats) -> Floats:
    """[signals, steps] → [steps - WIDTH + 1, signals * WIDTH]."""
    views = np.lib.stride_tricks.sliding_window_view(scaled, WIDTH, axis=1)
    return np.ascontiguousarray(views.transpose(1, 0, 2)).reshape(views.shape[1], -1)


def _errors(scaled: Floats, mean: Floats, patterns: Floats, aside: Floats, first: int) -> Floats:
    """Root mean square errors of the windows that end at step `first` and later, [signals, steps - first]."""
    before = max(0, WIDTH - 1 - first)
    start = max(0, first - WIDTH + 1)
    padded = np.pad(scaled[:, start:], ((0, 0), (before, 0)), constant_values=np.nan)
    present = _windows((~np.isnan(padded)).astype(np.float32)).reshape(-1, len(scaled), WIDTH)
    windows = _windows(np.nan_to_num(padded, nan=0.0)) - mean
    rest = (windows - (windows @ patterns.T) @ patterns).reshape(present.shape)
    rest = (rest.transpose(1, 0, 2) @ aside).transpose(1, 0, 2)
    count = present.sum(axis=2)
    mean_square = np.where(present > 0, np.square(rest), 0.0).sum(axis=2) / np.maximum(count, 1)
    errors: Floats = np.where(count >= WIDTH / 2, np.sqrt(mean_square), np.nan).T.astype(np.float32)
    return errors
