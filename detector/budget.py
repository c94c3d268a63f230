"""Thresholds for any false-alarm budget, so that an operator can change it without training anew."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch

from detector.calibration import Thresholds
from detector.telemetry import Floats

BUDGETS = (1e-3, 1e-2, 1e-1, 1.0, 10.0, 100.0)  # false alarms per 1,000 GPU-hours
_FEWEST = 3
_SURE = 0.01  # chance at which a count of alarms is no longer the budget's luck


@dataclass(frozen=True, slots=True)
class Tail:
    """Thresholds at each of BUDGETS, float32 [budgets, horizons, signals].

    Between two budgets the threshold is linear in the budget's logarithm, as the quantile of an exponential tail is.
    """

    values: Floats

    @classmethod
    def fit(cls, calibrated: Callable[[float], Thresholds]) -> Tail:
        """calibrated: the thresholds for a budget."""
        values = np.stack([calibrated(budget).values for budget in BUDGETS])
        # A tighter budget never has a lower threshold, whatever the estimate's noise says.
        return cls(np.maximum.accumulate(values[::-1], axis=0)[::-1].astype(np.float32))

    def thresholds(self, budget: float) -> Thresholds:
        """budget: false alarms per 1,000 GPU-hours; beyond the ends of BUDGETS the nearest counts."""
        place = float(np.interp(np.log(budget), np.log(BUDGETS), np.arange(len(BUDGETS))))
        below = min(int(place), len(BUDGETS) - 2)
        share = np.float32(place - below)
        low, high = self.values[below], self.values[below + 1]
        with np.errstate(invalid="ignore"):
            between = low + share * (high - low)
        return Thresholds(np.where(np.isfinite(low), between, low).astype(np.float32))


def broken(alarms: int, gpu_hours: float, budget: float) -> bool:
    """Whether that many alarms in that time are more than the budget's chance brings.

    The chance that a Poisson variable reaches n is the regularised incomplete gamma function at n
    (Abramowitz and Stegun 26.4.21). One or two alarms say nothing about a model: they may be right.
    """
    expected = budget / 1000.0 * gpu_hours
    return alarms >= _FEWEST and _reached(alarms, expected) < _SURE


def _reached(count: int, expected: float) -> float:
    arguments = torch.tensor([count, expected], dtype=torch.float64)
    return float(torch.special.gammainc(arguments[0], arguments[1]))
