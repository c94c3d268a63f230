"""What needs no model: a GPU that is gone, an error that only a broken GPU reports. The score is at least 1 at once."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector.signals import Alarm
from detector.telemetry import Floats, Gpu, Telemetry, by_fleet

SCORE = 2.0  # of a rule that fires
MISSING = "missing"
MISSING_STEPS = 3  # of silence, and a GPU whose neighbours report is called missing
NODE_STEPS = 12  # of silence, and so is a whole node whose exporter answers: a driver restarts in less
NODE_SECONDS = 600.0  # the same when nobody can tell whether it answers: a reboot takes less
HOLD_STEPS = 30  # an error that only counts up is held against the GPU for so long
MEMORY = HOLD_STEPS + 1  # steps that the rules look back


@dataclass(frozen=True, slots=True)
class Findings:
    """What the rules say, [gpus, steps]: a score (0: nothing) and the index into `causes` of its reason."""

    score: Floats
    cause: NDArray[np.int64]
    causes: tuple[tuple[str, str], ...]  # (cause, the signal that tells)


def findings(telemetry: Telemetry, first: int = 0) -> Findings:
    """Every rule on step `first` and later; the steps before are their past."""
    found = errors(telemetry, first)
    gone = absent(telemetry)[:, first:]
    found.cause[gone], found.score[gone] = len(found.causes), SCORE
    return Findings(found.score, found.cause, (*found.causes, (MISSING, MISSING)))


def errors(telemetry: Telemetry, first: int = 0) -> Findings:
    """The rules on what is reported, without those on who is silent."""
    score = np.zeros((len(telemetry.gpus), telemetry.values.shape[2] - first), np.float32)
    cause = np.zeros(score.shape, np.int64)
    causes: list[tuple[str, str]] = []
    for signal, readings in zip(telemetry.signals, telemetry.values, strict=True):
        for alarm in signal.alarms:
            fired = _fired(alarm, readings)[:, first:]
            cause[fired], score[fired] = len(causes), SCORE
            causes.append((alarm.cause, signal.name))
    return Findings(score, cause, tuple(causes))


def absent(telemetry: Telemetry) -> NDArray[np.bool_]:
    """Who reported once and is now missing, bool [gpus, steps]."""
    spoken = np.array([not signal.alarms for signal in telemetry.signals])
    reports = (~np.isnan(telemetry.values[spoken])).any(axis=0)
    silent = np.where(np.maximum.accumulate(reports, axis=1), _since(reports), 0)
    return missing(silent, telemetry.gpus, math.ceil(NODE_SECONDS / telemetry.step))


def missing(silent: NDArray[np.int64], gpus: Sequence[Gpu], patience: int = NODE_STEPS) -> NDArray[np.bool_]:
    """Whom silence makes missing. silent: steps since each GPU last reported, [gpus] or [gpus, steps].

    Alone among its node's GPUs, soon; together with all of them, only after longer than upkeep takes: `patience` steps.
    """
    long = silent >= patience
    order, starts, node = _nodes(tuple(gpus))
    answers = np.logical_or.reduceat(silent[order] == 0, starts, axis=0)
    found: NDArray[np.bool_] = ((silent >= MISSING_STEPS) & answers[node]) | long
    return found


@by_fleet
def _nodes(gpus: tuple[Gpu, ...]) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """The GPUs node by node, where in that each node begins, and which node each GPU is of."""
    _, node, sizes = np.unique(np.array([gpu.node for gpu in gpus], np.str_), return_inverse=True, return_counts=True)
    return np.argsort(node, kind="stable"), np.cumsum(sizes) - sizes, node


def _since(reports: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Steps since the last true one, along the last axis."""
    place = np.arange(reports.shape[-1])
    last = np.maximum.accumulate(np.where(reports, place, -1), axis=-1)
    since: NDArray[np.int64] = place - last
    return since


def _fired(alarm: Alarm, readings: Floats) -> NDArray[np.bool_]:
    with np.errstate(invalid="ignore"):
        if alarm.codes:
            return np.isin(readings, alarm.codes)
        if alarm.above is not None:
            return readings > alarm.above
        if alarm.below is not None:
            return readings < alarm.below
    return _rose(readings)


def _rose(total: Floats) -> NDArray[np.bool_]:
    """Whether a counter has grown within the last HOLD_STEPS, since it was first seen; a reset is no growth."""
    filled = _carried(total)
    with np.errstate(invalid="ignore"):
        grew = np.zeros(total.shape, bool)
        grew[:, 1:] = filled[:, 1:] > filled[:, :-1]
    last = _since(grew)
    return np.maximum.accumulate(grew, axis=1) & (last < HOLD_STEPS)


def _carried(values: Floats) -> Floats:
    """The last reading carried over absent ones, along the last axis."""
    place = np.where(np.isnan(values), 0, np.arange(values.shape[-1]))
    last = np.maximum.accumulate(place, axis=-1)
    carried: Floats = np.take_along_axis(values, last, axis=-1)
    return carried
