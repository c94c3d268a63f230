"""Scores of nodes, racks and jobs: one rack's cooling failure is one finding, not thirty-two."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from numpy.typing import NDArray

from detector.telemetry import IDLE, Floats, Telemetry

LEAST = 3  # members that could be judged; with fewer a median says nothing about the group


def scores(ratios: Floats, telemetry: Telemetry) -> dict[tuple[str, str], float]:
    """(kind, name) → score of every node, rack and job with enough members that could be judged.

    ratios: [signals, gpus], shared evidence over its threshold, -infinity where absent. A signal counts by the median
    of the members: it has to be off for half of them.
    """
    judged = np.flatnonzero((ratios > -np.inf).any(axis=0))
    now = telemetry.job[judged, -1] if len(telemetry.gpus) else np.zeros(0, np.int32)
    found: dict[tuple[str, str], float] = {}
    for kind, names in _names(telemetry, judged, now):
        for name, members in _members(names):
            score = float(np.median(ratios[:, judged[members]], axis=1).max())
            found[kind, name] = max(0.0, score)
    return found


def medians(found: Floats, telemetry: Telemetry) -> Floats:
    """The members' median of something about every GPU and step, for every node, rack and job, one after the other.

    found: [..., gpus, steps], NaN where absent; the telemetry of those steps → [..., groups, steps], NaN where fewer
    than LEAST members could be judged. A GPU belongs to a job while it works for it.
    """
    rows = []
    everyone = np.arange(len(telemetry.gpus))
    for kind, names in _names(telemetry, everyone, np.zeros(len(everyone), np.int32)):
        if kind != "job":
            rows += [_median(found[..., members, :]) for _, members in _members(names)]
    for job in np.unique(telemetry.job[telemetry.job != IDLE]).tolist():
        here = telemetry.job == job
        members, steps = np.flatnonzero(here.any(axis=1)), np.flatnonzero(here.any(axis=0))
        if len(members) >= LEAST:
            span = slice(steps[0], steps[-1] + 1)
            row = np.full((*found.shape[:-2], found.shape[-1]), np.nan, np.float32)
            row[..., span] = _median(np.where(here[members, span], found[..., members, span], np.nan))
            rows.append(row)
    if not rows:
        return np.full((*found.shape[:-2], 0, found.shape[-1]), np.nan, np.float32)
    return np.stack(rows, axis=-2)


def _names(
    telemetry: Telemetry, columns: NDArray[np.int64], job: NDArray[np.int32]
) -> Iterator[tuple[str, NDArray[np.str_]]]:
    gpus = [telemetry.gpus[column] for column in columns.tolist()]
    yield "node", np.array([gpu.node for gpu in gpus], np.str_)
    yield "rack", np.array([gpu.rack for gpu in gpus], np.str_)
    yield "job", np.array([telemetry.jobs[each] if telemetry.jobs and each != IDLE else "" for each in job], np.str_)


def _members(names: NDArray[np.str_]) -> Iterator[tuple[str, NDArray[np.int64]]]:
    """Every name that is borne often enough, and who bears it."""
    distinct, of = np.unique(names, return_inverse=True)
    order = np.argsort(of, kind="stable")
    starts = np.searchsorted(of[order], np.arange(len(distinct) + 1))
    for name, start, end in zip(distinct.tolist(), starts[:-1].tolist(), starts[1:].tolist(), strict=True):
        if name and end - start >= LEAST:
            yield name, order[start:end]


def _median(found: Floats) -> Floats:
    """[..., members, steps] → [..., steps]."""
    ordered = np.sort(found, axis=-2)  # NaN last
    count = (~np.isnan(found)).sum(axis=-2)
    low, high = np.maximum(count - 1, 0) // 2, np.maximum(count, 1) // 2
    picked = [np.take_along_axis(ordered, each[..., None, :], axis=-2)[..., 0, :] for each in (low, high)]
    middle: Floats = np.where(count >= LEAST, (picked[0] + picked[1]) / 2, np.nan).astype(np.float32)
    return middle
