"""The definition, in NumPy and float64: what the fast versions are held against."""

from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from kernels.arrays import Floats, Integers
from kernels.group_deviation.arrays import Deviation, shapes

CONSISTENCY = 1.4826


def peer_deviation(
    values: Floats,
    members: Integers,
    offsets: Integers,
    *,
    floor: float | NDArray[np.float64] = 0.0,
    minimum: int = 3,
) -> Deviation:
    """Arguments, results and formula as for `kernels.peer_deviation`; the results are float64."""
    window = values.astype(np.float64)
    voting = np.where(np.isfinite(window), window, np.nan)
    floors = np.broadcast_to(np.asarray(floor, dtype=np.float64), (values.shape[0],))
    median, mad, deviation = (np.full(shape, np.nan) for shape in shapes(values, members, offsets))
    for group, (start, end) in enumerate(pairwise(offsets)):
        peers = np.moveaxis(voting[:, members[start:end]], 1, -1)
        enough = np.isfinite(peers).sum(axis=-1) >= minimum
        median[:, group][enough] = np.nanmedian(peers[enough], axis=-1)
        distance = np.abs(peers - median[:, group, ..., np.newaxis])
        mad[:, group][enough] = np.nanmedian(distance[enough], axis=-1)

        difference = window[:, members[start:end]] - median[:, group, np.newaxis]
        spread = np.maximum(mad[:, group].T, floors).T
        with np.errstate(divide="ignore", invalid="ignore"):
            ratio = difference / (CONSISTENCY * spread[:, np.newaxis])
        deviation[:, start:end] = np.where(difference == 0, 0, ratio)
    return Deviation(median, mad, deviation)
