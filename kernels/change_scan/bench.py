"""A scan for changes, of a history at once and of one more step, beside the same step by step in other libraries."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from functools import partial

import numpy as np
import scipy.signal
import torch

from kernels.arrays import Floats, module_of
from kernels.case import Case
from kernels.change_scan import Changes, change_scan, reference
from kernels.device import Cpu

SERIES = (512, 8_192, 320_000)
STEPS = 120
DRIFT, THRESHOLD, SMOOTHING = 0.5, 5.0, 0.2
TOLERANCE = 1e-5  # float32; a sum just above the threshold in both versions is far from their rounding


def cases(device: Cpu) -> Iterator[Case]:
    for series in SERIES:
        rng = np.random.default_rng(series)
        host = rng.normal(0, 1, (series, STEPS)).astype(np.float32)
        host[rng.random(host.shape) < 0.01] = np.nan
        values = device.place(host)
        out, _ = change_scan(values)
        yield Case(
            "change_scan",
            series,
            partial(check, device, values),
            partial(change_scan, values, drift=DRIFT, threshold=THRESHOLD, smoothing=SMOOTHING, out=out),
            4 * values.nbytes + out.alarm.nbytes,
            0,
            alternatives(values, device),
        )


def check(device: Cpu, values: Floats) -> None:
    found, _ = change_scan(values, drift=DRIFT, threshold=THRESHOLD, smoothing=SMOOTHING)
    expected, _ = reference.change_scan(device.fetch(values), drift=DRIFT, threshold=THRESHOLD, smoothing=SMOOTHING)
    for field in fields(Changes):
        np.testing.assert_allclose(
            device.fetch(getattr(found, field.name)),
            getattr(expected, field.name),
            rtol=TOLERANCE,
            atol=TOLERANCE,
            err_msg=field.name,
        )


def alternatives(values: Floats, device: Cpu) -> Mapping[str, Callable[[], object]]:
    tensor = torch.utils.dlpack.from_dlpack(values)
    found: dict[str, Callable[[], object]] = {
        "numpy, step by step" if device.kind == "cpu" else "cupy, step by step": partial(by_steps, values),
        "torch, step by step": partial(by_torch, tensor),
    }
    if device.kind == "cpu":
        weights = [SMOOTHING], [1, SMOOTHING - 1]
        found["scipy.signal.lfilter, the mean alone, no gaps"] = partial(scipy.signal.lfilter, *weights, values)
    return found


def by_steps(values: Floats) -> object:
    module = module_of(values)
    columns = module.ascontiguousarray(values.T)
    high = module.zeros_like(columns)
    low, mean, alarm = module.zeros_like(columns), module.zeros_like(columns), module.zeros(columns.shape, np.int8)
    above = below = level = module.zeros_like(columns[0])
    for step, sample in enumerate(columns):
        present = ~module.isnan(sample)
        above = module.where(present, module.maximum(above + sample - DRIFT, 0), above)
        below = module.where(present, module.maximum(below - sample - DRIFT, 0), below)
        level = module.where(present, level + SMOOTHING * (sample - level), level)
        high[step], low[step], mean[step] = above, below, level
        up, down = above > THRESHOLD, below > THRESHOLD
        alarm[step] = up.astype(np.int8) - down
        above, below = module.where(up | down, 0, above), module.where(up | down, 0, below)
    return high, low, mean, alarm


def by_torch(values: torch.Tensor) -> object:
    columns = values.T.contiguous()
    high, low, mean = torch.zeros_like(columns), torch.zeros_like(columns), torch.zeros_like(columns)
    alarm = torch.zeros(columns.shape, dtype=torch.int8, device=values.device)
    above = below = level = torch.zeros_like(columns[0])
    for step, sample in enumerate(columns):
        present = ~sample.isnan()
        above = torch.where(present, (above + sample - DRIFT).clamp(min=0), above)
        below = torch.where(present, (below - sample - DRIFT).clamp(min=0), below)
        level = torch.where(present, level + SMOOTHING * (sample - level), level)
        high[step], low[step], mean[step] = above, below, level
        up, down = above > THRESHOLD, below > THRESHOLD
        alarm[step] = up.to(torch.int8) - down.to(torch.int8)
        above, below = above.masked_fill(up | down, 0), below.masked_fill(up | down, 0)
    return high, low, mean, alarm
