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
    judged = np.flatnonzero((ratios > -np.inf).any(axis=0))
    here = telemetry.job[:, -1] if len(telemetry.gpus) else np.zeros(0, np.int32)
    names = {
        "node": [telemetry.gpus[column].node for column in judged.tolist()],
        "rack": [telemetry.gpus[column].rack for column in judged.tolist()],
        "job": [telemetry.jobs[job] if job != IDLE else "" for job in here[judged].tolist()],
    }
    found: dict[tuple[str, str], float] = {}
    for kind, labels in names.items():
        distinct, of = np.unique(np.array(labels, dtype=np.str_), return_inverse=True)
        order = np.argsort(of, kind="stable")
        starts = np.searchsorted(of[order], np.arange(len(distinct) + 1))
        for name, start, end in zip(distinct.tolist(), starts[:-1].tolist(), starts[1:].tolist(), strict=True):
            if name and end - start >= _LEAST:
                members = judged[order[start:end]]
                found[kind, name] = max(0.0, float(np.median(ratios[:, members], axis=1).max()))
    return found
