"""Tail fits of many series at once, beside scipy's one at a time and the same moments by other libraries' sort."""

from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import scipy.stats
import torch

from kernels.arrays import Floats
from kernels.case import Case
from kernels.device import Cpu
from kernels.tail_fit import reference, tail_fit

SERIES = (512, 8_192, 320_000)
PEAKS = 200
CHECKED = 2_000  # series that the reference, which takes one at a time, is asked for
BY_SCIPY = 512  # above that it takes minutes
TOLERANCE = 16 * 2.0**-24


def cases(device: Cpu) -> Iterator[Case]:
    for series in SERIES:
        host = peaks(series)
        values = device.place(host)
        tensor = torch.from_numpy(host) if device.kind == "cpu" else torch.utils.dlpack.from_dlpack(values)
        alternatives: dict[str, Callable[[], object]] = {"torch.sort, moments": partial(torch_moments, tensor)}
        if device.kind == "cpu":
            alternatives["numpy.sort, moments"] = partial(numpy_moments, host)
            if series <= BY_SCIPY:
                alternatives["scipy.stats.genpareto.fit"] = partial(scipy_fits, host)
        else:
            alternatives["cupy.sort, moments"] = partial(cupy_moments, values)
        yield Case(
            op="tail_fit",
            size=series,
            check=partial(check, device, host, values),
            run=partial(tail_fit, values),
            bytes=host.nbytes + 4 * series * host.itemsize,
            operations=0,
            alternatives=alternatives,
        )


def peaks(series: int) -> Floats:
    """Up to 200 peaks a series with an exponential tail, one in ten absent."""
    rng = np.random.default_rng(series)
    values = rng.standard_exponential((series, PEAKS), np.float32)
    values[rng.random(values.shape, np.float32) < 0.1] = np.nan
    return values


def check(device: Cpu, host: Floats, values: Floats) -> None:
    found, expected = tail_fit(values), reference.tail_fit(host[:CHECKED])
    for name in ("shape", "scale", "count", "share"):
        np.testing.assert_allclose(
            device.fetch(getattr(found, name))[:CHECKED],
            getattr(expected, name),
            rtol=TOLERANCE,
            atol=TOLERANCE,
            err_msg=name,
        )


def scipy_fits(values: Floats) -> list[tuple[float, ...]]:
    return [scipy.stats.genpareto.fit(row[~np.isnan(row)], floc=0) for row in values]


def numpy_moments(values: Floats) -> tuple[Floats, Floats]:
    count = (~np.isnan(values)).sum(axis=1)
    ordered = np.nan_to_num(np.sort(values, axis=1))
    return moments(ordered.mean(axis=1) * PEAKS / count, ordered @ np.arange(PEAKS, dtype=np.float32), count)


def cupy_moments(values: Floats) -> tuple[Floats, Floats]:
    import cupy

    count = (~cupy.isnan(values)).sum(axis=1)
    ordered = cupy.nan_to_num(cupy.sort(values, axis=1))
    return moments(ordered.mean(axis=1) * PEAKS / count, ordered @ cupy.arange(PEAKS, dtype=np.float32), count)


def torch_moments(values: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    count = (~values.isnan()).sum(dim=1)
    ordered = values.sort(dim=1).values.nan_to_num()
    rank = torch.arange(PEAKS, dtype=values.dtype, device=values.device)
    mean = ordered.mean(dim=1) * PEAKS / count
    shape = 2 - mean / (2 * (ordered @ rank) / (count * (count - 1)) - mean)
    return shape, mean * (1 - shape)


def moments(mean: Floats, ranked: Floats, count: Floats) -> tuple[Floats, Floats]:
    """Without limits and without a second look at the largest: a little less work than asked for."""
    shape = 2 - mean / (2 * ranked / (count * (count - 1)) - mean)
    return shape, mean * (1 - shape)
