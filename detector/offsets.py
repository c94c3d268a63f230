"""How each GPU differs from what is expected of its kind when nothing is wrong: its cooler, its place, its silicon.

By where it stands, and by how far it wanders about that: so that one restless GPU does not set everybody's thresholds,
and does not alarm for being so.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from detector.calibration import evidence
from detector.contexts import ContextScale, idle
from detector.signals import Signal
from detector.telemetry import Floats, Gpu

_LEAST = 60  # residuals of which a median is believed
_MOST = 3.0  # robust deviations between GPUs that an offset may have: what was broken then is not to be usual
_FAR, _FAINT = 0.97, 0.05  # a GPU wanders as far as it is off in all but so many steps; less than that is nothing
_RESTLESS = 3.0  # times as far as most, at the most
_COLUMNS = 16  # GPUs whose evidence is held in memory at a time

Key = tuple[str, str]  # node, gpu


@dataclass(frozen=True, slots=True)
class Offsets:
    """The usual residual of each known GPU, by its place in `keys`: float32 [known, 2, rows], idle and not.

    rows: of `Residuals.own` those of the model, two for each signal, then as many of `shared`.
    units: how far each of them wanders from there, in what is common: float32 [known, rows of own], 1 and more.
    software: what ran on each, "" where nobody tells; with another they are not known.
    """

    keys: tuple[Key, ...]
    values: Floats
    units: Floats
    software: tuple[str, ...] = ()

    def usual(self, gpus: Sequence[Gpu], context: NDArray[np.int64]) -> Floats:
        """What is usual for each GPU now, [rows, gpus, steps]; 0 for who is not known. context: [gpus, steps]."""
        if not self.keys:
            return np.zeros((0, *context.shape), np.float32)
        mine = self._places(gpus)
        known = np.where(mine[:, None, None] >= 0, self.values[mine], np.float32(0))
        usual: Floats = np.where(idle(context)[None], known[:, 0].T[:, :, None], known[:, 1].T[:, :, None])
        return usual

    def unit(self, gpus: Sequence[Gpu]) -> Floats:
        """How far each GPU's own residuals wander, [rows of own, gpus, 1]; 1 for who is not known."""
        if not self.keys:
            return np.ones((0, 0, 1), np.float32)
        mine = self._places(gpus)
        found: Floats = np.where(mine[:, None] >= 0, self.units[mine], np.float32(1)).T[:, :, None]
        return found

    def _places(self, gpus: Sequence[Gpu]) -> NDArray[np.int64]:
        place = {key: row for row, key in enumerate(self.keys)}
        places = [place.get((gpu.node, gpu.gpu), -1) for gpu in gpus]
        if any(self.software):
            ran = (*self.software, "")
            places = [
                -1 if gpu.software and ran[row] and gpu.software != ran[row] else row
                for gpu, row in zip(gpus, places, strict=True)
            ]
        return np.array(places, np.int64)


NONE = Offsets((), np.zeros((0, 2, 0), np.float32), np.ones((0, 0), np.float32))


def fit(residuals: Floats, gpus: Sequence[Gpu], context: NDArray[np.int64], signals: Sequence[Signal]) -> Offsets:
    """residuals: [rows, gpus, steps], for each signal two of `own`, then of `shared`; context: [gpus, steps]."""
    resting = idle(context)
    values = np.stack([_medians(residuals, where) for where in (resting, ~resting)], axis=1)
    keys, software = tuple((gpu.node, gpu.gpu) for gpu in gpus), tuple(gpu.software for gpu in gpus)
    found = Offsets(keys, values, np.ones((len(values), 0), np.float32), software)
    own = (residuals - found.usual(gpus, context))[: 2 * len(signals)]
    return replace(found, units=_units(own, context, signals))


def merged(found: Iterable[Offsets]) -> Offsets:
    """Of several recordings; of a GPU that is in several, the last."""
    by_key = {
        key: rows
        for each in found
        for key, *rows in zip(each.keys, each.values, each.units, each.software, strict=True)
    }
    if not by_key:
        return NONE
    values, units, software = zip(*by_key.values(), strict=True)
    return Offsets(tuple(by_key), np.stack(values), np.stack(units), software)


def _units(own: Floats, context: NDArray[np.int64], signals: Sequence[Signal]) -> Floats:
    """How far the evidence of each GPU goes in nearly all steps, against that of most GPUs, [gpus, rows]."""
    scaled = ContextScale.fit(own, context).apply(own, context)
    far = np.full(scaled.shape[:2], np.nan, np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)  # of who was never judged
        for first in range(0, scaled.shape[1], _COLUMNS):
            mine = slice(first, first + _COLUMNS)
            found = evidence(scaled[:, mine], signals)[0, :-1]
            far[:, mine] = np.nanquantile(np.abs(found), _FAR, axis=2)
            far[:, mine][(~np.isnan(found)).sum(axis=2) < _LEAST] = np.nan
        common = np.nanmedian(far, axis=1, keepdims=True)
    units = np.divide(far, common, out=np.ones_like(far), where=common > _FAINT)
    bounded: Floats = np.clip(np.nan_to_num(units, nan=1.0), 1.0, _RESTLESS).T
    return bounded


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
