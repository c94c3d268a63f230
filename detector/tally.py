"""What a judge's scores come to in the long run: alarms against the budget, residuals against their calibration."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from detector.calibration import BLOCK
from detector.signals import Signal
from detector.telemetry import Floats, Gpu
from kernels import Standing, change_scan

_USUAL = 0.01  # share of residuals beyond 1 when nothing has changed: they are in units of their 99 % quantile
_MEMORY = 720.0  # steps over which drift is averaged: an hour at 5 s
_DRIFTED = 4.0
_LEANING = 0.2  # units that half of the fleet may lean to one side without its counting
_STEP = 2.0  # a single look counts for no more
_SHIFTED = 60.0  # unit-steps of leaning further that are a shift


class Tally:
    """Alarms as the budget counts them, one that lasts once in BLOCK steps, and the GPU-hours they came in."""

    def __init__(self, step: float) -> None:
        self.alarms = 0
        self.gpu_hours = 0.0
        self._step = step
        self._gpus: tuple[Gpu, ...] = ()
        self._counted = np.zeros(0)  # Unix seconds of each GPU's last alarm that counted

    def add(self, gpus: tuple[Gpu, ...], score: Floats, at: float) -> None:
        """score: [gpus] of one step, NaN where nothing was judged. at: Unix seconds."""
        if gpus is not self._gpus:
            last = dict(zip(self._gpus, self._counted.tolist(), strict=True))
            self._gpus, self._counted = gpus, np.array([last.get(gpu, -np.inf) for gpu in gpus])
        new = (score >= 1) & (at - self._counted >= BLOCK * self._step)
        self._counted[new] = at
        self.alarms += int(new.sum())
        self.gpu_hours += float((~np.isnan(score)).sum()) * self._step / 3600

    @property
    def rate(self) -> float:
        """Alarms per 1,000 GPU-hours; 0 before there were any."""
        return 1000 * self.alarms / self.gpu_hours if self.gpu_hours else 0.0


class Drift:
    """Whether the fleet is still the one that the model was calibrated on.

    How much more often a signal's residuals are large, over about the last hour; and whether the fleet's median leans
    to one side, in two cumulative sums: a hot summer, or a driver that measures otherwise, moves everybody by too
    little to be large.
    """

    def __init__(self, signals: Sequence[Signal]) -> None:
        self._names = [signal.name for signal in signals]
        self._scored = np.array([signal.scored for signal in signals], bool)
        self._large, self._all = np.zeros(len(signals)), np.zeros(len(signals))
        self._leaning = Standing(*np.zeros((3, len(signals))))
        self._steps = 0

    def add(self, residuals: Floats) -> None:
        """residuals: [signals, gpus] of one step, NaN where absent."""
        kept = np.exp(-1 / _MEMORY)
        self._large = kept * self._large + (np.abs(residuals) > 1).sum(axis=1)
        self._all = kept * self._all + (~np.isnan(residuals)).sum(axis=1)
        self._steps += 1
        middle = np.full((len(residuals), 1), np.nan, np.float32)
        known = ~np.isnan(residuals).all(axis=1)
        if known.any():
            middle[known, 0] = np.nanmedian(residuals[known], axis=1)
        _, self._leaning = change_scan(middle, drift=_LEANING, bound=_STEP, standing=self._leaning)

    def ratios(self) -> dict[str, float]:
        """1 is as at calibration; scored signals only."""
        ratio = self._ratio()
        return {name: float(ratio[row]) for row, name in enumerate(self._names) if self._scored[row]}

    def shifts(self) -> dict[str, float]:
        """1 is a shift of the whole fleet's level; scored signals only."""
        shift = self._shift()
        return {name: float(shift[row]) for row, name in enumerate(self._names) if self._scored[row]}

    def drifted(self) -> str | None:
        """The signal that is no longer what it was, once enough was seen to say so."""
        ratio = self._ratio() / _DRIFTED if self._steps >= _MEMORY else np.zeros(len(self._names))
        gone = np.where(self._scored, np.maximum(ratio, self._shift()), 0.0)
        return self._names[int(gone.argmax())] if gone.max(initial=0.0) >= 1 else None

    def _shift(self) -> NDArray[np.float64]:
        return np.maximum(self._leaning.high, self._leaning.low) / _SHIFTED

    def _ratio(self) -> NDArray[np.float64]:
        return self._large / np.maximum(self._all, 1.0) / _USUAL
