"""A tick's verdicts on the whole fleet, as columns."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector import rules, verdicts
from detector.calibration import Thresholds
from detector.signals import Signal
from detector.telemetry import Floats, Gpu
from detector.verdicts import MISSING, MISSING_STEPS, TOP, Verdict

_LEAST_SHARE = 0.01


@dataclass(frozen=True, slots=True)
class Findings(Mapping[Gpu, Verdict]):
    """Verdicts by GPU; a GPU about which nothing can be said is not among them.

    gpus: those in question. score: float32 [gpus], NaN without a verdict. leading: int [gpus, TOP], the places in
    `names` of the signals that contribute most, -1 where there are fewer; shares: float32 [gpus, TOP]. causes: by row.
    """

    gpus: tuple[Gpu, ...]
    names: tuple[str, ...]
    score: Floats
    leading: NDArray[np.int64]
    shares: Floats
    causes: Mapping[int, str]

    @classmethod
    def none(cls) -> Findings:
        """Nobody is there to be judged."""
        return cls((), (), np.zeros(0, np.float32), np.zeros((0, TOP), np.int64), np.zeros((0, TOP), np.float32), {})

    def __getitem__(self, gpu: Gpu) -> Verdict:
        row = self.gpus.index(gpu)
        if np.isnan(self.score[row]):
            raise KeyError(gpu)
        pairs = zip(self.leading[row].tolist(), self.shares[row].tolist(), strict=True)
        contributions = tuple((self.names[place], share) for place, share in pairs if place >= 0)
        return Verdict(float(self.score[row]), self.causes.get(row, ""), contributions)

    def __iter__(self) -> Iterator[Gpu]:
        return (self.gpus[row] for row in np.flatnonzero(~np.isnan(self.score)).tolist())

    def __len__(self) -> int:
        return int((~np.isnan(self.score)).sum())


def find(
    gpus: tuple[Gpu, ...],
    residuals: Floats,
    ratios: Floats,
    signals: Sequence[Signal],
    thresholds: Thresholds,
    silence: NDArray[np.int64],
    watched: NDArray[np.bool_],
    errors: rules.Findings,
) -> Findings:
    """Judge the newest step of every GPU that reports, and call missing who is silent while its exporter answers.

    residuals: [signals, gpus, steps]. ratios: [signals, gpus] of the newest step, see verdicts.ratios. silence: steps
    since a GPU last reported, watched: whether its node's exporter answers; [gpus] each. errors: what the rules say of
    the newest step; their causes come before any other.
    """
    score = verdicts.worst(ratios)
    leading, shares = _contributions(ratios)
    silent = silence >= MISSING_STEPS
    score[silent] = np.nan
    alarmed = np.flatnonzero(score >= 1)
    pointed = verdicts.causes_of(np.ascontiguousarray(residuals[:, alarmed]), signals, thresholds)
    causes = dict(zip(alarmed.tolist(), pointed, strict=True))
    for row in np.flatnonzero(silent & watched).tolist():
        score[row], causes[row] = verdicts.missing(int(silence[row])).score, MISSING
        leading[row], shares[row] = [len(signals), *[-1] * (TOP - 1)], [1.0, *[0.0] * (TOP - 1)]
    for row in np.flatnonzero(errors.score[:, -1]).tolist():
        told = int(errors.cause[row, -1])
        score[row], causes[row] = np.fmax(score[row], errors.score[row, -1]), errors.causes[told][0]
        leading[row], shares[row] = [len(signals) + 1 + told, *[-1] * (TOP - 1)], [1.0, *[0.0] * (TOP - 1)]
    names = (*(signal.name for signal in signals), MISSING, *(name for _, name in errors.causes))
    return Findings(gpus, names, score, leading, shares, causes)


def _contributions(ratios: Floats) -> tuple[NDArray[np.int64], Floats]:
    """The leading signals of every GPU and their shares of the squared evidence, [gpus, TOP] each."""
    excess = np.square(np.maximum(ratios, 0.0), dtype=np.float64).T
    if excess.shape[1] < TOP:
        excess = np.pad(excess, ((0, 0), (0, TOP - excess.shape[1])))
    total = excess.sum(axis=1, keepdims=True)
    leading = np.argsort(-excess, axis=1, kind="stable")[:, :TOP]
    shares = np.take_along_axis(excess, leading, axis=1) / np.maximum(total, np.finfo(np.float64).tiny)
    kept = shares >= _LEAST_SHARE
    return np.where(kept, leading, -1), np.where(kept, shares, 0.0).astype(np.float32)
