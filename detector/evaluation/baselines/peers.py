"""What compares an entity with the others at the same moment."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from detector.evaluation.baselines.bands import rolling_mean
from detector.evaluation.baselines.linear import lagged, solve
from detector.evaluation.baselines.series import Series, errors_scaled, peer_groups
from detector.telemetry import Floats

Examples = NDArray[np.float64]
_LEAST_MEMBERS = 4
_LEAST = 0.1
_LAGS = 5


class PeerZ:
    """Distance from the median of the peers in MADs of theirs: same job, else same model and idle."""

    def fit(self, series: Series) -> None:
        pass

    def score(self, series: Series) -> Floats:
        out = np.zeros_like(series.test)
        for step in range(series.split, series.values.shape[1]):
            now = series.values[:, step]
            for group in peer_groups(series, step):
                if len(group) >= _LEAST_MEMBERS:
                    away = now[group] - np.median(now[group], axis=0)
                    mad = 1.4826 * np.median(np.abs(away), axis=0)
                    out[group, step - series.split] = np.abs(away) / np.maximum(mad, _LEAST)
        return out


class LinearOneHop:
    """Ridge regression of each signal on the entity's other signals, its past and the mean of its peers, now.

    The linear counterpart of a graph network with one hop, and the model to beat on real servers.
    """

    def fit(self, series: Series) -> None:
        self._peers = peer_means(series)
        self._weights = {}
        for number, pool in enumerate(series.pools):
            inputs, targets = self._examples(series, pool, slice(_LAGS, series.split))
            signals = targets.shape[-1]
            weights = np.zeros((inputs.shape[-1], signals))
            gram, moment = inputs.T @ inputs, inputs.T @ targets
            for signal in range(signals):
                # Its own present would give the answer away: it is the first block of the inputs.
                kept = np.delete(np.arange(len(gram)), signal)
                weights[kept, signal] = solve(gram[np.ix_(kept, kept)], moment[kept, signal], len(inputs))
            self._weights[number] = weights

    def score(self, series: Series) -> Floats:
        errors = np.zeros_like(series.values)
        for number, pool in enumerate(series.pools):
            inputs, targets = self._examples(series, pool, slice(0, series.values.shape[1]))
            errors[pool] = (targets - inputs @ self._weights[number]).reshape(len(pool), -1, targets.shape[-1])
        return errors_scaled(errors, series)

    def _examples(self, series: Series, pool: NDArray[np.int64], steps: slice) -> tuple[Examples, Examples]:
        mine = series.values[pool]
        inputs = np.concatenate([mine, lagged(mine, _LAGS), self._peers[pool]], axis=2)[:, steps]
        inputs = np.concatenate([inputs, np.ones((*inputs.shape[:2], 1), np.float32)], axis=2)
        targets = mine[:, steps].reshape(-1, mine.shape[2])
        return inputs.reshape(-1, inputs.shape[2]).astype(np.float64), targets.astype(np.float64)


def peer_means(series: Series) -> Floats:
    """The mean of each entity's peers without itself, [gpus, steps, signals]; its own value where it has none."""
    means = series.values.copy()
    for step in range(series.values.shape[1]):
        now = series.values[:, step]
        for group in peer_groups(series, step):
            if len(group) > 1:
                means[group, step] = (now[group].sum(axis=0) - now[group]) / (len(group) - 1)
    return means


class Minder:
    """Windows of each signal denoised by an autoencoder, then the mean distance to all peers, and continuity.

    Deng et al., "Minder: faulty machine detection for large-scale distributed model training", NSDI 2025. Theirs is a
    variational LSTM per signal; here a linear autoencoder of the same windows (PCA, three components) denoises, which
    costs seconds. Continuity is the mean over eight windows; the score is that of the worst signal.
    """

    _WINDOW = 8
    _COMPONENTS = 3

    def fit(self, series: Series) -> None:
        known = series.values[:, : series.split]
        self._bases = []
        for signal in range(known.shape[2]):
            windows = np.lib.stride_tricks.sliding_window_view(known[..., signal], self._WINDOW, axis=1)
            flat = windows[:, :: self._WINDOW].reshape(-1, self._WINDOW).astype(np.float64)
            _, _, rows = np.linalg.svd(flat - flat.mean(axis=0), full_matrices=False)
            self._bases.append(rows[: self._COMPONENTS].astype(np.float32))

    def score(self, series: Series) -> Floats:
        distance = np.zeros_like(series.values)
        first = max(0, series.split - 3 * self._WINDOW)
        windows = np.lib.stride_tricks.sliding_window_view(series.values, self._WINDOW, axis=1)
        for step in range(max(first, self._WINDOW - 1), series.values.shape[1]):
            codes = np.stack(
                [windows[:, step - self._WINDOW + 1, s] @ basis.T for s, basis in enumerate(self._bases)], axis=1
            )
            for group in peer_groups(series, step):
                if len(group) >= _LEAST_MEMBERS:
                    pairs = np.linalg.norm(codes[group, None] - codes[None, group], axis=3).mean(axis=1)
                    middle = np.median(pairs, axis=0)
                    spread = 1.4826 * np.median(np.abs(pairs - middle), axis=0)
                    distance[group, step] = (pairs - middle) / np.maximum(spread, _LEAST)
        worst: Floats = rolling_mean(distance, self._WINDOW)[:, series.split :].max(axis=2, keepdims=True)
        return worst
