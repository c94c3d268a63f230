"""Who behaves most like whom: the nearest rows of each row, among those it may be compared with."""

from itertools import pairwise

import numpy as np

from kernels.arrays import Floats, Integers, module_of, version
from kernels.nearest_peers import arrays
from kernels.nearest_peers.arrays import Metric, Peers

__all__ = ["Peers", "nearest_peers"]


def nearest_peers(features: Floats, k: int, labels: Integers | None = None, *, metric: Metric = "euclidean") -> Peers:
    """The k nearest other rows of every row, among the rows with its label.

        euclidean:   distance = sqrt(sum of (a - b)²)
        correlation: distance = 1 - Pearson's correlation of a and b

    Shapes:
        features: float32 or float64 [rows, features].
        k: 1 to 32.
        labels: int32 [rows], where features lie; a row with a negative label has no peers and is nobody's. None
            lets all rows be peers of one another.

    A row with a NaN or an infinity has no peers and is nobody's; for the correlation a constant row neither.

    Blocks of the matrix of all pairs come from the BLAS in the features' dtype, and the nearest are picked from each
    block while it is in the cache: the whole matrix is never there. What was picked, and a few more, is measured
    again in float64, so distances are exact but for the last rounding to the features' dtype. A peer can stand for
    another only where their squared distances differ by less than 64 roundings of the largest squared distance from
    the mean of their label's rows. Of equals the one with the lower index comes first.

    Raises TypeError for a wrong dtype and ValueError for a wrong shape, k or metric.
    """
    module = module_of(features, "features")
    arrays.check(features, k, labels, metric)
    out = Peers(module.full((len(features), k), -1, np.int32), module.full((len(features), k), np.nan, features.dtype))
    placed, valid = arrays.points(features, metric, module)
    order, starts = arrays.grouped(valid, labels, module)
    for start, end in pairwise(starts):
        if end - start > 1:
            rows = order[start:end]
            version("nearest_peers", module).fill(placed[rows], rows, metric == "correlation", out)
    return out
