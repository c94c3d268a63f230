"""The definition, in NumPy and float64: what the fast versions are held against."""

from collections.abc import Iterable

import numpy as np

from kernels.arrays import Floats, Integers
from kernels.nearest_peers.arrays import Metric, Peers, points


def nearest_peers(
    features: Floats,
    k: int,
    labels: Integers | None = None,
    *,
    metric: Metric = "euclidean",
    rows: Iterable[int] | None = None,
) -> Peers:
    """Arguments, results and formula as for `kernels.nearest_peers`, but distances are float64; `rows`: only these."""
    placed, valid = points(features, metric, np)
    of = np.zeros(len(features), np.int32) if labels is None else labels
    wanted = list(range(len(features)) if rows is None else rows)
    index, distance = np.full((len(wanted), k), -1, np.int32), np.full((len(wanted), k), np.nan)
    for place, row in enumerate(wanted):
        if not valid[row] or of[row] < 0:
            continue
        allowed = valid & (of == of[row])
        allowed[row] = False
        peers = np.flatnonzero(allowed)
        squares = ((placed[peers] - placed[row]) ** 2).sum(axis=1)
        nearest = np.argsort(squares, kind="stable")[:k]
        index[place, : len(nearest)] = peers[nearest]
        distance[place, : len(nearest)] = squares[nearest] / 2 if metric == "correlation" else np.sqrt(squares[nearest])
    return Peers(index, distance)
