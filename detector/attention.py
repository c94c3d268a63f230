"""Attention over peer edges for judging: what torch-geometric's GATv2Conv computes, in one pass over the edges.

Training goes through torch-geometric. It writes out every edge's features several times, which is most of a tick's
model when ten thousand GPUs have two hundred thousand edges.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numba import njit
from numpy.typing import NDArray
from torch import Tensor
from torch.nn.functional import leaky_relu
from torch_geometric.nn import GATv2Conv

Numbers = NDArray[np.float32]
Places = NDArray[np.int64]


def attend(conv: GATv2Conv, peers: Tensor, queries: Tensor, edges: Tensor, kinds: Tensor) -> Tensor:
    """The convolution's output on the CPU, without gradients.

    peers, queries: [N, width]. edges: int64 [2, E], peer → GPU. kinds: int64 [E], the place of the one in the one-hot
    edge features.
    """
    heads, width = conv.heads, conv.out_channels
    told, asked = (
        layer(each).numpy().reshape(-1, heads, width) for layer, each in ((conv.lin_l, peers), (conv.lin_r, queries))
    )
    by_kind = np.ascontiguousarray(conv.lin_edge.weight.detach().numpy().T).reshape(-1, heads, width)
    weight = conv.att.detach().numpy()[0]
    source, target = edges.numpy()
    heard = _attend(source, target, kinds.numpy(), told, asked, by_kind, weight, np.float32(conv.negative_slope))
    result: Tensor = torch.from_numpy(heard.reshape(-1, heads * width)) + conv.bias
    return result


@dataclass(frozen=True, slots=True)
class Near:
    """The same number of places for peers at every GPU, some of them empty.

    source: int64 [N, places], whose word is heard. there: bool [N, places]. kind: int64 [places], the edge's.
    """

    source: Tensor
    there: Tensor
    kind: Tensor


def attend_near(conv: GATv2Conv, peers: Tensor, queries: Tensor, near: Near) -> Tensor:
    """The same on any device: with as many places everywhere, nothing has to be gathered by target."""
    told, asked = conv.lin_l(peers)[near.source], conv.lin_r(queries)
    met = (told + asked[:, None]).add_(conv.lin_edge.weight.T[near.kind])
    met = leaky_relu(met, conv.negative_slope, inplace=True).view(*near.source.shape, conv.heads, conv.out_channels)
    logits = (met * conv.att).sum(-1).masked_fill(~near.there[..., None], -torch.inf)
    shares = logits.softmax(1).nan_to_num(nan=0.0)  # of who has no peers
    heard = (shares[..., None] * told.view_as(met)).sum(1)
    result: Tensor = heard.flatten(1) + conv.bias
    return result


@njit(cache=True, nogil=True, fastmath={"reassoc", "contract"})
def _attend(
    source: Places,
    target: Places,
    kinds: Places,
    told: Numbers,
    asked: Numbers,
    by_kind: Numbers,
    weight: Numbers,
    slope: np.float32,
) -> Numbers:
    """told, asked: [N, heads, width]; by_kind: [kinds, heads, width]; weight: [heads, width] → [N, heads, width]."""
    nodes, heads, width = asked.shape
    logits = np.empty((source.size, heads), np.float32)
    most = np.full((nodes, heads), -np.inf, np.float32)
    for edge in range(source.size):
        mine, theirs, kind = asked[target[edge]], told[source[edge]], by_kind[kinds[edge]]
        for head in range(heads):
            total = np.float32(0.0)
            for unit in range(width):
                met = theirs[head, unit] + mine[head, unit] + kind[head, unit]
                total += weight[head, unit] * max(met, slope * met)
            logits[edge, head] = total
            most[target[edge], head] = max(most[target[edge], head], total)
    heard, shares = np.zeros((nodes, heads, width), np.float32), np.zeros((nodes, heads), np.float32)
    for edge in range(source.size):
        node, theirs = target[edge], told[source[edge]]
        for head in range(heads):
            share = np.exp(logits[edge, head] - most[node, head])
            shares[node, head] += share
            for unit in range(width):
                heard[node, head, unit] += share * theirs[head, unit]
    for node in range(nodes):
        for head in range(heads):
            if shares[node, head] > 0:
                heard[node, head] /= shares[node, head]
    return heard
