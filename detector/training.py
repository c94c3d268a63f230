"""Learns a fleet's normal behaviour from its telemetry, without labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from detector import anew, habits, limits, offsets, registry, rules, topology
from detector.batches import Prepared, prepare
from detector.calibration import BLOCK, HISTORY
from detector.checkpoint import Checkpoint, fingerprint
from detector.contexts import idle
from detector.features import WINDOW, Scaling
from detector.habits import Habits
from detector.limits import Stretch
from detector.model import PeerReconstruction, Thinning, laplace_loss
from detector.offsets import Offsets
from detector.registry import Card
from detector.residuals import ModelJudge, aligned, raw
from detector.signals import Signal
from detector.telemetry import Floats, Telemetry, clean
from detector.topology import KINDS

_NODES = 512  # GPU-steps per training batch
_HELD_BACK = 0.6  # the newest share of the data: calibrates, never trains; a budget needs more hours than a network
_TRIM = 0.03
_RATE = 3e-3
_DEFAULT_MASKS = 5

Progress = Callable[[int, float], None]


class TrainingError(ValueError):
    """The telemetry is not enough to train on; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Settings:
    """budget: false alarms per 1,000 GPU-hours. iterations: optimiser steps. checkpoint: where a killed run goes on."""

    budget: float = 0.1
    iterations: int = 1000
    seed: int = 0
    checkpoint: Path | None = None


def train(
    recordings: Sequence[Telemetry], state: tuple[str, str], settings: Settings, progress: Progress
) -> tuple[ModelJudge, Card]:
    """Train and calibrate on recordings of one fleet (any lengths, any GPUs). Deterministic by seed.

    The oldest part of each recording trains, the newest share calibrates. `progress` hears the iteration and the
    loss. Raises TrainingError.
    """
    torch.manual_seed(settings.seed)
    random = np.random.default_rng(settings.seed)
    signals, data = _usable(recordings)
    models = tuple(sorted({gpu.model for telemetry, _ in data for gpu in telemetry.gpus}))
    splits = [_split(readings) for _, readings in data]
    scaling = _fit_scaling(data, splits, signals, models)
    prepared = [prepare(telemetry, readings, scaling, models, state) for telemetry, readings in data]
    scaling = scaling.knowing_idle(
        [each.scaled for each in prepared], [each.model for each in prepared], [idle(each.context) for each in prepared]
    )
    kinds = topology.kinds(telemetry.gpus for telemetry, _ in data)
    by_effort = torch.tensor([signal.follows == "effort" for signal in signals])
    network = PeerReconstruction(_masks(signals), by_effort, len(models), kinds)
    edges = [sorted(telemetry.edges or KINDS) for telemetry, _ in data]
    run = fingerprint([telemetry for telemetry, _ in data], settings.iterations, settings.seed, edges)
    checkpoint = Checkpoint(settings.checkpoint, run)
    _optimise(network, prepared, splits, settings, random, progress, checkpoint)
    judge, residual = _calibrated(signals, models, state, scaling, network, recordings, data, splits, settings.budget)
    checkpoint.done()
    return judge, _card(judge, data, settings.seed, settings.budget, residual)


def recalibrate(
    judge: ModelJudge, card: Card, recordings: Sequence[Telemetry], budget: float
) -> tuple[ModelJudge, Card]:
    """The same network with scales and thresholds of newer telemetry. Raises TrainingError."""
    _, data = _usable(recordings)
    data = [
        (ordered := aligned(telemetry, judge.signals), clean(judge.signals, ordered.values)) for telemetry, _ in data
    ]
    firsts = [readings.shape[2] // 2 for _, readings in data]
    made, residual = _calibrated(
        judge.signals, judge.models, judge.state, judge.scaling, judge.network, recordings, data, firsts, budget
    )
    return made, _card(made, data, card.seed, budget, residual).model_copy(
        update={"parent": card.parent or card.version}
    )


def compare(candidate: ModelJudge, office: ModelJudge, recordings: Sequence[Telemetry]) -> tuple[float, float]:
    """Both models' rebuild errors on the newest share of the recordings, which the candidate did not train on.

    The mean over the signals that both know, each in the candidate's spreads.
    """
    shared = [signal.name for signal in candidate.signals if signal.name in {known.name for known in office.signals}]
    if not shared:
        raise TrainingError("the two models have no signal in common")
    means = []
    for judge in (candidate, office):
        rows = [[signal.name for signal in judge.signals].index(name) for name in shared]
        parts = [
            judge.errors(telemetry, int(len(telemetry.timestamps) * (1 - _HELD_BACK)))[rows].reshape(len(rows), -1)
            for telemetry in recordings
        ]
        means.append(np.nanmean(np.concatenate(parts, axis=1), axis=1))
    places = [[signal.name for signal in candidate.signals].index(name) for name in shared]
    spread = candidate.scaling.spread[-1, places]
    new, old = (float(np.nanmean(mean / spread)) for mean in means)
    return new, old


def _calibrated(
    signals: tuple[Signal, ...],
    models: tuple[str, ...],
    state: tuple[str, str],
    scaling: Scaling,
    network: PeerReconstruction,
    recordings: Sequence[Telemetry],
    data: Sequence[tuple[Telemetry, Floats]],
    firsts: Sequence[int],
    budget: float,
) -> tuple[ModelJudge, float]:
    """The judge with what is usual from step `firsts` of each recording on, and its median residual."""
    early, full = _habits(signals, data)
    usually = _offsets(data, firsts, network, scaling, models, state)
    stretches = list(_stretches(recordings, data, firsts, network, scaling, models, state, usually, early))
    usual = limits.fit(stretches, signals, data[0][0].step)
    judge = ModelJudge(
        "",
        signals,
        models,
        state,
        scaling,
        network.eval(),
        usual.own_scale,
        usual.shared_scale,
        usual.own.thresholds(budget),
        usual.shared.thresholds(budget),
        usual.own,
        usual.shared,
        usual.change_units,
        usually,
        full,
        usual.group_units,
    )
    trained_at = datetime.now(UTC).replace(microsecond=0)
    judge = replace(judge, version=registry.name(registry.pack(judge), trained_at))
    return judge, float(np.nanmedian(np.abs(np.concatenate([each.residuals.own.ravel() for each in stretches]))))


def _offsets(
    data: Sequence[tuple[Telemetry, Floats]],
    firsts: Sequence[int],
    network: PeerReconstruction,
    scaling: Scaling,
    models: tuple[str, ...],
    state: tuple[str, str],
) -> Offsets:
    """What is usual for each GPU, from the steps before `firsts`, as many as come after."""
    found = []
    for (telemetry, readings), end in zip(data, firsts, strict=True):
        first = max(WINDOW, 2 * end - readings.shape[2])
        before = telemetry.part(slice(end))
        part = prepare(before, readings[..., :end], scaling, models, state, first)
        usual = raw(network, part, before, scaling)
        count = len(telemetry.signals)
        rows = np.concatenate([usual.own[: 2 * count], usual.shared[: 2 * count]])
        rows[:, anew.before(before)[:, first:]] = np.nan
        found.append(offsets.fit(rows, anew.named(before).gpus, part.context, telemetry.signals))
    return offsets.merged(found)


def _habits(
    signals: tuple[Signal, ...], data: Sequence[tuple[Telemetry, Floats]]
) -> tuple[Habits | None, Habits | None]:
    """Habits of the older part and of all of the newest recording; None where every signal is described."""
    if habits.described(signals):
        return None, None
    telemetry, readings = max(data, key=lambda each: float(each[0].timestamps[-1]))
    return habits.fit(telemetry, readings, _split(readings))


def _split(readings: Floats) -> int:
    """The first step that is held back."""
    return int(readings.shape[2] * (1 - _HELD_BACK))


def _card(
    judge: ModelJudge, data: Sequence[tuple[Telemetry, Floats]], seed: int, budget: float, residual: float
) -> Card:
    return Card(
        format=registry.FORMAT,
        version=judge.version,
        weights_sha256="",
        trained_at=datetime.now(UTC).replace(microsecond=0),
        data_start=_time(min(telemetry.timestamps[0] for telemetry, _ in data)),
        data_end=_time(max(telemetry.timestamps[-1] for telemetry, _ in data)),
        gpus=sum(len(telemetry.gpus) for telemetry, _ in data),
        step_seconds=data[0][0].step,
        seed=seed,
        budget_per_1000_gpu_hours=budget,
        held_back_residual=residual,
        signals=judge.signals,
        models=judge.models,
        kinds=judge.network.kinds,
        state=judge.state,
        offsets_of=judge.offsets.keys,
        software_of=judge.offsets.software,
        group_units=dict(judge.group_units),
        habits_of=judge.habits.keys if judge.habits else (),
    )


def _stretches(
    recordings: Sequence[Telemetry],
    data: Sequence[tuple[Telemetry, Floats]],
    firsts: Sequence[int],
    network: PeerReconstruction,
    scaling: Scaling,
    models: tuple[str, ...],
    state: tuple[str, str],
    usually: Offsets,
    known: Habits | None,
) -> Iterator[Stretch]:
    """The residuals of each recording from its `firsts` step on, without those of GPUs that a rule finds broken."""
    for recording, (telemetry, readings), first in zip(recordings, data, firsts, strict=True):
        part = prepare(telemetry, readings, scaling, models, state, first)
        found = raw(network, part, telemetry, scaling)
        if known is not None:
            unusual = known.residuals(telemetry, readings, first)
            unusual[..., : max(0, _split(readings) - first)] = np.nan  # they are made of what was before
            found = found.with_habits(unusual)
        found = found.less(usually, telemetry.gpus, part.context, len(telemetry.signals))
        broken = rules.findings(recording, first).score > 0
        found.own[:, broken] = found.shared[:, broken] = np.nan
        newest = replace(telemetry, timestamps=telemetry.timestamps[first:], job=telemetry.job[:, first:])
        yield Stretch(newest, found, part.context)


def _usable(recordings: Sequence[Telemetry]) -> tuple[tuple[Signal, ...], list[tuple[Telemetry, Floats]]]:
    """The signals that are reported at all, and every recording's readings of them."""
    reported: dict[str, Signal] = {}
    for telemetry in recordings:
        for signal, plane in zip(telemetry.signals, telemetry.values, strict=True):
            if not signal.alarms and not np.isnan(plane).all():
                reported.setdefault(signal.name, signal)
    if not reported:
        raise TrainingError("the telemetry holds no reading at all")
    signals = tuple(reported.values())
    shortest = min(len(telemetry.timestamps) for telemetry in recordings)
    least = math.ceil(max(2 * WINDOW / (1 - _HELD_BACK), (BLOCK + HISTORY) / _HELD_BACK))
    if shortest < least:
        raise TrainingError(f"a recording has {shortest} steps; at least {least} are needed to train and to calibrate")
    ordered = [aligned(telemetry, signals) for telemetry in recordings]
    return signals, [(telemetry, clean(telemetry.signals, telemetry.values)) for telemetry in ordered]


def _fit_scaling(
    data: Sequence[tuple[Telemetry, Floats]],
    splits: Sequence[int],
    signals: tuple[Signal, ...],
    models: tuple[str, ...],
) -> Scaling:
    """Scaling from the training part of all recordings, every GPU one row of samples."""
    longest = max(splits)
    parts = [
        np.pad(readings[:, :, :split], ((0, 0), (0, 0), (0, longest - split)), constant_values=np.nan)
        for (_, readings), split in zip(data, splits, strict=True)
    ]
    model = np.array([models.index(gpu.model) for telemetry, _ in data for gpu in telemetry.gpus], dtype=np.int64)
    resolution = np.array([signal.resolution for signal in signals], np.float32)
    return Scaling.fit(np.concatenate(parts, axis=1), model, len(models), resolution)


def _masks(signals: tuple[Signal, ...]) -> Tensor:
    """What each group of signals rebuilds and what is hidden from it, bool [2, groups, signals].

    Signals without a named group are dealt out in turn.
    """
    names = [signal.mask or f"dealt {place % _DEFAULT_MASKS}" for place, signal in enumerate(signals)]
    groups = list(dict.fromkeys(names))
    hides = {group: {group} for group in groups}
    for name, signal in zip(names, signals, strict=True):
        hides[name] |= set(signal.hides)
    targets = [[name == group for name in names] for group in groups]
    hidden = [[name in hides[group] for name in names] for group in groups]
    return torch.tensor([targets, hidden])


def _optimise(
    network: PeerReconstruction,
    prepared: Sequence[Prepared],
    splits: Sequence[int],
    settings: Settings,
    random: np.random.Generator,
    progress: Progress,
    checkpoint: Checkpoint,
) -> None:
    optimiser = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, total_steps=settings.iterations + 1)
    share = np.array(splits) / sum(splits)
    network.train()
    thinning = Thinning()
    unknown = network.embedding.num_embeddings - 1
    parts = (network, optimiser, schedule)
    done = checkpoint.resume(parts, random)
    for iteration in range(done, settings.iterations):
        which = int(random.choice(len(prepared), p=share))
        gpus = prepared[which].scaled.shape[1]
        steps = random.integers(WINDOW, splits[which], max(1, _NODES // gpus)).tolist()
        batch, actual = prepared[which].batch(steps, network.kinds), prepared[which].actual(steps)
        found = network(thinning.apply(batch, unknown))
        counted, actual = ~actual.isnan(), actual.nan_to_num()
        together = laplace_loss(actual, found.mean, found.log_scale, counted, _TRIM)
        loss = together + laplace_loss(actual, found.mean_alone, found.log_scale_alone, counted, _TRIM)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        checkpoint.keep(iteration + 1, parts, random)
        progress(iteration + 1, float(together.detach()))


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(float(seconds), UTC)
