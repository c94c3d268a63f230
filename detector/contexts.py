"""The circumstances of a GPU at a step: residuals are larger in some than in others, for no fault of the GPU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector.telemetry import Floats
from detector.topology import Topology

CONTEXTS = 6  # idle, with ranks of the same job, busy alone; each settled or settling
ACCOMPANIED = 2  # settled, with ranks of the same job
SETTLING = 12  # steps after the GPU took up or ended work
LAG = 18  # and those in which temperatures may still be on their way
AFTERMATH = 24  # and those in which the slower time scales still hold much of what was before
QUANTILE, USUAL = 0.95, 1.5  # of their size, and times that: further out, faults in the history would decide
_EVER = 1_000_000_000
_SAMPLES = 500  # of a context, fewer and it takes the scale of all together


def contexts(state: NDArray[np.int64], topologies: Sequence[Topology]) -> NDArray[np.int64]:
    """The context of every GPU and step.

    state: [gpus, past + steps] of `topology.states`, where past is up to AFTERMATH steps before the ones asked for;
    topologies: of the steps asked for → [gpus, steps], values below CONTEXTS.
    """
    steps = len(topologies)
    past = state.shape[1] - steps
    settling = since(state)[:, past:] < SETTLING
    accompanied = np.stack([topology["job"].of >= 0 for topology in topologies], axis=1)
    busy = state[:, past:] != 0
    return 2 * np.where(busy, np.where(accompanied, 1, 2), 0) + settling


def since(state: NDArray[np.int64]) -> NDArray[np.int64]:
    """Steps since each GPU last took up or ended work; a great many if it has not. [gpus, steps]."""
    steps = np.arange(state.shape[1])
    begun = np.full(state.shape, -_EVER)
    begun[:, 1:] = np.where(state[:, 1:] != state[:, :-1], steps[1:], -_EVER)
    passed: NDArray[np.int64] = steps - np.maximum.accumulate(begun, axis=1)
    return passed


def idle(context: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether a GPU has had no work for a while. Any shape."""
    found: NDArray[np.bool_] = context == 0
    return found


def accompanied(context: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether a GPU has worked for a while with enough ranks of the same job to compare it with. Any shape."""
    found: NDArray[np.bool_] = context == ACCOMPANIED
    return found


def alone(context: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether a GPU works without enough ranks of the same job to compare it with. Any shape."""
    found: NDArray[np.bool_] = context // 2 == 2
    return found


def settling(context: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether a GPU has just taken up or ended work. Any shape."""
    found: NDArray[np.bool_] = context % 2 == 1
    return found


def unsettled(context: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Whether a GPU's job is too new, or has too few ranks, to tell what is usual for it. Any shape."""
    found: NDArray[np.bool_] = (context // 2 == 2) | (context % 2 == 1)
    return found


@dataclass(frozen=True, slots=True)
class ContextScale:
    """How large residuals are when nothing is wrong: by the 95 % quantile of their size, [CONTEXTS, signals]."""

    values: Floats

    @classmethod
    def fit(cls, residuals: Floats, context: NDArray[np.int64]) -> ContextScale:
        """residuals: [signals, gpus, steps]; context: [gpus, steps]."""
        size = np.abs(residuals)
        values = np.ones((CONTEXTS, len(size)), np.float32)
        for number in range(CONTEXTS):
            for signal, plane in enumerate(size):
                mine = plane[(context == number) & ~np.isnan(plane)]
                if len(mine) < _SAMPLES:
                    mine = plane[~np.isnan(plane)]
                if len(mine):
                    # Below 1 the model's own scale is the better one: a signal that never moved yet may move.
                    values[number, signal] = max(1.0, USUAL * float(np.quantile(mine, QUANTILE)))
        return cls(values)

    def apply(self, residuals: Floats, context: NDArray[np.int64]) -> Floats:
        """The residuals in these units, [signals, gpus, steps]."""
        scaled: Floats = residuals / self.values[context].transpose(2, 0, 1)
        return scaled
