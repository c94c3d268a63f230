"""A network's answers → residuals: residuals.raw and in_units on the device. Everything is [rows, steps, gpus]."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from detector.card.groups import Groups, medians
from detector.card.peers import Topology
from detector.card.standing import Labels, Standing
from detector.contexts import AFTERMATH, LAG
from detector.features import twins
from detector.residuals import GAPS, missed
from detector.signals import Signal
from detector.topology import MINIMUM, PRESENT

_NAN = float("nan")


@dataclass(frozen=True, slots=True)
class Kinds:
    """Which signals are what, bool [signals, 1, 1]; missed: see residuals.missed, float32."""

    job: Tensor
    heat: Tensor
    lags: Tensor
    grows: Tensor
    steady: Tensor
    either: Tensor
    set_here: Tensor
    twins: Tensor
    missed: Tensor

    @classmethod
    def of(cls, signals: Sequence[Signal], device: torch.device) -> Kinds:
        def told(which: list[bool]) -> Tensor:
            return torch.tensor(which, device=device)[:, None, None]

        return cls(
            told([signal.follows == "job" for signal in signals]),
            told([signal.follows == "effort" for signal in signals]),
            told([signal.lags for signal in signals]),
            told([signal.direction == "high" for signal in signals]),
            told([signal.kind == "counter" for signal in signals]),
            told([signal.direction == "both" for signal in signals]),
            told([signal.follows is None and signal.kind == "gauge" for signal in signals]),
            told((twins(signals) >= 0).tolist()),
            torch.from_numpy(missed(signals)).to(device),
        )


@dataclass(frozen=True, slots=True)
class Circumstances:
    """The context of every GPU and step, and since when its work is the same, [steps, gpus]; see contexts.py."""

    context: Tensor
    since: Tensor

    @property
    def lately(self) -> Tensor:
        return self.since < AFTERMATH

    @property
    def lagging(self) -> Tensor:
        return self.since < LAG

    @property
    def idle(self) -> Tensor:
        return self.context == 0

    @property
    def accompanied(self) -> Tensor:
        return self.context == 2

    @property
    def alone(self) -> Tensor:
        return self.context // 2 == 2

    @property
    def settling(self) -> Tensor:
        return self.context % 2 == 1


def judgeable(residuals: Tensor, trend: Tensor, kinds: Kinds, now: Circumstances) -> Tensor:
    """See residuals.judgeable. trend: over the floor, of all signals."""
    told = torch.where(kinds.grows, trend, _NAN)
    judged = torch.where(kinds.job & now.alone, told, residuals)
    return torch.where(now.settling & ~kinds.steady, _NAN, judged)


def common_to_job(residuals: Tensor, kinds: Kinds, now: Circumstances) -> Tensor:
    """See residuals.common_to_job."""
    untold = kinds.job | (now.lately & ~kinds.steady) | (now.idle & ~kinds.steady & ~kinds.heat)
    return torch.where(untold, _NAN, residuals)


def patchy(actual: Tensor, channels: Tensor) -> Tensor:
    """See residuals.patchy, [steps, gpus]. channels: [steps * gpus, signals, CHANNELS]."""
    lately = channels[..., -1].T.reshape(actual.shape) > 0
    return (lately & actual.isnan()).sum(0) > GAPS * lately.sum(0)


def against_likes(scaled: Tensor, standing: Standing, topology: Topology, now: Circumstances) -> Tensor:
    """See residuals.against_likes."""
    unsettled = now.alone | now.settling
    ranks, likes = (
        _apart(torch.where(alike, scaled, _NAN), topology[kind])
        for kind, alike in (("job", ~unsettled), ("load", now.idle))
    )
    apart = torch.where(now.idle, likes, ranks) / standing.floor
    usual = (scaled - standing.idle) / standing.floor
    nearer = torch.where(apart.isnan() | (usual.abs() < apart.abs()), usual, apart)
    return torch.where(now.idle, nearer, apart)


def _apart(values: Tensor, groups: Groups) -> Tensor:
    return values - medians(values.flatten(1), groups, PRESENT).view_as(values)


def against_job(residuals: Tensor, topology: Topology) -> Tensor:
    """See residuals.against_job."""
    return beyond(residuals, medians(residuals.flatten(1), topology["job"], PRESENT).view_as(residuals))


def apart_from_neighbours(plain: Tensor, kinds: Kinds, neighbours: Groups, single: Tensor) -> Tensor:
    """See residuals.apart_from_neighbours. plain: of all signals; single: whose node has no other GPU, bool [gpus]."""
    common = medians(plain.flatten(1), neighbours, 2, nearer=True).view_as(plain).masked_fill(single, 0.0)
    return torch.where(kinds.heat, torch.where(common.isnan(), _NAN, beyond(plain, common)), plain)


def not_alone(residuals: Tensor, kinds: Kinds, neighbours: Groups) -> Tensor:
    """See residuals.not_alone."""
    own, plain = residuals.chunk(2)
    common = medians(plain.flatten(1), neighbours, PRESENT, nearer=True).view_as(plain)
    left = beyond(plain, common)
    bounded = torch.where(left.isnan(), own, agreed(own, left))
    return torch.cat([torch.where(kinds.set_here, bounded, own), torch.where(kinds.set_here, left, plain)])


def awaiting(ranks: Groups, beside: Groups, now: Circumstances) -> Tensor:
    """See residuals.awaiting. ranks: of a job; beside: GPUs of a node that do the same."""
    here = beside.size.clamp(min=1)
    most = torch.zeros_like(here).scatter_reduce(0, ranks.start, torch.where(ranks.size > 0, here, 0), "amax")
    most = most[ranks.start]
    elsewhere = (ranks.size > 0) & (2 * most >= ranks.size) & (here < most)
    return elsewhere.view_as(now.since) & now.lately


def by_itself(own: Tensor, single: Tensor, kinds: Kinds, now: Circumstances) -> Tensor:
    """See residuals.by_itself. Of all signals."""
    return torch.where(kinds.set_here & now.alone, agreed(own, single), own)


def within(own: Tensor, plain: Tensor, now: Circumstances) -> Tensor:
    """See residuals.within."""
    unaided = torch.where(now.accompanied, _NAN, own)
    bounded = torch.where(own.isnan(), own, torch.where(plain.isnan(), unaided, agreed(own, plain)))
    return torch.where(now.idle, _NAN, bounded)


def bounded_by_ranks(own: Tensor, plain: Tensor, elsewhere: Tensor, kinds: Kinds, now: Circumstances) -> Tensor:
    """See residuals.bounded_by_ranks. Of all signals."""
    single = kinds.heat & now.accompanied & plain.isnan() & ~elsewhere.isnan()
    return torch.where(single, agreed(own, elsewhere), own)


def hot_within(own: Tensor, plain: Tensor, kinds: Kinds, now: Circumstances) -> Tensor:
    """See residuals.hot_within."""
    return torch.where(kinds.heat & now.accompanied & ~plain.isnan(), agreed(own, plain), own)


def agreed(own: Tensor, plain: Tensor) -> Tensor:
    """See residuals.agreed."""
    nearer = own.sign() * torch.where(own * plain > 0, torch.minimum(own.abs(), plain.abs()), 0.0)
    return torch.where(own.isnan() | plain.isnan(), _NAN, nearer)


def apart_from_node(residuals: Tensor, kinds: Kinds, now: Circumstances, nodes: Groups) -> tuple[Tensor, Tensor]:
    """See residuals.apart_from_node. residuals: of each signal twice."""
    telling = (~now.alone | ~kinds.either).repeat(2, 1, 1)
    values = torch.where(telling, residuals, _NAN)
    common = medians(values.flatten(1), nodes, MINIMUM).view_as(residuals)
    return beyond(residuals, common), common


def beyond(residuals: Tensor, common: Tensor) -> Tensor:
    """See residuals.beyond."""
    others = common.nan_to_num(nan=0.0)
    shared = torch.where(others * residuals > 0, others.abs(), 0.0)
    return residuals.sign() * (residuals.abs() - shared).clamp(min=0.0)


def less(residuals: Tensor, usual: Sequence[Tensor], now: Circumstances) -> Tensor:
    """The first rows less what is usual for each GPU; see residuals.Residuals.less."""
    resting, working = usual
    rows = len(resting)
    mine = torch.where(now.idle, resting, working)
    return torch.cat([residuals[:rows] - mine, residuals[rows:]])


def standing_still(unchanged: Tensor, kinds: Kinds, node: Labels) -> Tensor:
    """See residuals.standing_still; NaN for twins, [signals, steps, gpus]. node: the GPUs' as Standing has them."""
    codes, count = node
    runs = torch.where(kinds.twins | unchanged.isnan(), torch.inf, unchanged).amin(0)
    shortest = torch.full((len(runs), count), torch.inf, device=runs.device)
    shortest = shortest.scatter_reduce(1, codes.expand(len(runs), -1), runs, "amin")
    few = torch.bincount(codes, minlength=count) < PRESENT
    few[0] = True  # no node
    shortest = shortest.masked_fill(shortest.isinf() | few, 0.0)
    return torch.where(kinds.twins, _NAN, shortest[:, codes])


def in_units(residuals: Tensor, scale: Tensor, context: Tensor, kinds: Kinds) -> Tensor:
    """See residuals.in_units. scale: [rows, CONTEXTS], see contexts.ContextScale."""
    scaled = residuals / scale[:, context]
    runs = scaled[-len(kinds.missed) :]
    middle = runs.nanmedian(2, keepdim=True).values  # the lower one of an even number, as there
    return torch.cat([scaled[: -len(runs)], (runs - middle - kinds.missed).clamp(min=0.0)])
