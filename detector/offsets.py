"""How each GPU differs from what is expected of its kind when nothing is wrong: its cooler, its place, its silicon."""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector.contexts import idle
from detector.telemetry import Floats, Gpu

_LEAST = 60  # residuals of which a median is believed
_MOST = 3.0  # robust deviations between GPUs that an offset may have: what was broken then is not to be usual

Key = tuple[str, str]  # node, gpu


@dataclass(frozen=True, slots=True)
class Offsets:
    """The usual residual of each known GPU, by its place in `keys`: float32 [known, 2, rows], idle and not.

    rows: of `Residuals.own` those of the model, two for each signal, then of `shared` one for each.
    """

    keys: tuple[Key, ...]
    values: Floats

    def usual(self, gpus: Iterable[Gpu], context: NDArray[np.int64]) -> Floats:
        """What is usual for each GPU now, [rows, gpus, steps]; 0 for who is not known. context: [gpus, steps]."""
        if not self.keys:
            return np.zeros((0, *context.shape), np.float32)
        place = {key: row for row, key in enumerate(self.keys)}
        mine = np.array([place.get((gpu.node, gpu.gpu), -1) for gpu in gpus], np.int64)
        known = np.where(mine[:, None, None] >= 0, self.values[mine], np.float32(0))
        usual: Floats = np.where(idle(context)[None], known[:, 0].T[:, :, None], known[:, 1].T[:, :, None])
        return usual


NONE = Offsets((), np.zeros((0, 2, 0), np.float32))


def fit(residuals: Floats, gpus: Iterable[Gpu], context: NDArray[np.int64]) -> Offsets:
    """residuals: [rows, gpus, steps]; context: [gpus, steps]."""
    resting = idle(context)
    values = np.stack([_medians(residuals, where) for where in (resting, ~resting)], axis=1)
    return Offsets(tuple((gpu.node, gpu.gpu) for gpu in gpus), values)


def merged(found: Iterable[Offsets]) -> Offsets:
    """Of several recordings; of a GPU that is in several, the last."""
    by_key = {key: row for each in found for key, row in zip(each.keys, each.values, strict=True)}
    return Offsets(tuple(by_key), np.stack(list(by_key.values()))) if by_key else NONE


def _medians(residuals: Floats, where: NDArray[np.bool_]) -> Floats:
    """[rows, gpus, steps], [gpus, steps] → [gpus, rows]; 0 where too little is known."""
    chosen = np.where(where, residuals, np.float32(np.nan))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of who was never judged
        own = np.nanmedian(chosen, axis=2)
        own[(~np.isnan(chosen)).sum(axis=2) < _LEAST] = np.nan
        middle = np.nanmedian(own, axis=1, keepdims=True)
        spread = _MOST * 1.4826 * np.nanmedian(np.abs(own - middle), axis=1, keepdims=True)
    bounded: Floats = np.nan_to_num(np.clip(own, middle - spread, middle + spread), nan=0.0).T.astype(np.float32)
    return bounded
