"""The graph neural network: rebuilds a GPU's hidden signals from the rest of it and from its peers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch_geometric.nn import GATv2Conv

from detector.attention import Near, attend, attend_near
from detector.contexts import CONTEXTS
from detector.features import CHANNELS
from detector.topology import KINDS

HIDDEN = 32
HEADS = 2
EMBEDDING = 8
UNITS = 32
_BY_EFFORT = ("rack", "load", "job", "island", "node")  # peers by closeness, for signals that follow from the effort


@dataclass(frozen=True, slots=True)
class Batch:
    """One or several steps of a fleet, flattened to N nodes.

    own: [N, signals, CHANNELS] in robust units. medians, known: [N, kinds, signals]. model: int64 [N], the GPU
    model's embedding row. context: int64 [N], see contexts.py. edges: per kind int64 [2, E], peer → GPU.
    """

    own: Tensor
    medians: Tensor
    known: Tensor
    model: Tensor
    context: Tensor
    edges: Mapping[str, Tensor]


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """What the signals should be: mean and log scale [N, signals], from all there is and from the GPU alone."""

    mean: Tensor
    log_scale: Tensor
    mean_alone: Tensor
    log_scale_alone: Tensor


@dataclass(frozen=True, slots=True)
class Thinning:
    """Chances of what a training batch goes without, so that the model can do without it when it must.

    fleet: a signal of all GPUs. gpu: a signal of one GPU. kind: one GPU's peers of one kind. lonely: all its peers.
    model: what GPU model it is.
    """

    fleet: float = 0.05
    gpu: float = 0.02
    kind: float = 0.2
    lonely: float = 0.1
    model: float = 0.1

    def apply(self, batch: Batch, unknown: int) -> Batch:
        """unknown: the row of GPU models that were never seen."""
        nodes, kinds, signals = batch.medians.shape
        reported = torch.rand(signals) >= self.fleet
        own = reported & (torch.rand(nodes, signals) >= self.gpu)
        heard = (torch.rand(nodes, kinds) >= self.kind) & (torch.rand(nodes, 1) >= self.lonely)
        medians = reported & heard.unsqueeze(-1)
        edges = {kind: edges[:, heard[edges[1], place]] for place, (kind, edges) in enumerate(batch.edges.items())}
        return Batch(
            batch.own * own.unsqueeze(-1),
            batch.medians * medians,
            batch.known * medians,
            torch.where(torch.rand(nodes) < self.model, unknown, batch.model),
            batch.context,
            edges,
        )


class Head(nn.Module):
    """Rebuilds every signal from what its group may see: a linear part, and a small network for each group.

    What a group may not see is cut out of the weights, so all groups are rebuilt in one pass.
    """

    visible: Tensor  # float [signals, signals * CHANNELS]
    visible_to_units: Tensor  # float [groups * UNITS, signals * CHANNELS]
    out_of_units: Tensor  # float [2 * signals, groups * UNITS]

    def __init__(self, targets: Tensor, hidden: Tensor, extra: int) -> None:
        """targets, hidden: bool [groups, signals]. extra: width of what every group may see."""
        super().__init__()
        groups, signals = targets.shape
        own = signals * CHANNELS
        group = targets.int().argmax(dim=0)
        seen = (~hidden).float().repeat_interleave(CHANNELS, dim=1)
        out_of_units = targets.float().repeat_interleave(UNITS, dim=0).repeat(1, 2)
        self.register_buffer("out_of_units", out_of_units.T.contiguous(), persistent=False)
        self.register_buffer("visible", seen[group], persistent=False)
        self.register_buffer("visible_to_units", seen.repeat_interleave(UNITS, dim=0), persistent=False)
        self.linear = nn.Linear(own, signals)
        self.linear_extra = nn.Linear(extra, signals)
        self.units = nn.Linear(own, groups * UNITS)
        self.units_extra = nn.Linear(extra, groups * UNITS)
        self.out = nn.Linear(groups * UNITS, 2 * signals)

    def forward(self, own: Tensor, extra: Tensor) -> tuple[Tensor, Tensor]:
        """own: [N, signals * CHANNELS], extra: [N, extra] → mean and log scale, [N, signals] each."""
        units = nn.functional.linear(own, self.units.weight * self.visible_to_units, self.units.bias)
        units = nn.functional.silu(units + self.units_extra(extra))
        found = nn.functional.linear(units, self.out.weight * self.out_of_units, self.out.bias)
        correction, log_scale = found.chunk(2, dim=1)
        linear = nn.functional.linear(own, self.linear.weight * self.visible, self.linear.bias)
        return linear + self.linear_extra(extra) + correction, log_scale.clamp(-4.0, 3.0)


class PeerReconstruction(nn.Module):
    """Masked reconstruction with attention over typed peer edges beside a linear skip.

    A group of signals is hidden from a GPU, over all its past, and rebuilt from its other signals and from the
    peers' present. One hop only: with two, what is hidden would come back through the neighbours. The linear part
    alone is the one-hop ridge model that is hard to beat on real servers; attention adds what is not linear.
    The output is a mean and a log scale per signal, so that moments which are hard to predict (a job's start)
    count for less. A second head does without peers: it sees what a whole rack, node or job has in common.

    Attention: Brody, Alon, Yahav, "How attentive are graph attention networks?", ICLR 2022 (GATv2).
    """

    masks: Tensor  # bool [2, groups, signals]: what a group rebuilds, and what is hidden from it
    by_effort: Tensor  # bool [signals]: closest to the peers that work equally hard, not to those of the same job

    def __init__(self, masks: Tensor, by_effort: Tensor, models: int, kinds: Sequence[str]) -> None:
        """kinds: of KINDS those that it knows; what a fleet does not have costs nothing and changes nothing."""
        super().__init__()
        self.kinds = tuple(kinds)
        signals = masks.shape[-1]
        self.register_buffer("masks", masks)
        self.register_buffer("by_effort", by_effort)
        self.typical = nn.Embedding(CONTEXTS, signals)
        self.circumstances = nn.Embedding(CONTEXTS, EMBEDDING)
        self.embedding = nn.Embedding(models + 1, EMBEDDING)
        nn.init.zeros_(self.typical.weight)
        own, medians = signals * CHANNELS, 2 * len(kinds) * signals
        self.query = nn.Sequential(nn.Linear(medians + EMBEDDING, HIDDEN), nn.SiLU())
        self.peer = nn.Sequential(nn.Linear(own + EMBEDDING, HIDDEN), nn.SiLU())
        self.attention = GATv2Conv(HIDDEN, HIDDEN // HEADS, heads=HEADS, edge_dim=len(kinds), add_self_loops=False)
        targets, hidden = masks
        self.together = Head(targets, hidden, HIDDEN + medians + EMBEDDING)
        self.alone = Head(targets, hidden, EMBEDDING)

    def forward(self, batch: Batch, near: Near | None = None) -> Rebuilt:
        """near: the edges in another form, in place of the batch's."""
        embedding = self.embedding(batch.model) + self.circumstances(batch.context)
        own = batch.own.flatten(1)
        nearest = self._nearest(batch)
        # A kind of peers that a GPU lacks is filled in by the closest that it has.
        filled = torch.where(batch.known > 0, batch.medians, nearest.unsqueeze(1))
        medians = torch.cat([filled, batch.known], dim=1).flatten(1)
        heard = self._listen(own, medians, embedding, near or batch.edges)
        mean, log_scale = self.together(own, torch.cat([heard, medians, embedding], dim=1))
        mean_alone, log_scale_alone = self.alone(own, embedding)
        typical = self.typical(batch.context)
        return Rebuilt(nearest + mean, log_scale, typical + mean_alone, log_scale_alone)

    def _listen(self, own: Tensor, medians: Tensor, embedding: Tensor, edges: Mapping[str, Tensor] | Near) -> Tensor:
        """What the peers have to say, [N, HIDDEN]. Whom a GPU listens to does not depend on its own readings."""
        peer = self.peer(torch.cat([own, embedding], dim=1))
        query = self.query(torch.cat([medians, embedding], dim=1))
        if isinstance(edges, Near):
            return attend_near(self.attention, peer, query, edges)
        counts = torch.tensor([edges[kind].shape[1] for kind in self.kinds])
        kinds = torch.repeat_interleave(torch.arange(len(counts)), counts)
        together = torch.cat([edges[kind] for kind in self.kinds], dim=1)
        if torch.is_inference_mode_enabled() and peer.is_cpu:
            return attend(self.attention, peer, query, together, kinds)
        kind = nn.functional.one_hot(kinds, len(counts)).to(own.dtype)
        heard: Tensor = self.attention((peer, query), together, kind)
        return heard

    def _nearest(self, batch: Batch) -> Tensor:
        """The median of the closest peers that report a signal; what is typical, without any. [N, signals].

        What the network adds to it is small where peers are close, so rare constellations need no rare examples.
        """
        by_job = by_effort = self.typical(batch.context)
        for by_kind, kind in zip(reversed(_BY_EFFORT), reversed(KINDS), strict=True):
            by_job = self._where_known(batch, kind, by_job)
            by_effort = self._where_known(batch, by_kind, by_effort)
        return torch.where(self.by_effort, by_effort, by_job)

    def _where_known(self, batch: Batch, kind: str, otherwise: Tensor) -> Tensor:
        if kind not in self.kinds:
            return otherwise
        place = self.kinds.index(kind)
        return torch.where(batch.known[:, place] > 0, batch.medians[:, place], otherwise)


def laplace_loss(actual: Tensor, mean: Tensor, log_scale: Tensor, counted: Tensor, trim: float) -> Tensor:
    """Negative log likelihood of a Laplace distribution, [N, signals] → scalar.

    The worst `trim` share of the counted entries is left out, so that faults in the training data do not teach.
    """
    loss = ((actual - mean).abs() * torch.exp(-log_scale) + log_scale)[counted]
    if trim > 0 and len(loss) > 1:
        kept = max(1, int(len(loss) * (1 - trim)))
        loss = loss.kthvalue(kept).values.detach().ge(loss) * loss
        return loss.sum() / kept
    return loss.mean()
