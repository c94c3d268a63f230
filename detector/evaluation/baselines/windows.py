"""What looks at all signals of one entity at once, at a step or over a window; from scikit-learn."""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from sklearn.cluster import MiniBatchKMeans
from sklearn.decomposition import PCA
from sklearn.ensemble import IsolationForest

from detector.evaluation.baselines.series import Series
from detector.telemetry import Floats

Examples = NDArray[np.float32]
_MOST = 50_000  # examples that one model is fitted to
_CHUNK = 20_000


class _Model(Protocol):
    def fit(self, examples: Examples) -> object: ...


class Windowed:
    """A model of windows of `width` steps, one for each pool; `judge` turns windows into scores."""

    def __init__(self, width: int, model: Callable[[], _Model], judge: Callable[[_Model, Examples], Examples]) -> None:
        self._width = width
        self._make = model
        self._judge = judge

    def fit(self, series: Series) -> None:
        self._models = []
        for pool in series.pools:
            examples = self._windows(series.training(pool))
            flat = examples.reshape(-1, examples.shape[2])
            model = self._make()
            model.fit(flat[:: max(1, len(flat) // _MOST)])
            self._models.append(model)

    def score(self, series: Series) -> Floats:
        out = np.zeros((*series.test.shape[:2], 1), np.float32)
        past = series.values[:, max(0, series.split - self._width + 1) :]
        for pool, model in zip(series.pools, self._models, strict=True):
            for gpu in pool:
                windows = self._windows(past[[gpu]])[0]
                found = [self._judge(model, windows[at : at + _CHUNK]) for at in range(0, len(windows), _CHUNK)]
                out[gpu, -len(windows) :, 0] = np.concatenate(found)
        return out

    def _windows(self, values: Floats) -> Examples:
        """[gpus, steps, signals] → [gpus, steps - width + 1, width * signals]."""
        views = np.lib.stride_tricks.sliding_window_view(values, self._width, axis=1)
        return views.reshape(*views.shape[:2], -1)


def pca(width: int) -> Windowed:
    """Reconstruction error of the components that hold 95 % of the variance."""
    return Windowed(width, lambda: PCA(0.95, svd_solver="full"), _reconstruction_error)


def kmeans(width: int, seed: int) -> Windowed:
    """Distance from the nearest of 20 centres (KMeansAD of TSB-AD)."""
    return Windowed(width, lambda: MiniBatchKMeans(20, n_init=3, random_state=seed), _nearest_centre)


def isolation_forest(seed: int) -> Windowed:
    """Liu, Ting, Zhou, "Isolation forest", ICDM 2008, on single steps."""
    return Windowed(1, lambda: IsolationForest(n_estimators=100, random_state=seed), _isolation)


def _reconstruction_error(model: _Model, windows: Examples) -> Examples:
    assert isinstance(model, PCA)
    error: Examples = np.square(windows - model.inverse_transform(model.transform(windows))).mean(axis=1)
    return error


def _nearest_centre(model: _Model, windows: Examples) -> Examples:
    assert isinstance(model, MiniBatchKMeans)
    nearest: Examples = model.transform(windows).min(axis=1)
    return nearest


def _isolation(model: _Model, windows: Examples) -> Examples:
    assert isinstance(model, IsolationForest)
    score: Examples = -model.score_samples(windows)
    return score
