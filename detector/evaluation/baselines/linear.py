"""Vector autoregression, and the ridge regression that it shares with the linear one-hop model."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detector.evaluation.baselines.series import Series, errors_scaled
from detector.telemetry import Floats

_RIDGE = 1e-2  # of the examples' number: standard deviations are about 1
_LAGS = 5


class VectorAutoregression:
    """Ridge regression of all signals on the last five values of all signals, an entity on its own."""

    def fit(self, series: Series) -> None:
        self._weights = []
        for pool in series.pools:
            inputs, targets = _examples(series.training(pool))
            self._weights.append(solve(inputs.T @ inputs, inputs.T @ targets, len(inputs)))

    def score(self, series: Series) -> Floats:
        errors = np.zeros_like(series.values)
        for pool, weights in zip(series.pools, self._weights, strict=True):
            inputs, targets = _examples(series.values[pool])
            errors[pool, _LAGS:] = (targets - inputs @ weights).reshape(len(pool), -1, targets.shape[1])
        return errors_scaled(errors, series)


def lagged(values: Floats, lags: int) -> Floats:
    """The values of the last `lags` steps side by side, 0 before the first: [.., steps, lags * signals]."""
    parts = []
    for lag in range(1, lags + 1):
        shifted = np.zeros_like(values)
        shifted[:, lag:] = values[:, :-lag]
        parts.append(shifted)
    return np.concatenate(parts, axis=2)


def solve(gram: NDArray[np.float64], moment: NDArray[np.float64], examples: int) -> NDArray[np.float64]:
    """Ridge weights from the inputs' Gram matrix and their moments with the targets."""
    ridge = _RIDGE * examples * np.eye(len(gram))
    weights: NDArray[np.float64] = np.linalg.solve(gram + ridge, moment).astype(np.float64)
    return weights


def _examples(values: Floats) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    inputs = lagged(values, _LAGS)[:, _LAGS:]
    inputs = np.concatenate([inputs, np.ones((*inputs.shape[:2], 1), np.float32)], axis=2)
    targets = values[:, _LAGS:]
    return inputs.reshape(-1, inputs.shape[2]).astype(np.float64), targets.reshape(-1, targets.shape[2]).astype(float)
