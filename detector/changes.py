"""How far a GPU has gone from where it stood beside its peers earlier in the same job.

Ranks differ for reasons of their own: another role, another cooler, a longer way through the network. Who has always
drawn 30 W more than the others of its job is not off; who begins to is, long before 30 W more is a lot.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numba import njit
from numpy.typing import NDArray

from detector.calibration import BOUND
from detector.residuals import Judge, Residuals
from detector.signals import Signal
from detector.telemetry import IDLE, Floats, Telemetry

GAP, PAST = 12, 36  # steps ago that the time to compare with ended, and how long it was
REACH = GAP + PAST - 1  # steps that a change looks back
_LEAST = PAST // 2  # residuals of which a mean is believed


def compared(judge: Judge, residuals: Residuals) -> Floats:
    """The residuals that changes are seen by, [signals, gpus, steps]; no rows where the judge looks for none."""
    if judge.change_units is None:
        return residuals.own[:0]
    return tellable(residuals.own[len(judge.signals) : 2 * len(judge.signals)], judge.signals)


def tellable(plain: Floats, signals: Sequence[Signal]) -> Floats:
    """The same without what changes as the job likes, and what counts errors, of which each is new. [signals, ...]."""
    told = np.array([signal.follows != "job" and signal.kind == "gauge" for signal in signals])
    found: Floats = np.where(told[:, None, None], plain, np.float32(np.nan))
    return found


def added(judge: Judge, residuals: Residuals, plain: Floats, telemetry: Telemetry, newest: int) -> Residuals:
    """The newest residuals with the changes. plain: `compared`, the same steps and at least REACH before them."""
    if judge.change_units is None:
        return Residuals(residuals.own[..., -newest:], residuals.shared[..., -newest:])
    past = REACH + newest
    job = telemetry.job[:, -past:]
    job = np.pad(job, ((0, 0), (past - job.shape[1], 0)), constant_values=IDLE)
    found = changes(plain[..., -past:], job)
    found /= judge.change_units[:, None, None]
    return residuals.with_changes(found)


@njit(cache=True, nogil=True)
def changes(plain: Floats, job: NDArray[np.int32]) -> Floats:
    """What is left of each residual `beyond` its mean of then, as far as the GPU worked for the same job.

    plain: [signals, gpus, REACH + steps], residuals against the GPU's likes; job: [gpus, REACH + steps] →
    [signals, gpus, steps]. NaN where too little is known of then.
    """
    signals, gpus, steps = plain.shape
    found = np.full((signals, gpus, steps - REACH), np.nan, np.float32)
    for gpu in range(gpus):
        for step in range(REACH, steps):
            same = np.flatnonzero(job[gpu, step - REACH : step - GAP + 1] == job[gpu, step]) + step - REACH
            if same.size < _LEAST:
                continue
            for signal in range(signals):
                now = plain[signal, gpu, step]
                if np.isnan(now):
                    continue
                total, count = 0.0, 0
                for then in same:
                    value = plain[signal, gpu, then]
                    if not np.isnan(value):
                        total += min(max(value, -BOUND), BOUND)
                        count += 1
                if count >= _LEAST:
                    before = total / count
                    usual = abs(before) if before * now > 0 else 0.0
                    found[signal, gpu, step - REACH] = np.sign(now) * max(abs(now) - usual, 0.0)
    return found
