"""Readings and peer groups → what the network makes of them: batches.Prepared and residuals.rebuild on the device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from detector.attention import Near
from detector.card import features
from detector.card.groups import Groups, medians, neighbours
from detector.card.peers import Topology
from detector.card.standing import Standing
from detector.features import MEMORY, WINDOW
from detector.model import Batch, PeerReconstruction
from detector.topology import PRESENT, REACH


def scaled(readings: Tensor, first: int, standing: Standing) -> tuple[Tensor, int]:
    """The readings in robust units from as far back as they are needed, and which of those steps is `first`.

    [signals, gpus, steps].
    """
    past = min(first, WINDOW)
    centre, spread = standing.centre.transpose(1, 2), standing.spread.transpose(1, 2)
    return features.scaled(readings[..., first - past :], centre, spread), past


def channels(window: Tensor, past: int, standing: Standing) -> Tensor:
    """See features.channels and features.Scaling.seen. [signals, gpus, steps] → [steps * gpus, signals, CHANNELS]."""
    newest = window[..., past:]
    means = torch.cat([newest[None], features.smooth(window, MEMORY[1:], past)]).nan_to_num(nan=0.0)
    seen = means.clamp(standing.lowest.transpose(1, 2), standing.highest.transpose(1, 2))
    every = torch.cat([seen, features.freshness(window, past)[None]])
    return every.permute(3, 2, 1, 0).flatten(0, 1).contiguous()


def rebuild(
    network: PeerReconstruction, own: Tensor, actual: Tensor, heard: Topology, context: Tensor, standing: Standing
) -> tuple[Tensor, Tensor]:
    """Residuals with the peers' help, and without: float32 [signals, steps, gpus], as `actual`.

    own: [steps * gpus, signals, CHANNELS]; context: [steps, gpus].
    """
    middle = torch.stack([medians(actual.flatten(1), heard[kind], PRESENT) for kind in network.kinds]).permute(2, 0, 1)
    batch = Batch(
        own,
        middle.nan_to_num(nan=0.0),
        (~middle.isnan()).float(),
        standing.row.repeat(len(context)),
        context.flatten(),
        {},
    )
    found = network(batch, _near([heard[kind] for kind in network.kinds]))

    def apart(mean: Tensor, log_scale: Tensor) -> Tensor:
        mean, scale = mean.T.reshape(actual.shape), log_scale.exp().T.reshape(actual.shape)
        return (actual - mean) / torch.maximum(scale, standing.floor)

    return apart(found.mean, found.log_scale), apart(found.mean_alone, found.log_scale_alone)


def _near(heard: Sequence[Groups]) -> Near:
    places = [neighbours(groups) for groups in heard]
    source, there = (torch.cat(each, dim=1) for each in zip(*places, strict=True))
    kind = torch.arange(len(heard), device=source.device).repeat_interleave(2 * REACH)
    return Near(source, there, kind)
