"""Scores of nodes, racks and jobs: one rack's cooling failure is one finding, not thirty-two."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from detector import topology
from detector.signals import Signal
from detector.telemetry import IDLE, Floats, Gpu, Telemetry, by_fleet
from kernels import peer_deviation

LEAST = 3  # members that could be judged; with fewer a median says nothing about the group
_ABSENT = np.float32(-1e30)  # to the kernel an infinity is nobody, and a member that is silent on a signal is one


def signals(of_gpus: Iterable[Signal]) -> tuple[Signal, ...]:
    """The signals as they are judged in a whole group."""
    return tuple(replace(signal, direction=signal.together or signal.direction) for signal in of_gpus)


def scores(ratios: Floats, telemetry: Telemetry) -> dict[tuple[str, str], float]:
    """(kind, name) → score of every node, rack and job with enough members that could be judged.

    ratios: [signals, gpus], shared evidence over its threshold, -infinity where absent. A signal counts by the median
    of the members: it has to be off for half of them. Of a job or rack, for more than half: where one of its two nodes
    fails, half of it is off, and it is the node that is to blame.
    """
    judged: NDArray[np.bool_] = np.any(ratios > -np.inf, axis=0)
    keys: list[tuple[str, str]] = []
    members, ends = [np.zeros(0, np.int32)], [0]
    now = telemetry.job[:, -1] if telemetry.job.size else np.full(len(judged), IDLE, np.int32)
    for kind, names, of in (*_places(telemetry.gpus), ("job", telemetry.jobs, now)):
        for code, mine in _members(np.where(judged, of, -1)):
            if names[code]:
                keys.append((kind, names[code]))
                # One more below all makes the middle of an even number the lower one.
                one_more = kind != "node" and len(mine) % 2 == 0
                members.append(np.append(mine, np.int32(len(judged))) if one_more else mine)
                ends.append(ends[-1] + len(members[-1]))
    if not keys:
        return {}
    counted = np.pad(np.maximum(ratios, _ABSENT), ((0, 0), (0, 1)), constant_values=_ABSENT)
    found = peer_deviation(counted, np.concatenate(members), np.array(ends), minimum=LEAST).median
    return dict(zip(keys, np.maximum(found.max(axis=0), 0.0).tolist(), strict=True))


def deceived(found: Mapping[tuple[str, str], float], telemetry: Telemetry) -> NDArray[np.bool_]:
    """Whose peers are no measure, because at least half of the other ranks work on nodes that score 1 and more. [gpus].

    Compared with those, the healthy ones stand out. Who is on such a node himself is not meant. found: `scores`.
    """
    off = np.array([found.get(("node", gpu.node), 0.0) >= 1 for gpu in telemetry.gpus], np.bool_)
    if not off.any():
        return off
    now = telemetry.job[:, -1]
    ranks = np.unique(np.stack([now, topology.models(telemetry.gpus)]), axis=1, return_inverse=True)[1].ravel()
    others, others_off = np.bincount(ranks)[ranks] - 1, np.bincount(ranks, off)[ranks]
    beside: NDArray[np.bool_] = (now != IDLE) & ~off & (2 * others_off >= np.maximum(others, 1))
    return beside


def medians(found: Floats, telemetry: Telemetry) -> Floats:
    """The members' median of something about every GPU and step, for every node, rack and job, one after the other.

    found: [..., gpus, steps], NaN where absent; the telemetry of those steps → [..., groups, steps], NaN where fewer
    than LEAST members could be judged. A GPU belongs to a job while it works for it.
    """
    rows = []
    for kind, names, of in _places(telemetry.gpus):
        majority = kind != "node"
        rows += [_median(found[..., members, :], majority) for code, members in _members(of) if names[code]]
    for job in np.unique(telemetry.job[telemetry.job != IDLE]).tolist():
        here = telemetry.job == job
        members, steps = np.flatnonzero(here.any(axis=1)), np.flatnonzero(here.any(axis=0))
        if len(members) >= LEAST:
            span = slice(steps[0], steps[-1] + 1)
            row = np.full((*found.shape[:-2], found.shape[-1]), np.nan, np.float32)
            row[..., span] = _median(np.where(here[members, span], found[..., members, span], np.nan), majority=True)
            rows.append(row)
    if not rows:
        return np.full((*found.shape[:-2], 0, found.shape[-1]), np.nan, np.float32)
    return np.stack(rows, axis=-2)


@by_fleet
def _places(gpus: tuple[Gpu, ...]) -> tuple[tuple[str, tuple[str, ...], NDArray[np.int32]], ...]:
    """Nodes and racks: the kind, the names in order, and where in them each GPU's is, [gpus]."""
    found = []
    for kind, names in (("node", [gpu.node for gpu in gpus]), ("rack", [gpu.rack for gpu in gpus])):
        distinct, of = np.unique(np.array(names, np.str_), return_inverse=True)
        found.append((kind, tuple(distinct.tolist()), of.astype(np.int32)))
    return tuple(found)


def _members(of: NDArray[np.int32]) -> list[tuple[int, NDArray[np.int32]]]:
    """Every code from 0 that is borne often enough, and who bears it."""
    order = np.argsort(of, kind="stable").astype(np.int32)
    ranked = of[order]
    starts = np.flatnonzero(np.r_[ranked[:1] >= 0, ranked[1:] != ranked[:-1]])
    starts = starts[ranked[starts] >= 0]
    spans = pairwise([*starts.tolist(), len(ranked)])
    return [(int(ranked[start]), order[start:end]) for start, end in spans if end - start >= LEAST]


def _median(found: Floats, majority: bool) -> Floats:
    """[..., members, steps] → [..., steps]. For a majority, of an even number the lower of the two in the middle."""
    ordered = np.sort(found, axis=-2)  # NaN last
    count = (~np.isnan(found)).sum(axis=-2)
    low, high = np.maximum(count - 1, 0) // 2, np.maximum(count, 1) // 2
    places = (low,) if majority else (low, high)
    picked = [np.take_along_axis(ordered, each[..., None, :], axis=-2)[..., 0, :] for each in places]
    middle: Floats = np.where(count >= LEAST, np.mean(picked, axis=0), np.nan).astype(np.float32)
    return middle
