"""Median and mad of the newest step's window and of every step's, beside the medians of other libraries."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from functools import partial
from importlib.util import find_spec

import numpy as np
import scipy.stats
import torch

from kernels.arrays import Floats, module_of
from kernels.case import Case
from kernels.device import Cpu
from kernels.median_mad import History, median_mad, reference

SERIES = (512, 8_192, 320_000)
WINDOW = 120
SLIDING = (512, 8_192)  # every step of two windows
PART = 64  # series
TOLERANCE = 4 * 2.0**-23  # float32: a few units in the last place


def cases(device: Cpu) -> Iterator[Case]:
    for series in SERIES:
        yield case(device, series, WINDOW, 1, "median_mad")
    for series in SLIDING:
        yield case(device, series, 2 * WINDOW, 2 * WINDOW, "median_mad, every step")


def case(device: Cpu, series: int, length: int, steps: int, op: str) -> Case:
    rng = np.random.default_rng(series)
    host = rng.normal(60, 5, (series, length)).astype(np.float32)
    host[rng.random(host.shape) < 0.01] = np.nan
    values = device.place(host)
    out = median_mad(values, WINDOW, steps=steps)
    return Case(
        op,
        series,
        partial(check, device, values, steps),
        partial(median_mad, values, WINDOW, steps=steps, out=out),
        values.nbytes + 3 * out.median.nbytes,
        0,
        newest(values, device) if steps == 1 else sliding(values, device),
    )


def check(device: Cpu, values: Floats, steps: int) -> None:
    """A part of the series is enough where the reference takes minutes."""
    some = values[:: max(1, len(values) * steps // 100_000)]
    found = median_mad(values, WINDOW, steps=steps)
    expected = reference.median_mad(device.fetch(some), WINDOW, steps=steps)
    for field in fields(History):
        result = device.fetch(getattr(found, field.name))[:: max(1, len(values) * steps // 100_000)]
        wanted = getattr(expected, field.name)
        np.testing.assert_allclose(result, wanted, rtol=TOLERANCE, atol=0, err_msg=field.name)


def newest(values: Floats, device: Cpu) -> Mapping[str, Callable[[], object]]:
    tensor = torch.utils.dlpack.from_dlpack(values)
    found: dict[str, Callable[[], object]] = {"torch.nanmedian": partial(by_torch, tensor)}
    module = module_of(values)
    title = "numpy.nanmedian" if device.kind == "cpu" else "cupy.nanmedian"
    found[title] = partial(twice, partial(module.nanmedian, axis=-1), values)
    if device.kind == "cpu" and find_spec("bottleneck"):
        import bottleneck  # type: ignore[import-not-found, import-untyped, unused-ignore]

        found["bottleneck.nanmedian"] = partial(twice, partial(bottleneck.nanmedian, axis=-1), values)
    if device.kind == "cpu" and len(values) <= SERIES[1]:
        found["scipy.stats.median_abs_deviation"] = partial(by_scipy, values)
    return found


def sliding(values: Floats, device: Cpu) -> Mapping[str, Callable[[], object]]:
    """No library has a moving mad: the distances to the medians are reduced window by window."""
    module = module_of(values)
    views = module.lib.stride_tricks.sliding_window_view(values, WINDOW, axis=-1)
    if device.kind == "cuda" or not find_spec("bottleneck"):
        return {"nanmedian of sliding_window_view": partial(twice, partial(module.nanmedian, axis=-1), views)}
    return {"bottleneck.move_median, nanmedian of the distances": partial(by_bottleneck, values, views)}


def by_bottleneck(values: Floats, views: Floats) -> object:
    """In parts: all distances at once would take gigabytes."""
    import bottleneck  # type: ignore[import-not-found, import-untyped, unused-ignore]

    found = []
    for part in range(0, len(values), PART):
        median = bottleneck.move_median(values[part : part + PART], WINDOW, min_count=3)[:, WINDOW - 1 :]
        mad = bottleneck.nanmedian(abs(views[part : part + PART] - median[..., np.newaxis]), axis=-1)
        found.append((values[part : part + PART, WINDOW - 1 :] - median) / (1.4826 * mad))
    return found


def twice(median_of: Callable[[Floats], Floats], values: Floats) -> object:
    median = median_of(values)
    mad = median_of(abs(values - median[..., np.newaxis]))
    return (values[..., -1] - median) / (1.4826 * mad)


def by_scipy(values: Floats) -> object:
    spread = scipy.stats.median_abs_deviation(values, axis=1, nan_policy="omit")
    return (values[:, -1] - np.nanmedian(values, axis=1)) / (1.4826 * spread)


def by_torch(values: torch.Tensor) -> torch.Tensor:
    """Of an even count torch takes the lower middle value: a little less work than asked for."""
    median = values.nanmedian(dim=-1, keepdim=True).values
    mad = (values - median).abs().nanmedian(dim=-1, keepdim=True).values
    return (values[:, -1:] - median) / (1.4826 * mad)
