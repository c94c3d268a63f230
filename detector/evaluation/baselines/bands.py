"""What is done series by series: thresholds, bands and z-scores; and a score that knows nothing."""

from __future__ import annotations

import numpy as np

from detector.evaluation.baselines.series import Series
from detector.telemetry import Floats

# What operators alert on, signal → (limit, 1 where more is bad and -1 where less is). Limits are those of common public
# alert rules for DCGM's fields.
_LIMITS = {
    "temperature_celsius": (85.0, 1),
    "memory_temperature_celsius": (95.0, 1),
    "memory_used_ratio": (0.95, 1),
    "throttle_thermal_ratio": (0.1, 1),
    "throttle_power_ratio": (0.5, 1),
    "ecc_corrected_total": (10.0, 1),
    "ecc_uncorrected_total": (0.5, 1),
    "pcie_replay_total": (10.0, 1),
    "nvlink_errors_total": (10.0, 1),
    "row_remap_pending": (0.5, 1),
    "pcie_width_ratio": (0.99, -1),
    "power_watts": (700.0, 1),
}
_SIGMAS = 4.0  # the limit of a signal that no rule names, in standard deviations of the training part
_REFITS = 24  # a band's window is looked at anew this often within its length
_LEAST = 0.1  # of a training part's standard deviation: no band is narrower


class Random:
    """Uniform noise: what a measure gives for nothing."""

    def __init__(self, seed: int) -> None:
        self._random = np.random.default_rng(seed)

    def fit(self, series: Series) -> None:
        pass

    def score(self, series: Series) -> Floats:
        return self._random.random((*series.test.shape[:2], 1)).astype(np.float32)


class Thresholds:
    """Fixed limits. The score is how far a reading is towards or beyond its limit."""

    def fit(self, series: Series) -> None:
        pass

    def score(self, series: Series) -> Floats:
        raw, scaled = series.raw[:, series.split :], series.test
        parts = (np.abs(scaled) / _SIGMAS).astype(np.float32)
        for column, name in enumerate(series.names):
            if name in _LIMITS:
                limit, sign = _LIMITS[name]
                readings = raw[..., column]
                beyond = readings / limit if sign > 0 else limit / np.maximum(readings, 1e-3)
                parts[..., column] = np.nan_to_num(beyond, nan=0.0)
        worst: Floats = parts.max(axis=2, keepdims=True)  # any limit passed is an alert
        return worst


class RobustZ:
    """Distance from the training part's median in MADs, per series."""

    def fit(self, series: Series) -> None:
        known = series.values[:, : series.split]
        self._median = np.median(known, axis=1, keepdims=True)
        self._mad = 1.4826 * np.median(np.abs(known - self._median), axis=1, keepdims=True)

    def score(self, series: Series) -> Floats:
        z: Floats = (np.abs(series.test - self._median) / np.maximum(self._mad, _LEAST)).astype(np.float32)
        return z.astype(np.float32)


class RobustBand:
    """Distance from the median of the last day in MADs of that day, as in Grafana's robust recording rules.

    grafana/promql-anomaly-detection, the `robust` strategy. Where less than a day came before, what there is.
    """

    def fit(self, series: Series) -> None:
        pass

    def score(self, series: Series) -> Floats:
        width = max(_REFITS, round(86_400 / series.step_seconds))
        every = width // _REFITS
        out = np.empty_like(series.test)
        for start in range(series.split, series.values.shape[1], every):
            past = series.values[:, max(0, start - width) : start]
            median = np.median(past, axis=1, keepdims=True)
            mad = 1.4826 * np.median(np.abs(past - median), axis=1, keepdims=True)
            now = slice(start - series.split, start - series.split + every)
            out[:, now] = np.abs(series.test[:, now] - median) / np.maximum(mad, _LEAST)
        return out


class AdaptiveBand:
    """Distance from the mean of the last hour, in half-widths of a band from the last 26 hours.

    grafana/promql-anomaly-detection, the `adaptive` strategy: the band is two mean standard deviations (hours in which
    the deviation is small against the mean are left out) and half the mean's size at least.
    """

    def fit(self, series: Series) -> None:
        self._offset = -np.minimum(series.values[:, : series.split].min(axis=(0, 1)), 0)

    def score(self, series: Series) -> Floats:
        # Its margin is a share of the mean, so it wants readings that are not negative.
        readings = series.values + self._offset
        hour = max(4, round(3600 / series.step_seconds))
        mean = rolling_mean(readings, hour)
        spread = np.sqrt(np.maximum(rolling_mean(readings**2, hour) - mean**2, 0))
        counted = spread > 0.5 * np.abs(mean)
        total = rolling_mean(np.where(counted, spread, 0.0), 26 * hour)
        share = rolling_mean(counted.astype(np.float32), 26 * hour)
        typical = np.where(share > 0, total / np.maximum(share, 1e-6), 0.0)
        width = np.maximum(np.maximum(2 * typical, 0.5 * np.abs(mean)), _LEAST)
        band: Floats = (np.abs(readings - mean) / width)[:, series.split :].astype(np.float32)
        return band


def rolling_mean(values: Floats, width: int) -> Floats:
    """Mean of the last `width` steps, of fewer at the beginning. [gpus, steps, signals]."""
    total = np.cumsum(values, axis=1, dtype=np.float64)
    summed = total.copy()
    summed[:, width:] -= total[:, :-width]
    count = np.minimum(np.arange(1, values.shape[1] + 1), width)
    mean: Floats = (summed / count[None, :, None]).astype(np.float32)
    return mean
