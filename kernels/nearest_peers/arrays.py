"""The arrays that go in and come out of the search for peers, and a clear error where one does not fit."""

from dataclasses import dataclass
from types import ModuleType
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from kernels.arrays import Floats, Integers, check_floats, module_of

Metric = Literal["euclidean", "correlation"]

MOST = 32
SPARE = 8  # candidates kept beyond k: the matrix product rounds, and the last places are settled without it
_CONSTANT = 1e-12  # a row that varies by less than this share of its size is constant but for rounding


@dataclass(frozen=True, slots=True, eq=False)
class Peers:
    """The nearest peers of each row, nearest first, both [rows, k].

    `index` (int32) is -1 and `distance` NaN where there are fewer than k.
    """

    index: NDArray[np.int32]
    distance: Floats


def check(features: Floats, k: int, labels: Integers | None, metric: str) -> None:
    check_floats(features, "features")
    if features.ndim != 2:
        raise ValueError(f"features must be [rows, features], got shape {features.shape}")
    if not 1 <= k <= MOST:
        raise ValueError(f"k must be 1 to {MOST}, got {k}")
    if metric not in ("euclidean", "correlation"):
        raise ValueError(f"metric must be euclidean or correlation, got {metric}")
    if labels is None:
        return
    if module_of(labels, "labels") is not module_of(features):
        raise TypeError(f"labels must lie where features lie, got {type(labels).__name__}")
    if labels.dtype != np.int32:
        raise TypeError(f"labels must be int32, got {labels.dtype}")
    if labels.shape != features.shape[:1]:
        raise ValueError(f"labels must be one per row [{len(features)}], got shape {labels.shape}")


def points(features: Floats, metric: Metric, module: ModuleType) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """The rows in float64, and which of them have a place; for the correlation on the unit sphere about their mean."""
    placed = features.astype(np.float64)
    valid = module.isfinite(placed).all(axis=1)
    placed[~valid] = 0
    if metric == "correlation" and placed.size:
        size = abs(placed).max(axis=1, keepdims=True)
        placed /= module.where(size > 0, size, 1)
        placed -= placed.mean(axis=1, keepdims=True)
        length = module.sqrt((placed * placed).sum(axis=1, keepdims=True))
        valid &= length[:, 0] > _CONSTANT * np.sqrt(features.shape[1])
        placed /= module.where(length > 0, length, 1)
    return placed, valid


def grouped(
    valid: NDArray[np.bool_], labels: Integers | None, module: ModuleType
) -> tuple[NDArray[np.int64], list[int]]:
    """The rows that may be peers, label after label, and where each label's rows start and the last ones end."""
    if labels is None:
        order = module.flatnonzero(valid)
        return order, [0, len(order)]
    order = module.flatnonzero(valid & (labels >= 0))
    order = order[module.argsort(labels[order], kind="stable")]
    mine = labels[order]
    cuts = module.flatnonzero(mine[1:] != mine[:-1]) + 1
    return order, [0, *(int(cut) for cut in cuts), len(order)]


def factors(placed: NDArray[np.float64], dtype: np.dtype[np.generic], module: ModuleType) -> tuple[Floats, Floats]:
    """Two matrices whose product holds the squared distances of all pairs, but for their common scale.

    |a - b|² = (-2a, |a|², 1) · (b, 1, |b|²). About their mean and scaled to 1, the rows lose the least by it.
    """
    about = placed - placed.mean(axis=0)
    about /= max(float(abs(about).max()) if about.size else 0.0, np.finfo(np.float64).tiny)
    squares = (about * about).sum(axis=1, keepdims=True)
    ones = module.ones_like(squares)
    left = module.concatenate([-2 * about, squares, ones], axis=1)
    right = module.concatenate([about, ones, squares], axis=1)
    return left.astype(dtype), right.astype(dtype)
