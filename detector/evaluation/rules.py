"""The rules that stand beside the score, over recorded samples: what prometheus/alerts raises without the detector."""

from __future__ import annotations

import numpy as np

from detector.evaluation.events import Mask
from detector.telemetry import Telemetry

# As in prometheus/alerts: after these codes the GPU needs a reset or more.
_FATAL = (46, 48, 62, 64, 74, 79, 95, 109, 110, 119, 120, 140, 143, 158, 167, 169)
_PATIENCE_SECONDS = 15.0
_ECC_SECONDS = 600.0
_REMEMBERED_SECONDS = 1800.0
PENDING = "row_remap_pending"


def alarms(telemetry: Telemetry) -> Mask:
    """Whether GpuMissing, NodeDown, GpuFatalXid or EccUncorrected is firing for a GPU, or a remap has become pending.

    bool [gpus, steps].
    """
    names = [signal.name for signal in telemetry.signals]
    reported = np.any(~np.isnan(telemetry.values), axis=0)
    found = _silent(reported, telemetry)
    if "xid" in names:
        found |= np.isin(telemetry.values[names.index("xid")], _FATAL)
    for name in ("ecc_uncorrected_total", PENDING):
        if name in names:
            level = telemetry.values[names.index(name)]
            grown = np.zeros(level.shape, np.bool_)
            grown[:, 1:] = level[:, 1:] > level[:, :-1]
            found |= _within(grown, _steps(_ECC_SECONDS, telemetry))
    return found


def _silent(reported: Mask, telemetry: Telemetry) -> Mask:
    """GPUs that reported within the last half hour and have not for longer than the rules' patience.

    Recordings hold no `up`: whether the GPU alone is silent (GpuMissing) or its whole node (NodeDown) is all the same.
    """
    known = _within(reported, _steps(_REMEMBERED_SECONDS, telemetry))
    return known & ~_within(reported, _steps(_PATIENCE_SECONDS, telemetry))


def _within(happened: Mask, steps: int) -> Mask:
    """Whether it happened at this step or at one of the `steps` before."""
    total = np.cumsum(happened, axis=1, dtype=np.int64)
    before = np.zeros_like(total)
    before[:, steps + 1 :] = total[:, : -steps - 1]
    found: Mask = total > before
    return found


def _steps(seconds: float, telemetry: Telemetry) -> int:
    return max(1, round(seconds / telemetry.step))
