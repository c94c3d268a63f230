"""Telemetry → what the model takes: the same code for a live step and for training on a recording."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from detector import lockstep, topology
from detector.contexts import AFTERMATH, contexts, since
from detector.features import WINDOW, Scaling, channels, peer_medians, resolutions, smooth, trend, twins, unchanged
from detector.model import Batch
from detector.stages import stage
from detector.telemetry import IDLE, Floats, Telemetry
from detector.topology import BUSY_RATIO, MINIMUM, UNNAMED, Ints, Topology
from kernels import window_features

PAUSE = 4  # steps without activity after which a GPU is idle
BEGINNING = 4  # steps in which a job takes up its work
EFFORT_MEMORY = 8.0  # steps over which effort is smoothed before peers are chosen


@dataclass(frozen=True, slots=True)
class Prepared:
    """The steps to be judged, in the model's terms.

    scaled: float32 [signals, gpus, steps] in robust units, NaN where absent. channels: the same with its past,
    [signals, gpus, steps, CHANNELS]. model: int64 [gpus], the GPU model's row in scaling and embedding.
    unchanged: for how many steps each reading has been the same, see features.unchanged, [signals, gpus, steps].
    trend: where a job-made signal is going, [those signals, gpus, steps].
    topologies: one a step. graph: the same with ranks of nameless jobs, for the model alone.
    context: [gpus, steps], see contexts.py. since: steps since work began or ended, as far as
    AFTERMATH, [gpus, steps].
    """

    scaled: Floats
    channels: Floats
    unchanged: Floats
    trend: Floats
    model: NDArray[np.int64]
    topologies: tuple[Topology, ...]
    graph: tuple[Topology, ...]
    context: NDArray[np.int64]
    since: NDArray[np.int64]

    def batch(self, steps: Sequence[int], kinds: Sequence[str]) -> Batch:
        """The given steps one after the other: GPU i of the b-th is node b * gpus + i. kinds: of peers."""
        chosen = list(steps)
        gpus = self.scaled.shape[1]
        scaled = np.concatenate([self.scaled[:, :, step] for step in chosen], axis=1)
        stacked = topology.stack([self.graph[step] for step in chosen], gpus)
        medians, known = peer_medians(scaled, stacked, kinds)
        signals, _, _, width = self.channels.shape
        own = self.channels[:, :, chosen].transpose(2, 1, 0, 3).reshape(-1, signals, width)
        return Batch(
            torch.from_numpy(np.ascontiguousarray(own)),
            torch.from_numpy(np.ascontiguousarray(medians.transpose(2, 0, 1))),
            torch.from_numpy(np.ascontiguousarray(known.transpose(2, 0, 1))),
            torch.from_numpy(np.tile(self.model, len(chosen))),
            torch.from_numpy(np.ascontiguousarray(self.context[:, chosen].T.ravel())),
            {kind: torch.from_numpy(topology.edges(stacked[kind])) for kind in kinds},
        )

    def actual(self, steps: Sequence[int]) -> torch.Tensor:
        """What the model should rebuild: float32 [len(steps) * gpus, signals], NaN where absent."""
        scaled = self.scaled[:, :, list(steps)].transpose(2, 1, 0)
        return torch.from_numpy(np.ascontiguousarray(scaled.reshape(-1, scaled.shape[2])))


def prepare(
    telemetry: Telemetry,
    readings: Floats,
    scaling: Scaling,
    models: Sequence[str],
    state: tuple[str, str],
    first: int = 0,
) -> Prepared:
    """Ready steps `first` and later for the model; the steps before are their past.

    readings: the telemetry's values after `telemetry.clean`. models: the GPU models that the scaling knows, in
    row order. state: the names of the activity and effort signals.
    """
    rows = {name: row for row, name in enumerate(models)}
    model = np.array([rows.get(gpu.model, len(models)) for gpu in telemetry.gpus], dtype=np.int64)
    with stage("graph"):
        topologies, graph, context, begun = peers(telemetry, readings, state, first)
    with stage("features"):
        past = min(first, WINDOW)
        scaled = scaling.apply(readings[..., first - past :], model)
        made = np.array([signal.follows == "job" for signal in telemetry.signals])
        return Prepared(
            scaled[:, :, past:],
            scaling.seen(channels(scaled, past), model),
            unchanged(readings, first, twins(telemetry.signals), resolutions(telemetry.signals)),
            trend(scaled[made], past),
            model,
            topologies,
            graph,
            context,
            begun,
        )


def peers(
    telemetry: Telemetry, readings: Floats, state: tuple[str, str], first: int = 0
) -> tuple[tuple[Topology, ...], tuple[Topology, ...], NDArray[np.int64], NDArray[np.int64]]:
    """The peer groups of step `first` and later, the same for the model, the contexts, and since when work is the same.

    [gpus, steps] each of the last two.
    """
    names = [signal.name for signal in telemetry.signals]
    absent = np.full(readings.shape[1:], np.nan, np.float32)
    past = max(0, first - AFTERMATH)
    active, work = (readings[names.index(name)] if name in names else absent for name in state)
    newest = readings.shape[2] - past
    # Work pauses for a moment; a job that has ended is over soon.
    activity: Floats = window_features(active, PAUSE, steps=newest).high.astype(np.float32)
    effort = smooth(work, EFFORT_MEMORY, past)
    if np.isnan(activity).all():  # nothing tells busy from idle, and idle is what less would be expected of
        activity = np.ones_like(activity)
    job = telemetry.job[:, past:]
    for row, signal in enumerate(telemetry.signals):
        if signal.held is not None:
            held = window_features(readings[row], PAUSE, steps=newest).high
            activity = np.where((job == IDLE) & (held < signal.held), np.float32(0), activity)
    states = topology.states(job, activity)
    topologies = tuple(
        topology.build(telemetry.gpus, job[:, step], activity[:, step], effort[:, step], telemetry.edges)
        for step in range(first - past, job.shape[1])
    )
    now = states[:, first - past :]
    graph = topologies
    if ((now == UNNAMED).sum(axis=0) >= MINIMUM).any() and (telemetry.edges is None or "job" in telemetry.edges):
        company = _companies(telemetry, np.stack([active, work]), now, first)
        graph = tuple(
            known if together is None else known | {"job": topology.companions(telemetry.gpus, mine, together)}
            for known, mine, together in zip(topologies, now.T, company, strict=True)
        )
    return topologies, graph, contexts(states, topologies), since(states)[:, first - past :]


def _companies(telemetry: Telemetry, work: Floats, states: NDArray[np.int64], first: int) -> Iterator[Ints | None]:
    """Who works in step with whom at step `first` and later, where no job is named; None where nobody could.

    work: what rises and falls with it, [kinds, gpus, steps]; states: [gpus, steps - first].
    """
    working = window_features(work[0], PAUSE).high > BUSY_RATIO
    unnamed = (telemetry.job == IDLE) & (working | np.isnan(work[0]))
    model = topology.models(telemetry.gpus)
    for step in range(first, work.shape[2]):
        begin = step + 1 - lockstep.LAG - lockstep.SPAN
        # Jobs that began together are not yet one: the beginning itself is left out.
        settled = unnamed[:, max(0, begin - BEGINNING) : step + 1].all(axis=1)
        if begin < BEGINNING or (states[:, step - first] == UNNAMED).sum() < MINIMUM:
            yield None
        else:
            yield lockstep.ranks(work[..., begin : step + 1], settled, model)
