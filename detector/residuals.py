"""Where each signal is against where it should be, from the model or, before there is one, from the peers alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray

from detector.batches import Prepared, peers, prepare
from detector.budget import Tail
from detector.calibration import Thresholds
from detector.contexts import AFTERMATH, LAG, ContextScale, accompanied, alone, idle, settling, unsettled
from detector.features import Scaling, twins
from detector.habits import Habits
from detector.model import PeerReconstruction
from detector.offsets import NONE, Offsets
from detector.signals import Signal
from detector.telemetry import Floats, Gpu, Telemetry, clean
from detector.topology import MINIMUM, PRESENT, Groups, Ints, Topology, by_node, places
from kernels import peer_deviation

_BATCH_NODES = 4096
MISSED = 2.0  # scrapes: who missed one has seen the same reading less often
GAPS = 0.2  # of its readings a GPU may lack and still say something about its groups
_PEER_SIGMAS = 4.0  # robust deviations that are one unit of residual before anything is calibrated


@dataclass(frozen=True, slots=True)
class Residuals:
    """Residuals in units of what is usual, float32 [rows, gpus, steps]; NaN where absent or without an opinion.

    own: the GPU against its peers, which decides about this GPU; a row for each signal. A model's has three more for
    each: plainly against the median of those who do the same; how that has changed, see changes.py, which a judge
    leaves to who knows the past; and for how long the reading has been the very same while others of its node moved.
    Before the last another, where signals are not described: against the GPU's own habits.
    shared: what decides about jobs, nodes and racks: the GPU against what is usual without peers, a row for each
    signal. A model's has two more for each: what its whole node has against its peers, and for how long nothing that
    the node reports has changed.
    """

    own: Floats
    shared: Floats

    def forget(self, gpus: NDArray[np.bool_], signals: Sequence[Signal]) -> None:
        """Drop what comparing these GPUs with their peers has found, but for what counts errors. gpus: [gpus]."""
        counts = np.array([signal.kind == "counter" for signal in signals])
        self.own[np.ix_(~np.tile(counts, len(self.own) // len(counts)), gpus)] = np.nan
        by_peers = len(counts) if len(self.shared) > len(counts) else 0  # a model's first rows do without peers
        self.shared[np.ix_(by_peers + np.flatnonzero(~counts), gpus)] = np.nan

    def less(self, usual: Offsets, gpus: tuple[Gpu, ...], context: NDArray[np.int64], signals: int) -> Residuals:
        """Less what is usual for each GPU, its own in what it wanders. context: [gpus, steps]."""
        rows = usual.usual(gpus, context)
        own = _less(self.own, rows[: 2 * signals])
        unit = usual.unit(gpus)
        own[: len(unit)] /= unit
        return Residuals(own, _less(self.shared, rows[2 * signals :]))

    def with_changes(self, changed: Floats) -> Residuals:
        """As many of the newest steps with another row for each signal, see changes.py."""
        own, shared = (each[..., each.shape[2] - changed.shape[2] :] for each in (self.own, self.shared))
        plain = 2 * len(changed)
        return Residuals(np.concatenate([own[:plain], changed, own[plain:]]), shared)

    def with_habits(self, unusual: Floats) -> Residuals:
        """With another row for each signal, see habits.py."""
        plain = 2 * len(unusual)
        return Residuals(np.concatenate([self.own[:plain], unusual, self.own[plain:]]), self.shared)


def _less(residuals: Floats, usual: Floats) -> Floats:
    """The first rows less as many others."""
    return np.concatenate([residuals[: len(usual)] - usual, residuals[len(usual) :]])


class Judge(Protocol):
    """A source of residuals, and the thresholds that belong to them."""

    @property
    def basis(self) -> str:
        """`peers` or `model`: which stage of the cold start is in force."""

    @property
    def signals(self) -> tuple[Signal, ...]:
        """The signals it judges, in the order of its residuals."""

    @property
    def own(self) -> Thresholds: ...

    @property
    def shared(self) -> Thresholds: ...

    @property
    def group_units(self) -> Mapping[str, float]:
        """How far the medians of a kind of group go, against a node's; 1 for one that is not here."""

    @property
    def change_units(self) -> Floats | None:
        """How large changes of the plain comparison are, [signals]; None where its residuals are no model's."""

    def residuals(self, telemetry: Telemetry, first: int) -> Residuals:
        """The residuals of step `first` and later; the steps before are their past."""


@dataclass(frozen=True, slots=True)
class PeerJudge:
    """The cold start: no training, each GPU against the median of its peers at this moment.

    What follows from the effort (heat) is compared between GPUs of one model that work equally hard, in the same rack
    if there are enough. Everything else is compared between the settled ranks of a job, and between idle GPUs.
    """

    signals: tuple[Signal, ...]
    state: tuple[str, str]
    group_units: Mapping[str, float] = field(default_factory=dict)
    change_units: None = None
    basis: str = "peers"

    @property
    def own(self) -> Thresholds:
        return Thresholds.uncalibrated(self.signals)

    @property
    def shared(self) -> Thresholds:
        return Thresholds.uncalibrated(self.signals)

    def residuals(self, telemetry: Telemetry, first: int) -> Residuals:
        ordered = aligned(telemetry, self.signals)
        readings = clean(ordered.signals, ordered.values)
        topologies, _, context, _ = peers(ordered, readings, self.state, first)
        names = [signal.name for signal in self.signals]
        # Where nothing tells busy from idle, all of one model are alike.
        told = self.state[0] in names and not np.isnan(readings[names.index(self.state[0])]).all()
        steps = [
            self._step(readings[:, :, first + step], context[:, step], idle(context[:, step]) | (not told), topology)
            for step, topology in enumerate(topologies)
        ]
        deviation = np.stack(steps, axis=-1) / np.float32(_PEER_SIGMAS)
        return Residuals(deviation, deviation)

    def _step(
        self, readings: Floats, context: NDArray[np.int64], alike: NDArray[np.bool_], topology: Topology
    ) -> Floats:
        by_rack, by_load, by_job = (self._deviation(readings, topology[kind]) for kind in ("rack", "load", "job"))
        by_effort = np.where(np.isnan(by_rack), by_load, by_rack)
        follows = np.array([signal.follows == "effort" for signal in self.signals])
        by_job[:, unsettled(context)] = np.nan
        chosen: Floats = np.where(follows[:, None] | alike, by_effort, by_job)
        return chosen

    def _deviation(self, readings: Floats, groups: Groups) -> Floats:
        deviation = np.full(readings.shape, np.nan, np.float32)
        if len(groups.members):
            # A spread below the sensor's resolution cannot be seen; the kernel scales the floor as it does the MAD.
            floor = np.array([max(signal.resolution, 1e-6) / 1.4826 for signal in self.signals])
            found = peer_deviation(
                np.ascontiguousarray(readings), groups.members, groups.offsets, floor=floor, minimum=PRESENT
            )
            deviation[:, groups.members] = found.deviation
        return deviation


@dataclass(frozen=True, slots=True)
class ModelJudge:
    """A trained model with its scaling, and what is usual for its residuals."""

    version: str
    signals: tuple[Signal, ...]
    models: tuple[str, ...]
    state: tuple[str, str]
    scaling: Scaling
    network: PeerReconstruction
    own_scale: ContextScale
    shared_scale: ContextScale
    own: Thresholds
    shared: Thresholds
    own_tail: Tail
    shared_tail: Tail
    change_units: Floats
    offsets: Offsets = NONE
    habits: Habits | None = None
    group_units: Mapping[str, float] = field(default_factory=dict)
    basis: str = "model"

    def errors(self, telemetry: Telemetry, first: int) -> Floats:
        """How far the rebuilt signals are off, in their units: float32 [signals, gpus, steps], NaN where absent."""
        ordered = aligned(telemetry, self.signals)
        readings = clean(ordered.signals, ordered.values)
        prepared = prepare(ordered, readings, self.scaling, self.models, self.state, first)
        # Above any scale that the network gives, so that all is divided by the same.
        unit = np.full((len(self.models) + 1, len(self.signals)), 1e3, np.float32)
        found: Floats = np.abs(rebuild(self.network, prepared, unit)[0]) * np.float32(1e3)
        return found * self.scaling.spread[prepared.model].T[:, :, None]

    def within(self, budget: float) -> ModelJudge:
        """The same judge for another budget: false alarms per 1,000 GPU-hours."""
        return replace(self, own=self.own_tail.thresholds(budget), shared=self.shared_tail.thresholds(budget))

    def residuals(self, telemetry: Telemetry, first: int) -> Residuals:
        ordered = aligned(telemetry, self.signals)
        readings = clean(ordered.signals, ordered.values)
        prepared = prepare(ordered, readings, self.scaling, self.models, self.state, first)
        found = raw(self.network, prepared, ordered, self.scaling)
        if self.habits is not None:
            found = found.with_habits(self.habits.residuals(ordered, readings, first))
        found = found.less(self.offsets, telemetry.gpus, prepared.context, len(self.signals))
        return Residuals(
            in_units(found.own, self.own_scale, prepared.context, self.signals),
            in_units(found.shared, self.shared_scale, prepared.context, self.signals),
        )


def raw(network: PeerReconstruction, prepared: Prepared, telemetry: Telemetry, scaling: Scaling) -> Residuals:
    """The model's residuals before anything is known of their usual size. telemetry: what was prepared."""
    signals = telemetry.signals
    floor = scale_floor(signals, scaling)
    together, single = rebuild(network, prepared, floor)
    own = judgeable(together, prepared, signals, floor)
    heat = np.array([signal.follows == "effort" for signal in signals])
    plain = against_likes(prepared, scaling, floor)
    elsewhere = plain[heat]
    plain[heat] = apart_from_neighbours(plain[heat], telemetry.gpus, telemetry.job)
    own = against_job(own, prepared.topologies)
    set_here = np.array([signal.follows is None and signal.kind == "gauge" for signal in signals])
    own[set_here] = by_itself(own[set_here], single[set_here], prepared.context)
    own[~heat] = within(own[~heat], plain[~heat], prepared.context)
    own[heat] = bounded_by_ranks(own[heat], plain[heat], elsewhere, prepared.context)
    untold = (
        awaiting(prepared.topologies, prepared.since, telemetry) & ~heat[:, None, None] & ~steady(signals)[..., None]
    )
    own[untold] = plain[untold] = np.nan
    lags = np.array([signal.lags for signal in signals])
    lagging = lags[:, None, None] & (prepared.since < LAG)
    own[lagging] = plain[lagging] = np.nan
    # What may go either way, a job without company sets as it likes: two such jobs are not yet the node's affair.
    telling = ~alone(prepared.context) | np.array([signal.direction != "both" for signal in signals])[:, None, None]
    apart, common = apart_from_node(np.concatenate([own, plain]), np.concatenate([telling] * 2), telemetry.gpus)
    # Of a job's two nodes one waits for the other. Which is off, what the job does not make tells first.
    common[: len(signals)][made_by_job(signals)[:, None, None] & (prepared.since < AFTERMATH)] = np.nan
    apart = hot_within(apart, heat, prepared.context)
    apart = not_alone(apart, set_here, telemetry.gpus, telemetry.job)
    single[:, patchy(prepared)] = np.nan
    shared = common_to_job(single, prepared, signals)
    # All readings of an exporter that hangs stand still, which is its node's affair and no GPU's.
    timed = (twins(signals) < 0)[:, None, None]
    still = standing_still(prepared.unchanged[timed.ravel()], telemetry.gpus)
    stuck = np.where(timed, prepared.unchanged - still, prepared.unchanged)
    still = np.where(timed, still, np.float32(np.nan))
    return Residuals(np.concatenate([apart, stuck]), np.concatenate([shared, common[: len(signals)], still]))


def patchy(prepared: Prepared) -> NDArray[np.bool_]:
    """Of whom too much that came lately does not come now, [gpus, steps].

    Without it the network is off, of all such GPUs to the same side, which looks like something that they share.
    """
    lately = prepared.channels[..., -1] > 0
    gaps: NDArray[np.bool_] = (lately & np.isnan(prepared.scaled)).sum(axis=0) > GAPS * lately.sum(axis=0)
    return gaps


def apart_from_neighbours(plain: Floats, gpus: tuple[Gpu, ...], job: NDArray[np.int32]) -> Floats:
    """What sets heat apart from its likes, `beyond` what those of them on the same node have in common.

    Air and fans are the node's, and the fans follow its hottest GPU, whatever that works for. Where none of its other
    GPUs does the same, there is no opinion: it may be the node. [signals, gpus, steps]; job: [gpus, steps and before].
    """
    common = in_common(plain, gpus, job, 2)
    common[:, places(gpus).single] = 0.0
    apart: Floats = np.where(np.isnan(common), common, beyond(plain, common))
    return apart


def not_alone(residuals: Floats, set_here: NDArray[np.bool_], gpus: tuple[Gpu, ...], job: NDArray[np.int32]) -> Floats:
    """What a node's ranks of a job have in common is no fault of one of them: it is the node's, or their peers'.

    Where most of the others are braked, it is the healthy ones that stand out; groups tell the rest. residuals: of the
    model, then of the plain comparison; set_here: signals that neither the job makes nor the air, [signals].
    """
    found = residuals.copy()
    own, plain = found[: len(set_here)], found[len(set_here) :]
    left = beyond(plain[set_here], in_common(plain[set_here], gpus, job, PRESENT))
    own[set_here] = np.where(np.isnan(left), own[set_here], agreed(own[set_here], left))
    plain[set_here] = left
    return found


def in_common(values: Floats, gpus: tuple[Gpu, ...], job: NDArray[np.int32], least: int) -> Floats:
    """The median of a node's GPUs that work for the same job, [signals, gpus, steps]; NaN where fewer than `least`.

    Of an even number the one in the middle that is nearer to 0: of two, one alone being off is not in common.
    """
    node = places(gpus).node
    members = np.argsort(node, kind="stable").astype(np.int32)
    starts = np.flatnonzero(np.diff(node[members], prepend=-2))
    offsets = np.r_[starts, len(members)].astype(np.int32)
    return _in_common(values, members, offsets, job[:, job.shape[1] - values.shape[2] :], least)


@njit(cache=True, nogil=True)
def _in_common(values: Floats, members: Ints, offsets: Ints, job: Ints, least: int) -> Floats:
    """See in_common. The GPUs by node, and where each node begins."""
    found = np.full(values.shape, np.nan, np.float32)
    signals, _, steps = values.shape
    for node in range(len(offsets) - 1):
        mine = members[offsets[node] : offsets[node + 1]]
        alike = np.empty(len(mine), np.float32)
        for signal in range(signals):
            for step in range(steps):
                for gpu in mine:
                    if np.isnan(values[signal, gpu, step]):
                        continue
                    count = 0
                    for other in mine:
                        value = values[signal, other, step]
                        if job[other, step] == job[gpu, step] and not np.isnan(value):
                            alike[count] = value
                            count += 1
                    if count >= least:
                        ordered = np.sort(alike[:count])
                        low, high = ordered[(count - 1) // 2], ordered[count // 2]
                        found[signal, gpu, step] = low if abs(low) <= abs(high) else high
    return found


def awaiting(topologies: Sequence[Topology], since: NDArray[np.int64], telemetry: Telemetry) -> NDArray[np.bool_]:
    """Whose other ranks are mostly on one node of which nothing can be said yet, for the job is new; [gpus, steps].

    If it is that node which is off, those elsewhere stand out from it, and sooner than it is told of as a group.
    topologies: one a step; since: see batches.Prepared.
    """
    job = telemetry.job[:, telemetry.job.shape[1] - since.shape[1] :].astype(np.int64) + 1
    place = (places(telemetry.gpus).node + 1)[:, None] * (len(telemetry.jobs) + 1) + job
    found = np.zeros(job.shape, np.bool_)
    for step, topology in enumerate(topologies):
        groups = topology["job"]
        mine, at = groups.members, groups.of[groups.members]
        if len(mine):
            _, same, sizes = np.unique(place[:, step], return_inverse=True, return_counts=True)
            here, total, most = (
                sizes[same][mine],
                np.diff(groups.offsets)[at],
                np.zeros(len(groups.offsets) - 1, np.int64),
            )
            np.maximum.at(most, at, here)
            found[mine, step] = (2 * most[at] >= total) & (here < most[at])
    return found & (since < AFTERMATH)


def by_itself(own: Floats, single: Floats, context: NDArray[np.int64]) -> Floats:
    """The model's word on a GPU without ranks to be compared with, as far as it says so without any peers as well.

    The peers that are left do other work, and no two fleets have the same mixture of it: what only these make strange
    is strange to the model, and not the GPU's fault. single: the residuals without peers.
    """
    bounded: Floats = np.where(alone(context), agreed(own, single), own)
    return bounded


def within(own: Floats, plain: Floats, context: NDArray[np.int64]) -> Floats:
    """The model's residuals, as far as the plain comparison bears them out: who is where its likes are is not off.

    Idle GPUs are all alike: about them there is the plain comparison or none. Nor is anything said of a rank while too
    few of the others report to compare with.
    """
    unaided = np.where(accompanied(context), np.float32(np.nan), own)
    bounded: Floats = np.where(np.isnan(own), own, np.where(np.isnan(plain), unaided, agreed(own, plain)))
    bounded[:, idle(context)] = np.nan
    return bounded


def bounded_by_ranks(own: Floats, plain: Floats, elsewhere: Floats, context: NDArray[np.int64]) -> Floats:
    """The model's word on the heat of a job's only rank on a node: no more than ranks on other nodes bear out.

    Against those there is no plain opinion, it may be the node; but who is no hotter than they are is not off.
    plain: the opinion, elsewhere: the plain comparison with ranks wherever they are.
    """
    single = accompanied(context) & np.isnan(plain) & ~np.isnan(elsewhere)
    bounded: Floats = np.where(single, agreed(own, elsewhere), own)
    return bounded


def hot_within(residuals: Floats, heat: NDArray[np.bool_], context: NDArray[np.int64]) -> Floats:
    """The same of heat, where a rank has likes to be compared with; elsewhere the model's own opinion stands.

    residuals: of the model, then of the plain comparison, both already apart from the node's. heat: [signals].
    """
    found = residuals.copy()
    own, plain = residuals[: len(heat)], residuals[len(heat) :]
    compared = heat[:, None, None] & accompanied(context) & ~np.isnan(plain)
    found[: len(heat)] = np.where(compared, agreed(own, plain), own)
    return found


def agreed(own: Floats, plain: Floats) -> Floats:
    """The nearer to 0 of the two where they are to the same side, or else 0; NaN where either is."""
    nearer: Floats = np.sign(own) * np.where(own * plain > 0, np.minimum(np.abs(own), np.abs(plain)), 0.0)
    return np.where(np.isnan(own) | np.isnan(plain), np.float32(np.nan), nearer).astype(np.float32)


def in_units(residuals: Floats, scale: ContextScale, context: NDArray[np.int64], signals: Sequence[Signal]) -> Floats:
    """Residuals in what is usual for them, [rows, gpus, steps].

    The last rows, one for each signal, are for how long its reading has been the same: from here on, for how much
    longer than at half of the fleet. Where everybody's readings stand still it is Prometheus that did, and repeats
    the last ones.
    """
    scaled = scale.apply(residuals, context)
    scaled[-len(signals) :] = apart_from_fleet(scaled[-len(signals) :], missed(signals))
    return scaled


def missed(signals: Sequence[Signal]) -> Floats:
    """By how much less the others' readings may have stood still, because they missed scrapes, [signals, 1, 1]."""
    return np.array([0.0 if signal.twin else MISSED for signal in signals], np.float32)[:, None, None]


def standing_still(unchanged: Floats, gpus: tuple[Gpu, ...]) -> Floats:
    """For how many steps everything that a GPU's node reports has been the same, [gpus, steps].

    0 where a node has too few GPUs to be told of as a group. unchanged: in steps, [signals, gpus, steps].
    """
    node = places(gpus).node + 1  # 0 is no node
    shortest = np.full((int(node.max(initial=0)) + 1, unchanged.shape[2]), np.inf, np.float32)
    np.minimum.at(shortest, node, np.where(np.isnan(unchanged), np.inf, unchanged).min(axis=0, initial=np.inf))
    few = np.bincount(node, minlength=len(shortest)) < PRESENT
    few[0] = True
    shortest[np.isinf(shortest) | few[:, None]] = 0.0
    found: Floats = shortest[node]
    return found


def apart_from_fleet(unchanged: Floats, missed: Floats) -> Floats:
    """[signals, gpus, steps] less the median of all GPUs and what those may have missed; not below 0."""
    present = ~np.isnan(unchanged)
    middle = np.sort(unchanged, axis=1)  # NaN last
    place = np.maximum(present.sum(axis=1, keepdims=True) - 1, 0) // 2
    longer: Floats = np.maximum(unchanged - np.take_along_axis(middle, place, axis=1) - missed, 0)
    return longer


def apart_from_node(residuals: Floats, telling: NDArray[np.bool_], gpus: tuple[Gpu, ...]) -> tuple[Floats, Floats]:
    """The residuals `beyond` their node's median, and that median: what befalls a node is no fault of one GPU.

    [rows, gpus, steps] each. The median is of those that are telling; NaN where too few GPUs of the node are.
    """
    node = by_node(gpus)
    common = np.full(residuals.shape, np.nan, np.float32)
    if len(node.members):
        values = np.where(telling, residuals, np.float32(np.nan))
        median = peer_deviation(values, node.members, node.offsets, floor=1.0, minimum=MINIMUM).median
        common[:, node.members] = median[:, node.of[node.members]]
    return beyond(residuals, common), common


def beyond(residuals: Floats, common: Floats) -> Floats:
    """What is left of residuals that are further off than what others have in common, and to the same side.

    Nobody is off for standing where he should while the others do not. NaN in common is 0.
    """
    others = np.nan_to_num(common, nan=0.0)
    size = np.abs(residuals)
    left: Floats = np.sign(residuals) * np.maximum(size - np.where(others * residuals > 0, np.abs(others), 0.0), 0.0)
    return left.astype(np.float32)


def scale_floor(signals: tuple[Signal, ...], scaling: Scaling) -> Floats:
    """Each signal's resolution in robust units, [models + 1, signals]: smaller residuals are not told apart."""
    resolution = np.array([signal.resolution for signal in signals], np.float32)
    floor: Floats = np.maximum(resolution / scaling.spread, 1e-3).astype(np.float32)
    return floor


def rebuild(network: PeerReconstruction, prepared: Prepared, floor: Floats) -> tuple[Floats, Floats]:
    """Residuals of every prepared step, [signals, gpus, steps]: with the peers' help, and without."""
    signals, gpus, steps = prepared.scaled.shape
    together, single = (np.full((signals, gpus, steps), np.nan, np.float32) for _ in range(2))
    least = torch.from_numpy(floor[prepared.model])
    per_batch = max(1, _BATCH_NODES // max(1, gpus))
    network.eval()
    with torch.inference_mode():
        for start in range(0, steps, per_batch):
            chosen = range(start, min(start + per_batch, steps))
            actual, found = prepared.actual(chosen), network(prepared.batch(chosen, network.kinds))
            floors = least.repeat(len(chosen), 1)
            for out, mean, log_scale in (
                (together, found.mean, found.log_scale),
                (single, found.mean_alone, found.log_scale_alone),
            ):
                residual = (actual - mean) / torch.maximum(log_scale.exp(), floors)
                by_step = residual.numpy().reshape(len(chosen), gpus, signals)
                out[:, :, start : start + len(chosen)] = by_step.transpose(2, 1, 0)
    return together, single


def judgeable(residuals: Floats, prepared: Prepared, signals: tuple[Signal, ...], floor: Floats) -> Floats:
    """The residuals, those of job-made signals only where something tells what the job does.

    That is the other ranks. Without any, what a job does is its own affair, but for what only ever grows.
    """
    judged = residuals.copy()
    follows = made_by_job(signals)
    grows = np.array([signal.direction == "high" for signal in signals])
    trend = prepared.trend / floor[prepared.model].T[follows, :, None]
    trend[~grows[follows]] = np.nan
    judged[follows] = np.where(alone(prepared.context), trend, judged[follows])
    judged[:, settling(prepared.context)] = np.where(steady(signals), judged[:, settling(prepared.context)], np.nan)
    return judged


def common_to_job(residuals: Floats, prepared: Prepared, signals: tuple[Signal, ...]) -> Floats:
    """The residuals without peers, less those of signals that a job makes: what all its ranks do is its own affair.

    All ranks begin at once. Nobody else's readings then tell what is usual, so more time goes by until they count.
    Idle GPUs have the plain comparison with their likes: by itself, the network takes one whose activity is not
    reported for one at work.
    """
    judged = residuals.copy()
    judged[made_by_job(signals)] = np.nan
    lately = prepared.since < AFTERMATH
    judged[:, lately] = np.where(steady(signals), judged[:, lately], np.nan)
    resting = idle(prepared.context)
    heat = np.array([[signal.follows == "effort"] for signal in signals])
    judged[:, resting] = np.where(steady(signals) | heat, judged[:, resting], np.nan)
    return judged


def made_by_job(signals: tuple[Signal, ...]) -> NDArray[np.bool_]:
    """Signals whose level is the job's own, [signals]."""
    return np.array([signal.follows == "job" for signal in signals])


def steady(signals: tuple[Signal, ...]) -> NDArray[np.bool_]:
    """Signals that say something while a job begins or ends, [signals, 1]: what counts errors. Heat lags."""
    return np.array([[signal.kind == "counter"] for signal in signals])


def against_likes(prepared: Prepared, scaling: Scaling, floor: Floats) -> Floats:
    """What sets a GPU apart from the median of the settled ranks of its job, or from idle GPUs of its model.

    In units of the resolution, [signals, gpus, steps]. What the model could explain away by the GPU's other signals,
    which the same fault has changed, shows here; where there is nobody alike, there is no opinion. Idle GPUs are held
    against those that are idle now and against those that once were: the nearer counts.
    """
    apart = np.full(prepared.scaled.shape, np.nan, np.float32)
    least = floor[prepared.model].T
    for step, topology in enumerate(prepared.topologies):
        context = prepared.context[:, step]
        for kind, alike in (("job", ~unsettled(context)), ("load", idle(context))):
            groups = topology[kind]
            now = np.where(alike, prepared.scaled[:, :, step], np.float32(np.nan))
            if len(groups.members):
                median = peer_deviation(now, groups.members, groups.offsets, floor=1.0, minimum=PRESENT).median
                mine = groups.members[alike[groups.members] & (idle(context)[groups.members] == (kind == "load"))]
                apart[:, mine, step] = (now[:, mine] - median[:, groups.of[mine]]) / least[:, mine]
    resting = idle(prepared.context)
    usual = (prepared.scaled - scaling.idle[prepared.model].T[:, :, None]) / least[:, :, None]
    usual = np.where(resting, usual, np.nan)
    nearer = np.where(np.abs(usual) < np.abs(apart), usual, apart)
    apart_now: Floats = np.where(resting, np.where(np.isnan(apart), usual, nearer), apart).astype(np.float32)
    return apart_now


def against_job(residuals: Floats, topologies: Sequence[Topology]) -> Floats:
    """The residuals `beyond` the median of the GPU's job: what a whole job does is no fault of one rank."""
    own = residuals.copy()
    for step, topology in enumerate(topologies):
        groups = topology["job"]
        if len(groups.members):
            now = np.ascontiguousarray(residuals[:, :, step])
            median = peer_deviation(now, groups.members, groups.offsets, floor=1.0, minimum=PRESENT).median
            common: Floats = median[:, groups.of[groups.members]].astype(np.float32)
            own[:, groups.members, step] = beyond(now[:, groups.members], common)
    return own


def aligned(telemetry: Telemetry, signals: tuple[Signal, ...]) -> Telemetry:
    """The telemetry with exactly these signals in this order; one that it lacks is absent throughout."""
    names = [signal.name for signal in telemetry.signals]
    if names == [signal.name for signal in signals]:
        return telemetry
    values = np.full((len(signals), *telemetry.values.shape[1:]), np.nan, np.float32)
    for row, signal in enumerate(signals):
        if signal.name in names:
            values[row] = telemetry.values[names.index(signal.name)]
    return replace(telemetry, signals=signals, values=values)
