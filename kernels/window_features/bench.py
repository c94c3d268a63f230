"""Window features of the newest step, of a stream and of every step, beside the windows of other libraries."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from functools import partial
from importlib.util import find_spec

import numpy as np
import torch

from kernels.arrays import Floats, module_of
from kernels.case import Case
from kernels.device import Cpu
from kernels.window_features import Features, Ring, reference, window_features, window_ring, window_step

SERIES = (512, 8_192, 320_000)
WINDOW = 120
SLIDING = (512, 8_192)  # every step of two windows
TOLERANCE = 1e-5  # float32, and the reference's own rounding of a level near 60

Alternatives = Mapping[str, Callable[[], object]]


def cases(device: Cpu) -> Iterator[Case]:
    for series in SERIES:
        values = device.place(history(series, WINDOW))
        out = window_features(values, WINDOW, steps=1)
        yield Case(
            "window_features",
            series,
            partial(check, device, values, 1),
            partial(window_features, values, WINDOW, steps=1, out=out),
            values.nbytes + 7 * out.mean.nbytes,
            0,
            newest(values, device),
        )
        flat = Features(*(getattr(out, field.name)[:, 0] for field in fields(out)))
        stream = Stream(window_ring(values, WINDOW), values[:, 0].copy(), flat)
        yield Case(
            "window_step",
            series,
            partial(check, device, values, 1),
            stream,
            # A ring's slot, the sums and the new sample are read, all but the sample written, and seven features.
            values[:, 0].nbytes * 10 + 2 * stream.ring.sums.nbytes,
            0,
            {"window_features anew": partial(window_features, values, WINDOW, steps=1), **newest(values, device)},
        )
    for series in SLIDING:
        values = device.place(history(series, 2 * WINDOW))
        every = window_features(values, WINDOW)
        yield Case(
            "window_features, every step",
            series,
            partial(check, device, values, 2 * WINDOW),
            partial(window_features, values, WINDOW, out=every),
            8 * values.nbytes,
            0,
            sliding(values, device),
        )


class Stream:
    """A ring that moves on with every call."""

    def __init__(self, ring: Ring, sample: Floats, out: Features) -> None:
        self.ring, self.sample, self.out = ring, sample, out

    def __call__(self) -> None:
        _, self.ring = window_step(self.ring, self.sample, out=self.out)


def history(series: int, steps: int) -> Floats:
    """One reading in a hundred absent."""
    rng = np.random.default_rng(series)
    values = rng.normal(60, 5, (series, steps)).astype(np.float32)
    values[rng.random(values.shape) < 0.01] = np.nan
    return values


def check(device: Cpu, values: Floats, steps: int) -> None:
    found = window_features(values, WINDOW, steps=steps)
    expected = reference.window_features(device.fetch(values), WINDOW, steps=steps)
    for field in fields(Features):
        np.testing.assert_allclose(
            device.fetch(getattr(found, field.name)),
            getattr(expected, field.name),
            rtol=TOLERANCE,
            atol=TOLERANCE,
            err_msg=field.name,
        )


def newest(values: Floats, device: Cpu) -> Alternatives:
    tensor = torch.utils.dlpack.from_dlpack(values)
    found: dict[str, Callable[[], object]] = {"torch": partial(by_torch, tensor)}
    found["numpy" if device.kind == "cpu" else "cupy"] = partial(by_numpy, values)
    if device.kind == "cpu" and find_spec("bottleneck"):
        found["bottleneck, the slope by numpy"] = partial(by_bottleneck, values)
    return found


def sliding(values: Floats, device: Cpu) -> Alternatives:
    found: dict[str, Callable[[], object]] = {}
    if len(values) <= SLIDING[0] or device.kind == "cuda":
        found["sliding_window_view"] = partial(by_views, values)
    if device.kind == "cpu" and find_spec("bottleneck"):
        found["bottleneck.move_*"] = partial(by_bottleneck_moving, values)
    if device.kind == "cpu" and find_spec("pandas"):
        found["pandas.rolling, without the slope"] = partial(by_pandas, values)
    return found


def slope(values: Floats, mean: Floats) -> object:
    """Least squares along the last axis, gaps left out."""
    module = module_of(values)
    times = module.arange(values.shape[-1], dtype=np.float32)
    present = ~module.isnan(values)
    distance = module.where(present, values - mean[..., np.newaxis], np.float32(0))
    weight = present.astype(np.float32)
    count, first, second = weight.sum(axis=-1), weight @ times, weight @ times**2
    return (distance @ times - distance.sum(axis=-1) * first / count) / (second - first**2 / count)


def by_numpy(values: Floats) -> tuple[object, ...]:
    module = module_of(values)
    mean = module.nanmean(values, axis=-1)
    extremes = module.nanmin(values, axis=-1), module.nanmax(values, axis=-1)
    last = values[..., -1]
    missing = module.isnan(values).mean(axis=-1)
    return mean, module.nanstd(values, axis=-1), slope(values, mean), *extremes, last, missing


def by_bottleneck(values: Floats) -> tuple[object, ...]:
    import bottleneck  # type: ignore[import-not-found, import-untyped, unused-ignore]

    mean = bottleneck.nanmean(values, axis=1)
    extremes = bottleneck.nanmin(values, axis=1), bottleneck.nanmax(values, axis=1)
    last = bottleneck.push(values[:, -8:], axis=1)[:, -1]
    return mean, bottleneck.nanstd(values, axis=1), slope(values, mean), *extremes, last, np.isnan(values).mean(axis=1)


def by_torch(values: torch.Tensor) -> tuple[torch.Tensor, ...]:
    present = ~values.isnan()
    weight = present.to(values.dtype)
    count = weight.sum(-1)
    mean = values.nansum(-1) / count
    distance = torch.where(present, values - mean[:, None], 0)
    times = torch.arange(values.shape[-1], dtype=values.dtype, device=values.device)
    first, second = weight @ times, weight @ times**2
    low = torch.where(present, values, torch.inf).amin(-1)
    high = torch.where(present, values, -torch.inf).amax(-1)
    tilt = (distance @ times - distance.sum(-1) * first / count) / (second - first**2 / count)
    deviation = ((distance * distance).sum(-1) / count).sqrt()
    return mean, deviation, tilt, low, high, values[:, -1], 1 - count / values.shape[-1]


def by_views(values: Floats) -> tuple[object, ...]:
    module = module_of(values)
    return by_numpy(module.lib.stride_tricks.sliding_window_view(values, WINDOW, axis=-1))


def by_bottleneck_moving(values: Floats) -> list[object]:
    """The slope from moving sums of the values times their step, as far as gaps allow."""
    import bottleneck  # type: ignore[import-not-found, import-untyped, unused-ignore]

    named = ("move_std", "move_min", "move_max")
    found: list[object] = [getattr(bottleneck, name)(values, WINDOW, min_count=1) for name in named]
    mean = bottleneck.move_mean(values, WINDOW, min_count=1)
    times = np.arange(values.shape[1], dtype=np.float32)
    weighted = bottleneck.move_sum(values * times, WINDOW, min_count=1)
    count = bottleneck.move_sum((~np.isnan(values)).astype(np.float32), WINDOW, min_count=1)
    found += [mean, (weighted - mean * times * count) / count]
    return [*found, bottleneck.push(values, axis=1), 1 - count / WINDOW]


def by_pandas(values: Floats) -> list[object]:
    import pandas  # type: ignore[import-not-found, import-untyped, unused-ignore]

    rolling = pandas.DataFrame(values.T).rolling(WINDOW, min_periods=1)
    return [rolling.mean(), rolling.std(), rolling.min(), rolling.max(), rolling.count()]
