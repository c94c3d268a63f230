"""When a GPU's own past ends: what limits it or what runs on it became another. Its peers say as much as ever."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from detector.telemetry import UNKNOWN, Floats, Gpu, Telemetry

_REST = 24  # steps
_LEAST = 1e-6  # of a signal without a resolution
Bools = NDArray[np.bool_]
Codes = NDArray[np.int32]


def nothing(gpus: int) -> Floats:
    """What is known of a reading before any came, for `moved`: [2, gpus]."""
    return np.stack([np.full(gpus, np.nan, np.float32), np.full(gpus, _REST, np.float32)])


def moved(readings: Floats, known: Floats, least: float) -> Bools:
    """Whether each reading is another than the one known before it, [gpus, steps].

    What goes on moving was not set, and has moved once: before the next time it has to rest. readings: [gpus, steps],
    NaN is unknown and changes nothing. known: what was read last and for how many steps it has rested, [2, gpus],
    brought up to date.
    """
    found = np.zeros(readings.shape, np.bool_)
    level, rested = known
    for step, now in enumerate(readings.T):
        moves = np.abs(now - level) > max(least, _LEAST)
        found[:, step] = moves & (rested >= _REST)
        rested += 1
        rested[moves] = 0
        np.copyto(level, now, where=~np.isnan(now))
    return found


def levels(codes: Codes) -> Floats:
    """Codes as readings that are one apart at least. Any shape."""
    found: Floats = np.where(codes == UNKNOWN, np.float32(np.nan), codes.astype(np.float32))
    return found


def beginnings(telemetry: Telemetry) -> Bools:
    """The steps at which a GPU's own past begins anew, [gpus, steps]."""
    planes = [(telemetry.values[row], each.resolution) for row, each in enumerate(telemetry.signals) if each.restarts]
    if telemetry.software is not None:
        planes.append((levels(telemetry.software), 0.5))
    found = np.zeros(telemetry.job.shape, np.bool_)
    for readings, least in planes:
        found |= moved(readings, nothing(len(readings)), least)
    return found


def named(telemetry: Telemetry) -> Telemetry:
    """The telemetry with GPUs that bear what ran on them in the end."""
    if telemetry.software is None:
        return telemetry
    return replace(telemetry, gpus=labelled(telemetry.gpus, telemetry.software, telemetry.releases))


def labelled(gpus: Iterable[Gpu], codes: Codes, software: Sequence[str]) -> tuple[Gpu, ...]:
    """The GPUs with what runs on each at the last of some steps. codes: [gpus, steps], indices into `software`."""
    place = codes.shape[1] - 1 - (codes[:, ::-1] != UNKNOWN).argmax(axis=1)
    newest = np.take_along_axis(codes, place[:, None], axis=1)[:, 0].tolist() if codes.size else []
    return tuple(
        gpu if code == UNKNOWN else replace(gpu, software=software[code])
        for gpu, code in zip(gpus, newest, strict=True)
    )


def before(telemetry: Telemetry) -> Bools:
    """The steps before a GPU's own past begins for the last time, [gpus, steps]."""
    later = np.flip(np.logical_or.accumulate(np.flip(beginnings(telemetry), axis=1), axis=1), axis=1)
    found = np.zeros_like(later)
    found[:, :-1] = later[:, 1:]
    return found
