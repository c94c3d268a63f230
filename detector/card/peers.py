"""What every GPU does, and who is compared with whom: topology.py, contexts.py and batches.peers on the device."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.utils.dlpack import from_dlpack

from detector import lockstep
from detector.batches import BEGINNING, EFFORT_MEMORY, PAUSE
from detector.card.device import placed, shown
from detector.card.features import highest, smooth
from detector.card.groups import Groups, group, nobody
from detector.card.standing import Standing
from detector.contexts import AFTERMATH, SETTLING
from detector.signals import Signal
from detector.telemetry import IDLE
from detector.topology import BUSY_RATIO, KINDS, LOAD_BINS, MINIMUM, UNNAMED
from kernels import nearest_peers

_NAN = float("nan")
_INF = float("inf")
_EVER = 1_000_000_000

Topology = dict[str, Groups]


@dataclass(frozen=True, slots=True)
class Doing:
    """What every GPU does at the steps to be judged, [steps, gpus] each.

    activity, effort: float32. state: int64, see topology.states. since: int64, see contexts.since. company: int64, who
    works in step where no job is named, -1 for none; None where there is nobody to look for.
    """

    activity: Tensor
    effort: Tensor
    state: Tensor
    since: Tensor
    company: Tensor | None

    def of(self, steps: slice) -> Doing:
        """Of some of the steps."""
        company = None if self.company is None else self.company[steps]
        return Doing(self.activity[steps], self.effort[steps], self.state[steps], self.since[steps], company)

    def context(self, job: Groups) -> Tensor:
        """See contexts.contexts, int64 [steps, gpus]."""
        ranks = job.counts.reshape(self.state.shape)
        return 2 * torch.where(self.state != 0, torch.where(ranks, 1, 2), 0) + (self.since < SETTLING).long()


def doing(
    signals: Sequence[Signal],
    readings: Tensor,
    job: Tensor,
    state: tuple[str, str],
    first: int,
    named: bool,
    standing: Standing,
) -> Doing:
    """See batches.peers. readings: [signals, gpus, steps]; job: [gpus, steps]; named: whether jobs make peers."""
    names = [signal.name for signal in signals]
    absent = torch.full(readings.shape[1:], _NAN, device=readings.device)
    active, work = (readings[names.index(name)] if name in names else absent for name in state)
    past = max(0, first - AFTERMATH)
    activity = highest(active, PAUSE, past)
    activity = torch.where(activity.isnan().all(), 1.0, activity)
    now = job[:, past:]
    for row, signal in enumerate(signals):
        if signal.held is not None:
            idles = (now == IDLE) & (highest(readings[row], PAUSE, past) < signal.held)
            activity = torch.where(idles, 0.0, activity)
    working = torch.where(activity > BUSY_RATIO, UNNAMED, 0)
    states = torch.where(now != IDLE, now.long() + 1, working)
    asked = slice(first - past, None)
    unnamed = (states[:, asked] == UNNAMED).sum(0) >= MINIMUM
    company = None
    if named and bool(unnamed.any()):
        company = companies(torch.stack([active, work]), job, unnamed.tolist(), standing)
    return Doing(
        activity[:, asked].T,
        smooth(work, (EFFORT_MEMORY,), first)[0].T,
        states[:, asked].T,
        _since(states)[:, asked].T,
        company,
    )


def _since(states: Tensor) -> Tensor:
    """See contexts.since. [gpus, steps]."""
    steps = torch.arange(states.shape[1], device=states.device)
    begun = torch.full_like(states, -_EVER)
    begun[:, 1:] = torch.where(states[:, 1:] != states[:, :-1], steps[1:], -_EVER)
    return steps - begun.cummax(1).values


def companies(work: Tensor, job: Tensor, unnamed: Sequence[bool], standing: Standing) -> Tensor:
    """See batches._companies. work: [kinds, gpus, steps]; unnamed: of each newest step, whether there are enough."""
    idles = (job == IDLE) & ((highest(work[0], PAUSE, 0) > BUSY_RATIO) | work[0].isnan())
    steps, gpus = work.shape[2], work.shape[1]
    found = torch.full((len(unnamed), gpus), -1, device=work.device)
    for place, enough in enumerate(unnamed):
        end = steps - len(unnamed) + place + 1
        begin = end - lockstep.LAG - lockstep.SPAN
        if enough and begin >= BEGINNING:
            settled = idles[:, begin - BEGINNING : end].all(1)
            rows = settled.nonzero().flatten()
            if len(rows) > 1:
                span = work[:, rows, begin : begin + lockstep.SPAN]
                found[place, rows] = _ranks(span, standing.model[0][rows] - 1)
    return found


def _ranks(readings: Tensor, model: Tensor) -> Tensor:
    """See lockstep.ranks, of those who may be. [kinds, rows, SPAN], int64 [rows] → int64 [rows]."""
    present = ~readings.isnan()
    count = present.sum(2, keepdim=True).clamp(min=1)
    filled = torch.where(present, readings, 0.0).double()
    apart = torch.where(present, filled - filled.sum(2, keepdim=True) / count, 0.0)
    spread = (apart.square().sum(2, keepdim=True) / count).sqrt().clamp(min=1e-6)
    shape = (apart / spread).transpose(0, 1).flatten(1).float().contiguous()
    known = (present.double().mean(2) >= lockstep.PRESENT).all(0)
    labels = torch.where(known, model, -1).int()
    peers = nearest_peers(shown(shape), lockstep.NEAREST, shown(labels), metric="correlation")
    index, distance = (from_dlpack(each) for each in (peers.index, peers.distance))
    near = torch.where(distance <= lockstep.APART, index, -1)
    return placed(lockstep.companies(near.cpu().numpy()), readings.device).long()


def build(standing: Standing, now: Doing, jobs: int, kinds: frozenset[str] | None) -> tuple[Topology, Topology]:
    """The peer groups of some steps, and the same for the model; see topology.build and topology.companions.

    GPU i of step b is node b * gpus + i. jobs: how many are known.
    """
    steps, gpus = now.state.shape
    base = gpus * torch.arange(steps, device=now.state.device)[:, None]
    by_name = (base + standing.order).flatten()
    effort = now.effort.nan_to_num(nan=-1.0)[:, standing.order].sort(dim=1, stable=True).indices
    by_effort = (base + standing.order[effort]).flatten()
    step = (base // max(gpus, 1)).expand_as(now.state).flatten(), steps
    labels = standing.node, standing.island, standing.rack, standing.model
    node, island, rack, model = ((codes.repeat(steps), number) for codes, number in labels)
    state = (now.state + 1).flatten(), jobs + 2
    busy = (now.state != 0).long().flatten(), 2
    load = _load_bins(now.effort, *standing.model).flatten(), LOAD_BINS
    named = (now.state > 0).flatten()
    present = ~now.activity.isnan() | ~now.effort.isnan() | (now.state > 0)
    present = (present | ~(now.activity.isfinite() | now.effort.isfinite()).any(1, keepdim=True)).flatten()
    topology = {
        "job": group([step, model, state], named, by_name),
        "island": group([step, island, state], present & (island[0] > 0), by_name),
        "node": group([step, node, state], present, by_name),
        "rack": group([step, rack, model, busy, load], present & (rack[0] > 0), by_name),
        "load": group([step, model, busy, load], present, by_effort),
    }
    if kinds is not None:
        topology = {kind: topology[kind] if kind in kinds else nobody(topology[kind]) for kind in KINDS}
    if now.company is None:
        return topology, topology
    together = torch.where(now.state == UNNAMED, now.company, -1).flatten()
    ranks = group([step, model, state, (together + 1, gpus + 1)], named | (together >= 0), by_name)
    return topology, topology | {"job": ranks}


def nodes(standing: Standing, steps: int) -> Groups:
    """The GPUs of each node, whatever they do; see topology.by_node."""
    gpus = len(standing.order)
    base = gpus * torch.arange(steps, device=standing.order.device)[:, None]
    order = (base + standing.order).flatten()
    step = torch.arange(steps, device=order.device).repeat_interleave(gpus), steps
    everyone = torch.ones_like(order, dtype=torch.bool)
    return group([step, (standing.node[0].repeat(steps), standing.node[1])], everyone, order)


def neighbours(standing: Standing, now: Doing, jobs: int) -> Groups:
    """The GPUs of each node that do the same; see residuals.apart_from_neighbours. jobs: how many are known."""
    steps, gpus = now.state.shape
    order = (gpus * torch.arange(steps, device=now.state.device)[:, None] + standing.order).flatten()
    step = torch.arange(steps, device=order.device).repeat_interleave(gpus), steps
    node = standing.node[0].repeat(steps), standing.node[1]
    state = (now.state + 1).flatten(), jobs + 2
    return group([step, node, state], torch.ones_like(order, dtype=torch.bool), order, minimum=2)


def _load_bins(effort: Tensor, model: Tensor, models: int) -> Tensor:
    """See topology._load_bins. [steps, gpus]."""
    bins = torch.zeros(effort.shape, dtype=torch.int64, device=effort.device)
    for code in range(models):
        mine = (model == code) & effort.isfinite()
        low = torch.where(mine, effort, _INF).amin(1, keepdim=True)
        high = torch.where(mine, effort, -_INF).amax(1, keepdim=True)
        varies = high.double() - low.double() > 0.1 * high.double().abs()
        share = torch.where(mine & varies, (effort - low) / (high - low), 0.0)
        bins = torch.where(mine & varies, (share * LOAD_BINS).long().clamp(max=LOAD_BINS - 1), bins)
    return bins
