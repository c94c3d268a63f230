"""What else there is, each in one configuration for all data: name → how to make it from a seed."""

from __future__ import annotations

from collections.abc import Callable

from detector.evaluation.baselines import bands, forecast, linear, peers, windows
from detector.evaluation.baselines.series import Baseline

BASELINES: dict[str, Callable[[int], Baseline]] = {
    "random": bands.Random,
    "thresholds": lambda _: bands.Thresholds(),
    "adaptive_band": lambda _: bands.AdaptiveBand(),
    "robust_band": lambda _: bands.RobustBand(),
    "robust_z": lambda _: bands.RobustZ(),
    "peer_z": lambda _: peers.PeerZ(),
    "pca": lambda _: windows.pca(1),
    "windowed_pca": lambda _: windows.pca(10),
    "kmeans_windows": lambda seed: windows.kmeans(10, seed),
    "isolation_forest": windows.isolation_forest,
    "var_ridge": lambda _: linear.VectorAutoregression(),
    "linear_one_hop": lambda _: peers.LinearOneHop(),
    "cnn_forecast": forecast.cnn,
    "gdn": forecast.gdn,
    "minder": lambda _: peers.Minder(),
}
