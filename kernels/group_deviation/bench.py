"""Peer deviation of one step of a fleet, beside the medians of other libraries."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from itertools import pairwise

import numpy as np
import scipy.stats
import torch

from kernels.arrays import Floats, Integers
from kernels.case import Case
from kernels.device import Cpu
from kernels.group_deviation import Deviation, peer_deviation, reference

SHAPES = ((8, 64), (16, 512), (32, 10_000))  # signals, GPUs
TOLERANCE = 4 * 2.0**-23  # float32: a few units in the last place


def cases(device: Cpu) -> Iterator[Case]:
    for signals, gpus in SHAPES:
        host = fleet(signals, gpus)
        values, members, offsets = device.place(host[0]), device.place(host[1]), device.place(host[2])
        result = peer_deviation(values, members, offsets)
        moved = sum(array.nbytes for array in (*host, result.median, result.mad, result.deviation))
        yield Case(
            op="peer_deviation",
            size=signals * gpus,
            check=partial(check, device, host, (values, members, offsets)),
            run=partial(peer_deviation, values, members, offsets, out=result),
            bytes=moved,
            operations=0,
            alternatives=(
                on_card(values, *padded(*host[1:])) if device.kind == "cuda" else on_cpu(values, members, offsets)
            ),
        )


def fleet(signals: int, gpus: int) -> tuple[Floats, Integers, Integers]:
    """One step of a fleet in groups of 8 to 64 GPUs, one reading in a hundred absent."""
    rng = np.random.default_rng(gpus)
    values = rng.normal(60, 5, (signals, gpus)).astype(np.float32)
    values[rng.random(values.shape) < 0.01] = np.nan
    ends = np.cumsum(rng.integers(8, 65, gpus))
    return values, rng.permutation(gpus).astype(np.int32), np.array([0, *ends[ends < gpus - 8], gpus])


def check(device: Cpu, host: tuple[Floats, Integers, Integers], placed: tuple[Floats, Integers, Integers]) -> None:
    found, expected = peer_deviation(*placed), reference.peer_deviation(*host)
    for name in ("median", "mad", "deviation"):
        np.testing.assert_allclose(
            device.fetch(getattr(found, name)), getattr(expected, name), rtol=TOLERANCE, atol=0, err_msg=name
        )


def on_cpu(values: Floats, members: Integers, offsets: Integers) -> Mapping[str, Callable[[], object]]:
    tensor, (index, padding) = torch.from_numpy(values), padded(members, offsets)
    return {
        "numpy.nanmedian by group": partial(numpy_by_group, values, members, offsets),
        "scipy.stats.median_abs_deviation by group": partial(scipy_by_group, values, members, offsets),
        "torch.nanmedian on padded groups": partial(torch_padded, tensor, index, padding),
    }


def on_card(values: Floats, index: torch.Tensor, padding: torch.Tensor) -> Mapping[str, Callable[[], object]]:
    import cupy

    there = cupy.asarray(index.numpy()), cupy.asarray(padding.numpy())

    def cupy_padded() -> Deviation:
        peers = cupy.where(there[1], np.nan, values[:, there[0]])
        median = cupy.nanmedian(peers, axis=-1, keepdims=True)
        mad = cupy.nanmedian(abs(peers - median), axis=-1, keepdims=True)
        return Deviation(median, mad, (peers - median) / (1.4826 * mad))

    found: dict[str, Callable[[], object]] = {"cupy.nanmedian on padded groups": cupy_padded}
    if torch.cuda.is_available():
        tensors = [torch.utils.dlpack.from_dlpack(array) for array in (values, *there)]
        found["torch.nanmedian on padded groups"] = partial(torch_padded, *tensors)
    return found


def numpy_by_group(values: Floats, members: Integers, offsets: Integers) -> None:
    for start, end in pairwise(offsets):
        peers = values[:, members[start:end]]
        distance = peers - np.nanmedian(peers, axis=1, keepdims=True)
        _ = distance / (1.4826 * np.nanmedian(abs(distance), axis=1, keepdims=True))


def scipy_by_group(values: Floats, members: Integers, offsets: Integers) -> None:
    for start, end in pairwise(offsets):
        peers = values[:, members[start:end]]
        spread = scipy.stats.median_abs_deviation(peers, axis=1, nan_policy="omit", keepdims=True)
        _ = (peers - np.nanmedian(peers, axis=1, keepdims=True)) / (1.4826 * spread)


def torch_padded(values: torch.Tensor, index: torch.Tensor, padding: torch.Tensor) -> None:
    """Of an even count torch takes the lower middle value: a little less work than asked for."""
    peers = values[:, index].masked_fill(padding, torch.nan)
    distance = peers - peers.nanmedian(dim=-1, keepdim=True).values
    _ = distance / (1.4826 * distance.abs().nanmedian(dim=-1, keepdim=True).values)


def padded(members: Integers, offsets: Integers) -> tuple[torch.Tensor, torch.Tensor]:
    """The groups as [groups, largest] indices, and where they are only padding."""
    sizes = np.diff(offsets)
    slots = offsets[:-1, None] + np.arange(sizes.max())
    padding = slots >= offsets[1:, None]
    return torch.from_numpy(members[np.where(padding, 0, slots)].astype(np.int64)), torch.from_numpy(padding)
