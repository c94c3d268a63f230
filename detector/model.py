"""The graph neural network: rebuilds a GPU's hidden signals from the rest of it and from its peers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch_geometric.nn import GATv2Conv

from detector.contexts import CONTEXTS
from detector.features import CHANNELS
from detector.topology import KINDS

HIDDEN = 32
HEADS = 2
EMBEDDING = 8
_BY_EFFORT = ("rack", "load", "job", "node")  # peers by closeness, for signals that follow from the effort


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


class PeerReconstruction(nn.Module):
    """Masked reconstruction with attention over typed peer edges beside a linear skip.

    A group of signals is hidden from a GPU, over all its past, and rebuilt from its other signals and from the
    peers' present. One hop only: with two, what is hidden would come back through the neighbours. The linear part
    alone is the one-hop ridge model that is hard to beat on real servers; attention adds what is not linear.
    The output is a mean and a log scale per signal, so that moments which are hard to predict (a job's start)
    count for less.

    Attention: Brody, Alon, Yahav, "How attentive are graph attention networks?", ICLR 2022 (GATv2).
    """

    masks: Tensor  # bool [groups, signals]: what is hidden together
    by_effort: Tensor  # bool [signals]: closest to the peers that work equally hard, not to those of the same job

    def __init__(self, masks: Tensor, by_effort: Tensor, models: int) -> None:
        super().__init__()
        signals = masks.shape[1]
        self.register_buffer("masks", masks)
        self.register_buffer("by_effort", by_effort)
        self.typical = nn.Embedding(CONTEXTS, signals)
        self.circumstances = nn.Embedding(CONTEXTS, EMBEDDING)
        own = signals * CHANNELS
        medians = 2 * len(KINDS) * signals
        self.embedding = nn.Embedding(models + 1, EMBEDDING)
        self.query = nn.Sequential(nn.Linear(own + signals + EMBEDDING, HIDDEN), nn.SiLU())
        self.peer = nn.Sequential(nn.Linear(own + EMBEDDING, HIDDEN), nn.SiLU())
        self.attention = nn.ModuleDict(
            {kind: GATv2Conv(HIDDEN, HIDDEN // HEADS, heads=HEADS, add_self_loops=False) for kind in KINDS}
        )
        self.linear = nn.Linear(own + medians + EMBEDDING, signals)
        self.head = nn.Sequential(
            nn.Linear(2 * HIDDEN + own + signals + medians + EMBEDDING, 2 * HIDDEN),
            nn.SiLU(),
            nn.Linear(2 * HIDDEN, 2 * signals),
        )

    def forward(self, batch: Batch, hidden: Tensor) -> tuple[Tensor, Tensor]:
        """hidden: bool [N, signals] or [1, signals], what to hide → mean and log scale, [N, signals] each."""
        nodes = batch.own.shape[0]
        hidden = hidden.expand(nodes, -1)
        embedding = self.embedding(batch.model) + self.circumstances(batch.context)
        visible = (batch.own * (~hidden).unsqueeze(-1)).flatten(1)
        query = self.query(torch.cat([visible, hidden.float(), embedding], dim=1))
        peer = self.peer(torch.cat([batch.own.flatten(1), embedding], dim=1))
        heard = torch.zeros_like(query)
        for kind, attention in self.attention.items():
            heard = heard + attention((peer, query), batch.edges[kind])
        nearest = self._nearest(batch)
        # A kind of peers that a GPU lacks is filled in by the closest that it has.
        filled = torch.where(batch.known > 0, batch.medians, nearest.unsqueeze(1))
        medians = torch.cat([filled, batch.known], dim=1).flatten(1)
        linear = self.linear(torch.cat([visible, medians, embedding], dim=1))
        correction, log_scale = self.head(
            torch.cat([query, heard, visible, hidden.float(), medians, embedding], dim=1)
        ).chunk(2, dim=1)
        return nearest + linear + correction, log_scale.clamp(-4.0, 3.0)

    def _nearest(self, batch: Batch) -> Tensor:
        """The median of the closest peers that report a signal; what is typical, without any. [N, signals].

        What the network adds to it is small where peers are close, so rare constellations need no rare examples.
        """
        by_job = by_effort = self.typical(batch.context)
        for by_kind, kind in zip(reversed(_BY_EFFORT), reversed(KINDS), strict=True):
            by_job = _where_known(batch, kind, by_job)
            by_effort = _where_known(batch, by_kind, by_effort)
        return torch.where(self.by_effort, by_effort, by_job)


def _where_known(batch: Batch, kind: str, otherwise: Tensor) -> Tensor:
    place = KINDS.index(kind)
    return torch.where(batch.known[:, place] > 0, batch.medians[:, place], otherwise)


def laplace_loss(actual: Tensor, mean: Tensor, log_scale: Tensor, counted: Tensor, trim: float) -> Tensor:
    """Negative log likelihood of a Laplace distribution, [N, signals] → scalar.

    The worst `trim` share of the counted entries is left out, so that faults in the training data do not teach.
    """
    loss = ((actual - mean).abs() * torch.exp(-log_scale) + log_scale)[counted]
    if trim > 0 and len(loss) > 1:
        # Trimmed by the loss: sorting is linear in practice beside the forward pass.
        loss = loss.sort().values[: max(1, int(len(loss) * (1 - trim)))]
    return loss.mean()
