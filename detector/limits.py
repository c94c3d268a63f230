"""What is usual for a model's residuals on healthy telemetry: their scale in each context, and the thresholds."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector import groups
from detector.budget import Tail
from detector.calibration import BLOCK, block_maxima, calibrate, chance, evidence, incidents, rough
from detector.changes import REACH, changes, tellable
from detector.contexts import ACCOMPANIED, QUANTILE, USUAL, ContextScale
from detector.residuals import Residuals, in_units
from detector.signals import Signal
from detector.telemetry import IDLE, Floats, Telemetry

_TYPICAL = 0.1  # false alarms per 1,000 GPU-hours, to tell incidents by
_GROUPS = 0.2  # share of the budget that nodes, racks and jobs may spend
_LATER = 0.03 * (1 - _GROUPS)  # of GPUs: some hours held back are quieter than the days to come, by so much
_HEAVY = 0.1  # largest tail shape of groups: a job's beginning is rare, and all its ranks have it at once
_MOST_WRONG = 0.1  # share of the history that may be left out as incidents
_RESTLESS, _OFTEN = 3.0, 0.99  # steps for which a reading may stay the same so often, if its staying so means anything
_COLUMNS = 16  # GPUs whose evidence is held in memory at a time


@dataclass(frozen=True, slots=True)
class Stretch:
    """A stretch of telemetry with its residuals, not yet scaled. context: [gpus, steps]."""

    telemetry: Telemetry
    residuals: Residuals
    context: NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Limits:
    """Scales of both kinds of residuals, and their thresholds by budget.

    change_units: how large changes are, [signals]; group_units: see groups.py.
    """

    own_scale: ContextScale
    shared_scale: ContextScale
    own: Tail
    shared: Tail
    change_units: Floats
    group_units: dict[str, float]


def fit(stretches: Sequence[Stretch], signals: tuple[Signal, ...], step: float) -> Limits:
    """Limits that spend any budget on stretches believed to be mostly healthy. step: seconds."""
    contexts = [stretch.context for stretch in stretches]
    own_scale, plain = _scaled([stretch.residuals.own for stretch in stretches], contexts, signals)
    shared_scale, shared = _scaled([stretch.residuals.shared for stretch in stretches], contexts, signals)
    change_units, own = _with_changes(plain, stretches, own_scale, signals)
    common = groups.signals(signals)
    by_kind = [
        groups.medians(evidence(residuals, common), stretch.telemetry)
        for residuals, stretch in zip(shared, stretches, strict=True)
    ]
    units = groups.units(
        {
            kind: np.concatenate([block_maxima(part) for each in by_kind for part in each[kind]], axis=-1)
            for kind in ("node", "rack")
        }
    )
    together = [
        part / np.float32(units.get(kind, 1.0)) for each in by_kind for kind, parts in each.items() for part in parts
    ]
    # Groups have fewer blocks than GPUs to spend their part of the budget in, and a job's end with it.
    gpus = sum(each.shape[-1] * each.shape[-2] for each in own) // BLOCK
    blocks = sum(int(np.isfinite(block_maxima(found)).any(axis=(0, 1)).sum()) for found in together)
    share = _GROUPS * gpus / max(1, blocks)
    return Limits(
        own_scale,
        shared_scale,
        _tail(lambda: (part for each in own for part in _evidence(each, signals)), signals, step, _LATER, 0.0),
        _tail(lambda: iter(together), common, step, share, _HEAVY),
        change_units,
        units,
    )


def _tail(
    found: Callable[[], Iterator[Floats]], signals: tuple[Signal, ...], step: float, share: float, heaviest: float
) -> Tail:
    """found: goes through the evidence, as often as it is called. share: of the budget, for each row of it."""
    parts = [(block_maxima(part), part.shape[2]) for part in found()]
    maxima = np.concatenate([part for part, _ in parts], axis=-1)
    blocks = np.repeat([part.shape[-1] // max(1, rows) for part, rows in parts], [rows for _, rows in parts])
    bearers = np.repeat(np.arange(len(blocks)), blocks)
    guess = rough(maxima, signals, chance(_TYPICAL, step) * share)
    wrong = np.concatenate([incidents(part, guess) for part in found()])
    # So much cannot have been wrong: then it is the guess that was.
    kept = ~wrong if wrong.sum() <= _MOST_WRONG * len(wrong) else np.ones_like(wrong)
    maxima, bearers = maxima[..., kept], bearers[kept]
    return Tail.fit(lambda budget: calibrate(maxima, signals, chance(budget, step) * share, heaviest, bearers))


def _scaled(
    residuals: Sequence[Floats], contexts: Sequence[NDArray[np.int64]], signals: Sequence[Signal]
) -> tuple[ContextScale, list[Floats]]:
    """Of several stretches the more cautious scale. The last rows are how long each signal's readings are the same."""
    pairs = list(zip(residuals, contexts, strict=True))
    values = np.max([ContextScale.fit(each, context).values for each, context in pairs], axis=0)
    rows = len(residuals[0])
    for row in range(rows - len(signals), rows):
        runs = np.concatenate([each[row].ravel() for each in residuals])
        known = runs[~np.isnan(runs)]
        # A reading that often stays the same says nothing by staying so.
        if len(known) == 0 or np.quantile(known, _OFTEN) > _RESTLESS:
            values[:, row] = np.inf
    scale = ContextScale(values)
    return scale, [in_units(each, scale, context, signals) for each, context in pairs]


def _with_changes(
    own: Sequence[Floats], stretches: Sequence[Stretch], scale: ContextScale, signals: Sequence[Signal]
) -> tuple[Floats, list[Floats]]:
    """The residuals of GPUs with the changes of their plain comparison, and how large those are, [signals].

    Nothing less than what the sensor tells apart, as among ranks, is large.
    """
    count = len(signals)
    plain = slice(count, 2 * count)
    found = []
    for each, stretch in zip(own, stretches, strict=True):
        before = np.full((count, each.shape[1], REACH), np.nan, np.float32)
        nobody = np.full((each.shape[1], REACH), IDLE, np.int32)
        past = (
            np.concatenate([before, tellable(each[plain], signals)], axis=2),
            np.concatenate([nobody, stretch.telemetry.job], axis=1),
        )
        found.append(changes(*past))
    units = (1 / scale.values[ACCOMPANIED, plain]).astype(np.float32)
    for row in range(count):
        sizes = np.abs(np.concatenate([each[row].ravel() for each in found]))
        known = sizes[~np.isnan(sizes)]
        if len(known):
            units[row] = max(units[row], USUAL * float(np.quantile(known, QUANTILE)))
    whole = [
        Residuals(each, each[:0]).with_changes(changed / units[:, None, None]).own
        for each, changed in zip(own, found, strict=True)
    ]
    return units, whole


def _evidence(residuals: Floats, signals: tuple[Signal, ...]) -> Iterator[Floats]:
    for first in range(0, residuals.shape[1], _COLUMNS):
        yield evidence(residuals[:, first : first + _COLUMNS], signals)
