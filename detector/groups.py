"""Scores of nodes, racks and jobs: one rack's cooling failure is one finding, not thirty-two."""

from __future__ import annotations

import numpy as np

from detector.telemetry import IDLE, Floats, Telemetry

_LEAST = 3  # scored members; with fewer a median says nothing about the group


def scores(ratios: Floats, telemetry: Telemetry) -> dict[tuple[str, str], float]:
    """(type, name) → score of every node, rack and job with enough members that could be judged.

    ratios: [signals, gpus], shared evidence over its threshold, -infinity where absent. A signal counts by the median
    of the members: it has to be off for half of them.
    """
    members: dict[tuple[str, str], list[int]] = {}
    for column, gpu in enumerate(telemetry.gpus):
        job = telemetry.job[column, -1]
        names = {"node": gpu.node, "rack": gpu.rack, "job": telemetry.jobs[job] if job != IDLE else ""}
        for kind, name in names.items():
            if name and ratios[:, column].max(initial=-np.inf) > -np.inf:
                members.setdefault((kind, name), []).append(column)
    return {
        group: max(0.0, float(np.median(ratios[:, columns], axis=1).max()))
        for group, columns in members.items()
        if len(columns) >= _LEAST
    }
