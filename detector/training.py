"""Learns a fleet's normal behaviour from its telemetry, without labels."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
import torch
from torch import Tensor

from detector import registry
from detector.batches import Prepared, prepare
from detector.calibration import BLOCK, HISTORY, Thresholds, calibrate
from detector.contexts import ContextScale
from detector.features import WINDOW, Scaling
from detector.model import PeerReconstruction, Thinning, laplace_loss
from detector.registry import Card
from detector.residuals import ModelJudge, against_job, aligned, judgeable, rebuild, scale_floor
from detector.signals import Signal
from detector.telemetry import Floats, Telemetry, clean

_NODES = 1024  # GPU-steps per training batch
_HELD_BACK = 0.3  # the newest share of the data: calibrates, never trains
_TRIM = 0.03
_RATE = 3e-3
_DEFAULT_MASKS = 5

Progress = Callable[[int, float], None]


class TrainingError(ValueError):
    """The telemetry is not enough to train on; the message says what is missing."""


@dataclass(frozen=True, slots=True)
class Settings:
    """budget: false alarms per 1,000 GPU-hours. iterations: optimiser steps."""

    budget: float = 0.1
    iterations: int = 1000
    seed: int = 0


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
    splits = [int(readings.shape[2] * (1 - _HELD_BACK)) for _, readings in data]
    scaling = _fit_scaling(data, splits, signals, models)
    prepared = [prepare(telemetry, readings, scaling, models, state) for telemetry, readings in data]
    network = PeerReconstruction(_masks(signals), torch.tensor([s.follows == "effort" for s in signals]), len(models))
    _optimise(network, prepared, splits, settings, random, progress)

    held_back = [
        prepare(telemetry, readings, scaling, models, state, split)
        for (telemetry, readings), split in zip(data, splits, strict=True)
    ]
    floor = scale_floor(signals, scaling)
    shared = [judgeable(rebuild(network, part, floor), signals, part.context) for part in held_back]
    own = [against_job(residuals, part.topologies) for residuals, part in zip(shared, held_back, strict=True)]
    step = data[0][0].step
    usual = [_usual(residuals, held_back, signals, step, settings.budget) for residuals in (own, shared)]
    (own_scale, own_limit), (shared_scale, shared_limit) = usual
    trained_at = datetime.now(UTC).replace(microsecond=0)
    judge = ModelJudge(
        "", signals, models, state, scaling, network.eval(), own_scale, shared_scale, own_limit, shared_limit
    )
    judge = replace(judge, version=registry.name(registry.pack(judge), trained_at))
    card = Card(
        format=registry.FORMAT,
        version=judge.version,
        weights_sha256="",
        trained_at=trained_at,
        data_start=_time(min(telemetry.timestamps[0] for telemetry, _ in data)),
        data_end=_time(max(telemetry.timestamps[-1] for telemetry, _ in data)),
        gpus=sum(len(telemetry.gpus) for telemetry, _ in data),
        step_seconds=step,
        seed=settings.seed,
        budget_per_1000_gpu_hours=settings.budget,
        held_back_residual=float(np.nanmedian(np.abs(np.concatenate([r.ravel() for r in own])))),
        signals=signals,
        models=models,
        state=state,
    )
    return judge, card


def _usual(
    residuals: Sequence[Floats], parts: Sequence[Prepared], signals: tuple[Signal, ...], step: float, budget: float
) -> tuple[ContextScale, Thresholds]:
    """What is usual in each context, and the thresholds; of several recordings the more cautious."""
    pairs = list(zip(residuals, parts, strict=True))
    scale = ContextScale(np.max([ContextScale.fit(r, part.context).values for r, part in pairs], axis=0))
    found = [calibrate(scale.apply(r, part.context), signals, step, budget).values for r, part in pairs]
    return scale, Thresholds(np.max(found, axis=0))


def _usable(recordings: Sequence[Telemetry]) -> tuple[tuple[Signal, ...], list[tuple[Telemetry, Floats]]]:
    """The signals that are reported at all, and every recording's readings of them."""
    reported: dict[str, Signal] = {}
    for telemetry in recordings:
        for signal, plane in zip(telemetry.signals, telemetry.values, strict=True):
            if not np.isnan(plane).all():
                reported.setdefault(signal.name, signal)
    if not reported:
        raise TrainingError("the telemetry holds no reading at all")
    signals = tuple(reported.values())
    shortest = min(len(telemetry.timestamps) for telemetry in recordings)
    least = math.ceil(max(2 * WINDOW, (BLOCK + HISTORY) / _HELD_BACK))
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
    """Signals hidden together, bool [groups, signals]; those without a named group are dealt out in turn."""
    names = [signal.mask or f"dealt {place % _DEFAULT_MASKS}" for place, signal in enumerate(signals)]
    return torch.tensor([[name == group for name in names] for group in dict.fromkeys(names)])


def _optimise(
    network: PeerReconstruction,
    prepared: Sequence[Prepared],
    splits: Sequence[int],
    settings: Settings,
    random: np.random.Generator,
    progress: Progress,
) -> None:
    optimiser = torch.optim.AdamW(network.parameters(), lr=_RATE, weight_decay=1e-4)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimiser, _RATE, total_steps=settings.iterations + 1)
    share = np.array(splits) / sum(splits)
    network.train()
    thinning = Thinning()
    unknown = network.embedding.num_embeddings - 1
    for iteration in range(settings.iterations):
        which = int(random.choice(len(prepared), p=share))
        gpus = prepared[which].scaled.shape[1]
        steps = random.integers(WINDOW, splits[which], max(1, _NODES // gpus)).tolist()
        batch, actual = prepared[which].batch(steps), prepared[which].actual(steps)
        hidden = network.masks[torch.from_numpy(random.integers(0, len(network.masks), len(actual)))]
        mean, log_scale = network(thinning.apply(batch, unknown), hidden)
        counted = hidden & ~actual.isnan()
        loss = laplace_loss(actual.nan_to_num(), mean, log_scale, counted, _TRIM)
        optimiser.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimiser.step()
        schedule.step()
        progress(iteration + 1, float(loss.detach()))


def _time(seconds: float) -> datetime:
    return datetime.fromtimestamp(float(seconds), UTC)
