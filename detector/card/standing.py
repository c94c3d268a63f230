"""What a model knows of each GPU of a fleet, on the device."""

from __future__ import annotations

from dataclasses import dataclass
from functools import partial
from typing import Self

import numpy as np
import torch
from torch import Tensor

from detector import topology
from detector.card.device import placed
from detector.residuals import ModelJudge, scale_floor
from detector.telemetry import Floats, Gpu

Labels = tuple[Tensor, int]  # int64 codes from 0, and how many there are


@dataclass(frozen=True, slots=True)
class Standing:
    """Labels [gpus]; the model's figures for each GPU, float32 [signals, 1, gpus].

    single: whether its node has no other GPU, bool [gpus]. order: the GPUs by name. row: the model's row of a GPU
    model. floor: see residuals.scale_floor. usual: what is usual for a GPU when idle and when not, float32
    [rows, 1, gpus] each, and unit: how far it wanders about that, see offsets.Offsets; no rows where nothing is known.
    """

    node: Labels
    island: Labels
    rack: Labels
    model: Labels
    single: Tensor
    order: Tensor
    row: Tensor
    centre: Tensor
    spread: Tensor
    lowest: Tensor
    highest: Tensor
    idle: Tensor
    floor: Tensor
    usual: tuple[Tensor, Tensor]
    unit: Tensor

    @classmethod
    def of(cls, gpus: tuple[Gpu, ...], model: ModelJudge, device: torch.device) -> Self:
        put = partial(placed, device=device)
        place, rows = topology.places(gpus), {name: row for row, name in enumerate(model.models)}
        row = np.array([rows.get(gpu.model, len(rows)) for gpu in gpus], np.int64)
        resting, working = (
            put(model.offsets.usual(gpus, context).transpose(0, 2, 1))
            for context in (np.zeros((len(gpus), 1), np.int64), np.ones((len(gpus), 1), np.int64))
        )

        def each(figures: Floats) -> Tensor:
            return put(figures[row].T[:, None])

        # An empty name is -1 there.
        labels = place.node, place.island, place.rack, place.model
        node, island, rack, model_name = ((put(codes + 1), int(codes.max(initial=-1)) + 2) for codes in labels)
        scaling = model.scaling
        return cls(
            node,
            island,
            rack,
            model_name,
            put(place.single),
            put(place.order),
            put(row),
            each(scaling.centre),
            each(scaling.spread),
            each(scaling.lowest),
            each(scaling.highest),
            each(scaling.idle),
            each(scale_floor(model.signals, scaling)),
            (resting, working),
            put(model.offsets.unit(gpus).transpose(0, 2, 1)),
        )
