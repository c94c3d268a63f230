"""Who works in step with whom: the ranks of a job that nobody names."""

from __future__ import annotations

import numpy as np
from numba import njit
from numpy.typing import NDArray

from detector.telemetry import Floats
from kernels import nearest_peers

Ints = NDArray[np.int32]
LAG = 12  # steps: what goes wrong now must not at once dissolve the company that it would be seen against
SPAN = 44  # steps over which GPUs are held against one another
NEAREST = 8
APART = 0.2  # correlation distance of ranks of one job, at most
PRESENT = 0.75  # share of the span that has to be known


def ranks(readings: Floats, unnamed: NDArray[np.bool_], model: NDArray[np.int64]) -> Ints:
    """A code from 0 for every GPU that works in step with others of its model, the same for all of them; -1 for none.

    readings: [kinds, gpus, LAG + SPAN], up to and with the step in question: what rises and falls with the work.
    unnamed: [gpus], who has been at work all the time, for a job that nobody names.

    Ranks compute, wait and write checkpoints together. GPUs whose older readings correlate and that are among each
    other's nearest are taken for ranks of one job; steady work, in which nothing rises or falls, tells nothing. One
    in a hundred is taken wrongly: good enough for the model to learn from, not to accuse anybody by.
    """
    found = np.full(len(unnamed), -1, np.int32)
    rows = np.flatnonzero(unnamed)
    if len(rows) < 2:
        return found
    shape, known = _shapes(readings[:, rows, :SPAN])
    labels = np.where(known, model[rows], -1).astype(np.int32)
    peers = nearest_peers(shape, NEAREST, labels, metric="correlation")
    near = np.where(peers.distance <= APART, peers.index, -1).astype(np.int32)
    codes = companies(near)
    found[rows] = codes
    return found


def _shapes(readings: Floats) -> tuple[Floats, NDArray[np.bool_]]:
    """Each GPU's readings one after the other, in their own deviations, [gpus, kinds * SPAN]; and who can be told."""
    present = ~np.isnan(readings)
    count = np.maximum(present.sum(axis=2, keepdims=True), 1)
    filled = np.where(present, readings, 0.0)
    apart = np.where(present, filled - filled.sum(axis=2, keepdims=True) / count, 0.0)
    spread = np.sqrt(np.square(apart).sum(axis=2, keepdims=True) / count)
    kinds, gpus, span = readings.shape
    shape = (apart / np.maximum(spread, 1e-6)).transpose(1, 0, 2).reshape(gpus, kinds * span)
    known: NDArray[np.bool_] = (present.mean(axis=2) >= PRESENT).all(axis=0)
    return np.ascontiguousarray(shape, np.float32), known


@njit(cache=True, nogil=True)
def companies(near: Ints) -> Ints:
    """Who hangs together by being each other's peer, near: [rows, k], -1 for none; -1 for who is by itself."""
    rows = len(near)
    leader = np.arange(rows)
    for row in range(rows):
        for peer in near[row]:
            if peer < 0 or not (near[peer] == row).any():
                continue
            one, other = row, peer
            while leader[one] != one:
                one = leader[one]
            while leader[other] != other:
                other = leader[other]
            leader[max(one, other)] = min(one, other)
    codes = np.full(rows, -1, np.int32)
    members = np.zeros(rows, np.int32)
    for row in range(rows):
        root = row
        while leader[root] != root:
            root = leader[root]
        leader[row] = root
        members[root] += 1
    number = 0
    for row in range(rows):
        if members[leader[row]] > 1:
            if leader[row] == row:
                codes[row] = number
                number += 1
            else:
                codes[row] = codes[leader[row]]
    return codes
