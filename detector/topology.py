"""Who is compared with whom: typed peer groups from labels and load, and the edges of the graph."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector.telemetry import IDLE, Floats, Gpu, by_fleet

KINDS = ("job", "island", "node", "rack", "load")
MINIMUM = 4  # of a group, the GPU itself included: fewer than three peers say nothing
PRESENT = 3  # of those, at a step: one whose reading did not come does not take the others' away
REACH = 3  # graph neighbours on either side in the group's order
BUSY_RATIO = 0.05
UNNAMED = -1  # the state of who is busy for a job nobody names
LOAD_BINS = 8

Ints = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Groups:
    """Groups of one kind in CSR form: group g is members[offsets[g]:offsets[g + 1]]; `of[i]` is GPU i's group or -1."""

    members: Ints
    offsets: Ints
    of: Ints


Topology = dict[str, Groups]


def build(
    gpus: Sequence[Gpu],
    job: Ints,
    activity: Floats,
    effort: Floats,
    kinds: frozenset[str] | None = None,
) -> Topology:
    """The peer groups of one step.

    job: int32 [gpus], the job's index or IDLE. activity, effort: float32 [gpus], the smoothed signals that
    tell busy from idle and how hard a GPU works; NaN where unknown. kinds: those to build, None for all; the others
    are empty.

    - `job`: ranks of one job, in the same role, on one GPU model. On another, the same work looks different.
    - `island`, `node`, `rack`: neighbours in the same state. GPUs of one node that work for different jobs are no
      peers. An island is a kind of its own only where it is not just the node.
    - `load`: the same GPU model at a similar effort, wherever it stands. The only kind that needs no labels.
    """
    count = len(gpus)
    present = ~np.isnan(activity) | ~np.isnan(effort) | (job != IDLE)
    state = states(job, activity)
    busy = (state != 0).astype(np.int64)
    place = places(tuple(gpus))
    node, rack, model, everyone = place.node, place.rack, place.model, place.order
    load = _load_bins(effort, model)
    by_effort = everyone[np.argsort(np.nan_to_num(effort, nan=-1.0)[everyone], kind="stable")]
    if not np.isfinite(activity).any() and not np.isfinite(effort).any():
        present = np.ones(count, dtype=bool)
    topology = {
        "job": _group([state, model], present & (job != IDLE), everyone),
        "island": _group([place.island, state], present & (place.island >= 0), everyone),
        "node": _group([node, state], present, everyone),
        "rack": _group([rack, model, busy, load], present & (rack >= 0), everyone),
        "load": _group([model, busy, load], present, by_effort),
    }
    return topology if kinds is None else {kind: topology[kind] if kind in kinds else _nobody(count) for kind in KINDS}


def kinds(fleets: Iterable[Sequence[Gpu]]) -> tuple[str, ...]:
    """The kinds of peers that there can be in such fleets: `island` only where one is not just a node."""
    islands = any((places(tuple(fleet)).island >= 0).any() for fleet in fleets)
    return tuple(kind for kind in KINDS if islands or kind != "island")


def states(job: Ints, activity: Floats) -> NDArray[np.int64]:
    """What a GPU is doing: 0 idle, 1 and up a known job, -1 busy for a job nobody names. Any shape."""
    working = np.nan_to_num(activity, nan=0.0) > BUSY_RATIO
    return np.where(job != IDLE, job.astype(np.int64) + 1, np.where(working, UNNAMED, 0))


def edges(groups: Groups) -> NDArray[np.int64]:
    """Directed edges [2, edges], peer → GPU: each member's REACH neighbours on either side in the group's order."""
    sizes = np.diff(groups.offsets)
    size = np.repeat(sizes, sizes)
    start = np.repeat(groups.offsets[:-1], sizes)
    place = np.arange(len(groups.members)) - start
    sources, targets = [], []
    for distance in range(1, REACH + 1):
        for shift in (distance, -distance):
            # In a small group both directions meet: keep each pair once, and nobody as their own peer.
            kept = (2 * distance < size) | ((2 * distance == size) & (shift > 0))
            neighbour = start[kept] + (place[kept] + shift) % size[kept]
            sources.append(groups.members[neighbour])
            targets.append(groups.members[kept])
    return np.stack([np.concatenate(sources), np.concatenate(targets)]).astype(np.int64)


def stack(topologies: Sequence[Topology], count: int) -> Topology:
    """Several steps' topologies over the same `count` GPUs as one: GPU i of step b becomes b * count + i."""
    stacked = {}
    for kind in KINDS:
        parts = [topology[kind] for topology in topologies]
        member_base = np.cumsum([0, *(len(part.members) for part in parts)])
        group_base = np.cumsum([0, *(len(part.offsets) - 1 for part in parts)])
        stacked[kind] = Groups(
            np.concatenate([part.members + b * count for b, part in enumerate(parts)]).astype(np.int32),
            np.concatenate(
                [[0], *(part.offsets[1:] + base for part, base in zip(parts, member_base, strict=False))]
            ).astype(np.int32),
            np.concatenate(
                [np.where(part.of >= 0, part.of + base, -1) for part, base in zip(parts, group_base, strict=False)]
            ).astype(np.int32),
        )
    return stacked


def companions(gpus: Sequence[Gpu], state: NDArray[np.int64], company: Ints) -> Groups:
    """Ranks of one job, and those who work in step where no job is named. All [gpus]; company: see lockstep.py."""
    place = places(tuple(gpus))
    together = np.where(state == UNNAMED, company, -1).astype(np.int64)
    return _group([state, together, place.model], (state > 0) | (together >= 0), place.order)


def models(gpus: Sequence[Gpu]) -> NDArray[np.int64]:
    """Equal codes for equal GPU models, [gpus]."""
    return places(tuple(gpus)).model


@by_fleet
def by_node(gpus: tuple[Gpu, ...]) -> Groups:
    """The GPUs of each node, whatever they do."""
    place = places(gpus)
    return _group([place.node], np.ones(len(gpus), np.bool_), place.order)


def _nobody(count: int) -> Groups:
    return Groups(np.zeros(0, np.int32), np.zeros(1, np.int32), np.full(count, -1, np.int32))


def _group(keys: list[NDArray[np.int64]], eligible: NDArray[np.bool_], order: NDArray[np.int64]) -> Groups:
    """GPUs with equal keys, in the given order, as groups of at least MINIMUM."""
    members = order[eligible[order]]
    if len(members) == 0:
        return _nobody(len(eligible))
    table = np.stack([key[members] for key in keys])
    sort = np.lexsort(table)
    table, members = table[:, sort], members[sort]
    starts = np.flatnonzero(np.r_[True, (table[:, 1:] != table[:, :-1]).any(axis=0)])
    sizes = np.diff(np.r_[starts, len(members)])
    kept = np.repeat(sizes >= MINIMUM, sizes)
    members, sizes = members[kept].astype(np.int32), sizes[sizes >= MINIMUM]
    of = np.full(len(eligible), -1, np.int32)
    of[members] = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    return Groups(members, np.r_[0, np.cumsum(sizes)].astype(np.int32), of)


@dataclass(frozen=True, slots=True)
class Places:
    """Labels as codes, [gpus] each, and the GPUs by name: neighbours must not depend on who was seen first."""

    node: NDArray[np.int64]
    single: NDArray[np.bool_]  # whether its node has no other GPU, or is not known
    island: NDArray[np.int64]  # -1 also where it is just the node
    rack: NDArray[np.int64]
    model: NDArray[np.int64]
    order: NDArray[np.int64]


@by_fleet
def places(gpus: tuple[Gpu, ...]) -> Places:
    order = sorted(range(len(gpus)), key=lambda index: (gpus[index].node, gpus[index].gpu))
    names = ("node", "island", "rack", "model")
    node, island, rack, model = (_codes([getattr(gpu, name) for gpu in gpus]) for name in names)
    single = (node < 0) | (np.bincount(node + 1)[node + 1] == 1)
    return Places(node, single, _unlike(island, node), rack, model, np.array(order, dtype=np.int64))


def _unlike(island: NDArray[np.int64], node: NDArray[np.int64]) -> NDArray[np.int64]:
    """The islands, -1 where an island has the same GPUs as the node. [gpus] each."""
    both = np.stack([island, node])
    sizes = [np.unique(each, axis=-1, return_inverse=True, return_counts=True)[1:] for each in (island, node, both)]
    of_island, of_node, of_both = (counts[places.ravel()] for places, counts in sizes)
    return np.where((of_island == of_both) & (of_node == of_both), -1, island)


def _codes(names: list[str]) -> NDArray[np.int64]:
    """Equal names get equal codes; an empty name gets -1."""
    codes: dict[str, int] = {}
    return np.array([codes.setdefault(name, len(codes)) if name else -1 for name in names], dtype=np.int64)


def _load_bins(effort: Floats, model: NDArray[np.int64]) -> NDArray[np.int64]:
    """Effort in LOAD_BINS equal parts of its model's range; 0 where it is unknown or does not vary."""
    bins = np.zeros(len(effort), dtype=np.int64)
    for code in np.unique(model):
        mine = (model == code) & np.isfinite(effort)
        if mine.any():
            low, high = float(effort[mine].min()), float(effort[mine].max())
            # Within a tenth everyone works equally hard, and cutting that up would tear peers apart.
            if high - low > 0.1 * abs(high):
                share = (effort[mine] - low) / (high - low)
                bins[mine] = np.minimum((share * LOAD_BINS).astype(np.int64), LOAD_BINS - 1)
    return bins
