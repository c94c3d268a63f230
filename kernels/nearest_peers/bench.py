"""The nearest of all rows, beside blocks of the BLAS's with a partial sort, and a tree."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.spatial import cKDTree

from kernels.arrays import Floats
from kernels.case import Case
from kernels.device import Cpu
from kernels.nearest_peers import nearest_peers, reference

ROWS = (512, 8_192, 32_768, 100_000)
FEATURES, K = 64, 16
BLOCK = 1024  # rows at once, so that the alternatives too do without the whole matrix
CHECKED = 200  # rows that the reference is asked for
BY_TREE, BY_NUMPY = 8_192, 32_768  # above that they take minutes
PICKED = 64 * 2.0**-23


def cases(device: Cpu) -> Iterator[Case]:
    for rows in ROWS:
        host = np.random.default_rng(rows).standard_normal((rows, FEATURES), np.float32)
        features = device.place(host)
        alternatives: dict[str, Callable[[], object]] = {}
        if device.kind == "cpu":
            if rows <= BY_NUMPY:
                alternatives["numpy: blocks, argpartition"] = partial(numpy_blocks, host)
            alternatives["torch: cdist, topk"] = partial(torch_blocks, torch.from_numpy(host))
            if rows <= BY_TREE:
                alternatives["scipy.spatial.cKDTree"] = partial(tree, host)
        else:
            alternatives["cupy: blocks, argpartition"] = partial(cupy_blocks, features)
            if torch.cuda.is_available():
                alternatives["torch: cdist, topk"] = partial(torch_blocks, torch.utils.dlpack.from_dlpack(features))
        yield Case(
            op="nearest_peers",
            size=rows,
            check=partial(check, device, host, features),
            run=partial(nearest_peers, features, K),
            bytes=host.nbytes + 2 * rows * K * 4,
            # A pair's distance is the same from both ends.
            operations=rows * rows * FEATURES,
            alternatives=alternatives,
        )


def check(device: Cpu, host: Floats, features: Floats) -> None:
    found = nearest_peers(features, K)
    rows = np.linspace(0, len(host) - 1, CHECKED).astype(int)
    expected = reference.nearest_peers(host, K, rows=rows)
    extent = float((host * host).sum(axis=1).max())
    squares = device.fetch(found.distance)[rows].astype(np.float64) ** 2
    np.testing.assert_allclose(squares, expected.distance**2, rtol=1e-6, atol=PICKED * extent)


def numpy_blocks(features: Floats) -> NDArray[np.int64]:
    squares = (features * features).sum(axis=1)
    found = np.empty((len(features), K + 1), np.int64)
    for start in range(0, len(features), BLOCK):
        block = features[start : start + BLOCK] @ features.T
        block *= -2
        block += squares
        found[start : start + BLOCK] = np.argpartition(block, K, axis=1)[:, : K + 1]
    return found


def cupy_blocks(features: Floats) -> list[object]:
    import cupy

    squares = (features * features).sum(axis=1)
    return [
        cupy.argpartition(squares - 2 * (features[start : start + BLOCK] @ features.T), K, axis=1)[:, : K + 1]
        for start in range(0, len(features), BLOCK)
    ]


def torch_blocks(features: torch.Tensor) -> list[torch.Tensor]:
    return [
        torch.cdist(features[start : start + BLOCK], features).topk(K + 1, largest=False).indices
        for start in range(0, len(features), BLOCK)
    ]


def tree(features: Floats) -> object:
    return cKDTree(features).query(features, K + 1, workers=-1)
