"""Peer groups by sorting, of any size: the kernel for groups takes at most some thousand members on a card."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import pad

from detector.topology import MINIMUM, REACH

_NAN = float("nan")
_ABSENT = 2**32 - 1  # above what any number is turned into


@dataclass(frozen=True, slots=True)
class Groups:
    """Groups of one kind over N nodes, int64 [N] each.

    members: the nodes of one group after the other, all of them: who is in none is in groups that do not count.
    slot: each node's place in `members`; start: the first place of its group; size: its group's, 0 where it does not
    count.
    """

    members: Tensor
    slot: Tensor
    start: Tensor
    size: Tensor

    @property
    def counts(self) -> Tensor:
        """Whether a node is in a group, bool [N]."""
        return self.size > 0


def group(keys: Sequence[tuple[Tensor, int]], eligible: Tensor, order: Tensor, minimum: int = MINIMUM) -> Groups:
    """Nodes with equal keys, in the given order, as groups of at least the minimum; see topology.build.

    keys: int64 [N], and how many different ones there may be; values from 0.
    """
    code = torch.zeros_like(order)
    most = 1
    for key, number in keys:
        code, most = code * number + key, most * number
    ranked, place = torch.where(eligible, code, most)[order].sort(stable=True)
    members = order[place]
    start, end = torch.searchsorted(ranked, ranked), torch.searchsorted(ranked, ranked, right=True)
    size = torch.where((ranked < most) & (end - start >= minimum), end - start, 0)
    slot = torch.empty_like(members)
    slot[members] = torch.arange(len(members), device=members.device)
    return Groups(members, slot, start[slot], size[slot])


def nobody(like: Groups) -> Groups:
    """The same nodes in no group."""
    return Groups(like.members, like.slot, like.start, torch.zeros_like(like.size))


def medians(values: Tensor, groups: Groups, minimum: int, nearer: bool = False) -> Tensor:
    """Each node's group's median of each row; NaN with fewer than the minimum of members that are there.

    nearer: of an even number the one in the middle that is nearer to 0.

    [rows, N] → [rows, N]. All rows and groups are sorted at once: by row, group and value in one integer.
    """
    rows, nodes = values.shape
    present = values.isfinite()
    row = torch.arange(rows, device=values.device)[:, None] * nodes
    first = row + groups.start
    ranked = (first * 2**32 + torch.where(present, _rising(values), _ABSENT)).flatten().sort().values
    before = pad(present[:, groups.members].cumsum(1), (1, 0))
    count = before[:, groups.start + groups.size] - before[:, groups.start]
    low, high = (_falling(ranked[first + place] & _ABSENT) for place in ((count - 1).clamp(min=0) // 2, count // 2))
    if nearer:
        middle = torch.where(low.abs() <= high.abs(), low, high)
    else:
        middle = (0.5 * low.double() + 0.5 * high.double()).float()
    return torch.where(groups.counts & (count >= minimum), middle, _NAN)


def _rising(values: Tensor) -> Tensor:
    """Floats as integers from 0 to 2**32 - 1 in the same order."""
    bits = values.contiguous().view(torch.int32).long()
    return torch.where(bits >= 0, bits + 2**31, -1 - bits)


def _falling(bits: Tensor) -> Tensor:
    """The floats of such integers."""
    return torch.where(bits >= 2**31, bits - 2**31, -1 - bits).int().view(torch.float32)


def neighbours(groups: Groups) -> tuple[Tensor, Tensor]:
    """The REACH neighbours on either side in the group's order, and which of them there are; see topology.edges.

    int64 and bool [N, 2 * REACH].
    """
    shift = torch.tensor([sign * distance for distance in range(1, REACH + 1) for sign in (1, -1)])
    shift = shift.to(groups.size.device)
    size, start = groups.size[:, None], groups.start[:, None]
    place = groups.slot[:, None] - start
    there = (2 * shift.abs() < size) | ((2 * shift.abs() == size) & (shift > 0))
    return groups.members[start + (place + shift) % size.clamp(min=1)], there
