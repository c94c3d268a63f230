"""Scores of nodes, racks and jobs: one rack's cooling failure is one finding, not thirty-two."""

from __future__ import annotations

import warnings
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from itertools import pairwise
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from detector import rules, topology, verdicts
from detector.calibration import BLOCK, HISTORY
from detector.residuals import Judge, Residuals
from detector.signals import Signal
from detector.telemetry import IDLE, Floats, Gpu, Telemetry, by_fleet
from kernels import peer_deviation

LEAST = 3  # members that could be judged; with fewer a median says nothing about the group
_GOING = 0.5  # from that score on a group may be about to alarm, a step or two after its members would
KINDS = ("node", "rack", "job")
NONE: Mapping[str, float] = MappingProxyType({})
_MOST, _FAINT = 0.95, 0.05  # of the blocks, and how far a signal's median has to go in them to be heard on this
_STEADIEST = 0.4  # no kind of group is believed to be steadier than that
_ABSENT = np.float32(-1e30)  # to the kernel an infinity is nobody, and a member that is silent on a signal is one


def signals(of_gpus: Iterable[Signal]) -> tuple[Signal, ...]:
    """The signals as they are judged in a whole group.

    What says less there than of a GPU has to last, and so has heat: jobs come and go, and the node's air with them.
    """
    return tuple(
        replace(
            signal,
            direction=signal.together or signal.direction,
            lasting=signal.together is not None or signal.lags,
        )
        for signal in of_gpus
    )


@dataclass(frozen=True, slots=True)
class Found:
    """How far every node, rack and job is off that has enough members that could be judged.

    keys: (kind, name). ratios: of each signal the median of the members', [signals, groups]. causes: what the signals
    of those point to that score 1 and more.
    """

    keys: tuple[tuple[str, str], ...]
    ratios: Floats
    causes: dict[tuple[str, str], str] = field(default_factory=dict)

    @property
    def scores(self) -> dict[tuple[str, str], float]:
        """(kind, name) → score."""
        return dict(zip(self.keys, np.maximum(self.ratios.max(axis=0, initial=0.0), 0.0).tolist(), strict=True))


def weigh(judge: Judge, residuals: Residuals, telemetry: Telemetry) -> tuple[Found, Floats]:
    """What groups go off by at the newest step, and what single GPUs do besides: ratios, [signals, gpus].

    Drops from the residuals, for the steps to come as well, what says nothing because of others that are off.
    """
    found = settle(judge, residuals, telemetry)
    ratios = verdicts.ratios(residuals.own, judge.signals, judge.own)
    outdone = _outdone(verdicts.worst(ratios), telemetry)
    if outdone.any():
        residuals.forget(outdone, judge.signals)
        ratios[:, outdone] = verdicts.ratios(residuals.own[:, outdone], judge.signals, judge.own)
    return found, apart(ratios, found, judge.signals, telemetry)


def settle(judge: Judge, residuals: Residuals, telemetry: Telemetry) -> Found:
    """Judge the groups at the newest step, and drop from the residuals what says nothing because of them."""
    found = _found(judge, residuals, telemetry)
    deceived = _deceived(found, telemetry)
    if deceived.any():
        residuals.forget(deceived, judge.signals)
        found = _found(judge, residuals, telemetry)
    off = [key for key, score in found.scores.items() if score >= 1]
    return replace(found, causes=dict(zip(off, _causes(off, residuals, judge, telemetry), strict=True)))


def _found(judge: Judge, residuals: Residuals, telemetry: Telemetry) -> Found:
    common = signals(judge.signals)
    ratios = verdicts.ratios(residuals.shared, common, judge.shared)
    of_node, beside = ratios, _beside(telemetry)
    if len(residuals.shared) > len(common) and beside.any():
        idle = residuals.shared[:, beside]
        still = idle[-len(common) :]
        still[still == 0] = np.nan  # that their readings move says nothing of the working ones
        of_node = ratios.copy()
        of_node[:, beside] = verdicts.ratios(idle, common, judge.shared)
    found = find(ratios, telemetry, judge.group_units, of_node=of_node)
    told = _on_nodes_off(found, telemetry) & _at_home(telemetry)
    return find(ratios, telemetry, judge.group_units, told, of_node) if told.any() else found


def silent(silence: NDArray[np.int64], gone: NDArray[np.bool_], gpus: tuple[Gpu, ...], step: float) -> Found:
    """The nodes of which nothing is heard: a score of 1 where upkeep takes less than that.

    silence: steps since each GPU last reported, below 0 where it never did. gone: whether its node, which should
    answer, does not. [gpus] each; step: seconds.
    """
    _, names, of = _places(gpus)[0]
    since = np.full(len(names), np.iinfo(np.int64).max)
    np.minimum.at(since, of[silence >= 0], silence[silence >= 0])
    down = np.unique(of[gone & (since[of] < np.iinfo(np.int64).max)])
    score = np.minimum(since[down] * step / rules.NODE_SECONDS, rules.SCORE)
    keys = tuple(("node", names[place]) for place in down.tolist())
    causes = {key: rules.MISSING for key, value in zip(keys, score.tolist(), strict=True) if value >= 1}
    return Found(keys, score[None].astype(np.float32), causes)


def members(key: tuple[str, str], telemetry: Telemetry, step: int = -1) -> NDArray[np.bool_]:
    """Who belongs to a group at that step, [gpus]. key: (kind, name)."""
    kind, name = key
    if kind == "job":
        working: NDArray[np.bool_] = telemetry.of_job[:, step] == telemetry.jobs.index(name)
        return working
    names, of = {each: (names, of) for each, names, of in _places(telemetry.gpus)}[kind]
    here: NDArray[np.bool_] = of == bisect_left(names, name)
    return here


def _causes(keys: Sequence[tuple[str, str]], residuals: Residuals, judge: Judge, telemetry: Telemetry) -> list[str]:
    """What the median of each group's members points to."""
    if not keys:
        return []
    of = [np.flatnonzero(members(key, telemetry)) for key in keys]
    shared = np.take(residuals.shared, np.concatenate(of), axis=1)
    ends = np.cumsum([0, *map(len, of)])
    medians = peer_deviation(shared, np.arange(ends[-1], dtype=np.int32), ends, floor=1.0, minimum=LEAST).median
    return verdicts.causes_of(medians.astype(np.float32), signals(judge.signals), judge.shared)


def find(
    ratios: Floats,
    telemetry: Telemetry,
    units: Mapping[str, float] = NONE,
    told: NDArray[np.bool_] | None = None,
    of_node: Floats | None = None,
) -> Found:
    """Judge the groups at the newest step. units: see `units`. told: who says nothing of a job, [gpus].

    of_node: the ratios as they count in a node, where those are others.

    ratios: [signals, gpus], shared evidence over its threshold, -infinity where absent. A signal counts by the median
    of the members: it has to be off for half of them. Of a job or rack, for more than half: where one of its two nodes
    fails, half of it is off, and it is the node that is to blame. Beside working GPUs an idle one counts only on what
    it reports: it shows no clock that is held down.
    """
    judged: NDArray[np.bool_] = np.any(ratios > -np.inf, axis=0)
    keys: list[tuple[str, str]] = []
    chosen, ends = [np.zeros(0, np.int32)], [0]
    now = telemetry.of_job[:, -1] if telemetry.job.size else np.full(len(judged), IDLE, np.int32)
    ranks = now if told is None else np.where(told, IDLE, now)
    for kind, names, of in (*_places(telemetry.gpus), ("job", telemetry.jobs, ranks)):
        for code, mine in _members(np.where(judged, of, -1)):
            if names[code]:
                keys.append((kind, names[code]))
                # One more below all makes the middle of an even number the lower one.
                one_more = kind != "node" and len(mine) % 2 == 0
                mine = mine if kind != "node" else mine + np.int32(len(judged) + 1)
                chosen.append(np.append(mine, np.int32(len(judged))) if one_more else mine)
                ends.append(ends[-1] + len(chosen[-1]))
    if not keys:
        return Found((), np.zeros((len(ratios), 0), np.float32))
    beside, nobody = _beside(telemetry), np.full((len(ratios), 1), _ABSENT)
    elsewhere, at_home = (
        np.where(beside, each, np.maximum(each, _ABSENT)) for each in (ratios, ratios if of_node is None else of_node)
    )
    counted = np.concatenate([elsewhere, nobody, at_home], axis=1)
    middle = peer_deviation(counted, np.concatenate(chosen), np.array(ends), minimum=LEAST).median
    middle /= np.array([units.get(kind, 1.0) for kind, _ in keys], np.float32)
    return Found(tuple(keys), np.where(np.isnan(middle), _ABSENT, middle).astype(np.float32))


def _beside(telemetry: Telemetry) -> NDArray[np.bool_]:
    """GPUs idle for as long as evidence reaches back, beside such of their node as have worked meanwhile, [gpus]."""
    of_node = _places(telemetry.gpus)[0][2]
    works = (telemetry.job[:, -HISTORY:] != IDLE).any(axis=1)
    beside: NDArray[np.bool_] = ~works & (np.bincount(of_node, works)[of_node] > 0)
    return beside


def _deceived(found: Found, telemetry: Telemetry) -> NDArray[np.bool_]:
    """Whose peers are no measure: at least a third of the other ranks work on nodes that score 1 and more. [gpus].

    Compared with those, the healthy ones stand out. Who is on such a node himself is not meant.
    """
    off = _on_nodes_off(found, telemetry)
    if not off.any():
        return off
    ranks = _ranks(telemetry)
    others, others_off = np.bincount(ranks)[ranks] - 1, np.bincount(ranks, off)[ranks]
    beside: NDArray[np.bool_] = (telemetry.job[:, -1] != IDLE) & ~off & (3 * others_off >= np.maximum(others, 1))
    return beside


def _on_nodes_off(found: Found, telemetry: Telemetry) -> NDArray[np.bool_]:
    """Who is on a node that scores 1 and more, [gpus]."""
    scores = found.scores
    return np.array([scores.get(("node", gpu.node), 0.0) >= 1 for gpu in telemetry.gpus], np.bool_)


def _at_home(telemetry: Telemetry) -> NDArray[np.bool_]:
    """Ranks on a node where most of their job is: what the job is told of there, the node is told of. [gpus]."""
    job, (_, names, of_node) = telemetry.of_job[:, -1].astype(np.int64) + 1, _places(telemetry.gpus)[0]
    here = np.unique(job * len(names) + of_node, return_inverse=True, return_counts=True)
    home: NDArray[np.bool_] = (job > 0) & (2 * here[2][here[1]] > np.bincount(job)[job])
    return home


def _outdone(scores: Floats, telemetry: Telemetry) -> NDArray[np.bool_]:
    """Of ranks that alarm, those of whose peers at least half alarm louder: it is these that are off. [gpus].

    Where two of four are braked, the middle lies between the two halves, and the healthy ones are as far from it.
    """
    alarming: NDArray[np.bool_] = (scores >= 1) & (telemetry.job[:, -1] != IDLE)
    outdone = np.zeros_like(alarming)
    if alarming.sum() < 2:
        return outdone
    ranks = _ranks(telemetry)
    sizes, loud = np.bincount(ranks), np.bincount(ranks, alarming)
    for each in np.flatnonzero((loud > 1) & (2 * (loud - 1) >= sizes - 1)).tolist():
        mine = np.flatnonzero((ranks == each) & alarming)
        louder = (scores[mine, None] < scores[mine]).sum(axis=1)
        outdone[mine] = 2 * louder >= sizes[each] - 1
    return outdone


def _ranks(telemetry: Telemetry) -> NDArray[np.int64]:
    """Equal numbers for GPUs of one model that work for one job now, [gpus]."""
    models = topology.models(telemetry.gpus)
    ranks: NDArray[np.int64] = (telemetry.job[:, -1] + 1).astype(np.int64) * (models.max(initial=0) + 1) + models
    return ranks


def apart(ratios: Floats, found: Found, judged: Sequence[Signal], telemetry: Telemetry) -> Floats:
    """The GPUs' ratios less what their whole node or rack goes off by: that is the group's finding. [signals, gpus].

    They fade while the group's score goes from half an alarm to a whole one, of the signals that take it there and of
    those that follow: what is hidden together with a signal when the model rebuilds it, and what the job makes.
    """
    going = found.ratios > _GOING
    if not going.any():
        return ratios
    faded = np.where(going, np.clip((1 - found.ratios) / (1 - _GOING), 0.0, 1.0), 1.0).astype(np.float32)
    masks = [{signal.mask, *signal.hides} - {None} for signal in judged]
    spared = np.ones_like(faded)
    for row in np.flatnonzero(going.any(axis=1)).tolist():
        follows = [
            place == row or signal.mask in masks[row] or signal.follows == "job" for place, signal in enumerate(judged)
        ]
        spared[follows] = np.minimum(spared[follows], faded[row])
    spared = np.pad(spared, ((0, 0), (0, 1)), constant_values=1.0)  # for who is in no group
    left = np.ones_like(ratios)
    for kind, names, of in _places(telemetry.gpus):
        columns = {name: column for column, (its, name) in enumerate(found.keys) if its == kind}
        left = np.minimum(left, spared[:, np.array([columns.get(name, -1) for name in names])[of]])
    left[ratios <= 0] = 1.0
    rest: Floats = ratios * left
    return rest


def units(medians: Mapping[str, Floats]) -> dict[str, float]:
    """How far the medians of racks go when nothing is wrong, against a node's.

    The many GPUs of a rack are steadier in the middle than the few of a node. Not so those of a job, which may be
    within a node. medians: of both kinds the evidence in blocks, [horizons, rows, blocks].
    """
    node, rack = (_usual(medians[kind]) for kind in ("node", "rack"))
    known = (node > _FAINT) & np.isfinite(rack)
    if not known.any():
        return {}
    return {"rack": float(np.clip(np.median(rack[known] / node[known]), _STEADIEST, 1.0))}


def _usual(maxima: Floats) -> Floats:
    """Of blocks, how far most of them go; NaN where there are none. [horizons, rows, blocks] → [horizons, rows]."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RuntimeWarning)
        found: Floats = np.nanquantile(np.where(np.isfinite(maxima), maxima, np.nan), _MOST, axis=-1)
    return found


def medians(found: Floats, telemetry: Telemetry) -> dict[str, list[Floats]]:
    """The members' median of something about every GPU and step, for every node, rack and job; by kind.

    found: [..., gpus, steps], NaN where absent; the telemetry of those steps → [..., groups, steps] of nodes and of
    racks, and of each job [..., 1, steps] by itself, of the blocks that it is in; NaN where fewer than LEAST members
    could be judged. A GPU belongs to a job while it works for it.
    """
    by_kind: dict[str, list[Floats]] = {kind: [] for kind in KINDS}
    for kind, names, of in _places(telemetry.gpus):
        majority = kind != "node"
        rows = [_median(found[..., mine, :], majority) for code, mine in _members(of) if names[code]]
        nobody = np.full((*found.shape[:-2], 0, found.shape[-1]), np.nan, np.float32)
        by_kind[kind] = [np.stack(rows, axis=-2) if rows else nobody]
    of_job = telemetry.of_job
    for job in np.unique(of_job[of_job != IDLE]).tolist():
        here = of_job == job
        mine, steps = np.flatnonzero(here.any(axis=1)), np.flatnonzero(here.any(axis=0))
        if len(mine) >= LEAST:
            span = slice(steps[0], steps[-1] + 1)
            row = _median(np.where(here[mine, span], found[..., mine, span], np.nan), majority=True)
            ends = [(0, 0)] * (row.ndim - 1) + [(span.start % BLOCK, -span.stop % BLOCK)]
            by_kind["job"].append(np.pad(row, ends, constant_values=np.nan)[..., None, :])
    return by_kind


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
