"""What features.py and telemetry.py make of readings, as tensors on any device."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn.functional import pad

from detector.features import CLIP, LATELY, TREND, WINDOW, resolutions, twins
from detector.signals import Signal

_NAN = float("nan")
_INF = float("inf")


def clean(signals: Sequence[Signal], values: Tensor) -> Tensor:
    """See telemetry.clean. [signals, gpus, steps]."""
    ranges = [signal.range or (-_INF, _INF) for signal in signals]
    low, high = values.new_tensor(ranges).reshape(-1, 2, 1, 1).unbind(1)
    cleaned = torch.where(values.isfinite() & (values >= low) & (values <= high), values, _NAN)
    for row, signal in enumerate(signals):
        if signal.kind == "counter":
            totals = cleaned[row]
            before, now = totals[:, :-1], totals[:, 1:]
            increase = torch.where(now < before, now, now - before)
            cleaned[row] = pad(increase, (1, 0), value=_NAN)
    return cleaned


def scaled(values: Tensor, centre: Tensor, spread: Tensor) -> Tensor:
    """See features.Scaling.apply. [signals, gpus, steps]; centre, spread: [signals, gpus, 1]."""
    return ((values - centre) / spread).clamp(-CLIP, CLIP)


def highest(values: Tensor, window: int, first: int) -> Tensor:
    """The highest reading of the window that ends at step `first` and later; NaN without any.

    [..., steps] → [..., steps - first].
    """
    begin = max(0, first - window + 1)
    known = values[..., begin:].nan_to_num(nan=-_INF)
    known = pad(known, (window - 1 - (first - begin), 0), value=-_INF)
    top = known.unfold(-1, window, 1).amax(-1)
    return torch.where(top == -_INF, _NAN, top)


def smooth(values: Tensor, memories: Sequence[float], first: int) -> Tensor:
    """See features.smooth, for several memories at once. [..., steps] → [memories, ..., steps - first]."""
    steps = values.shape[-1]
    place = torch.arange(steps, device=values.device, dtype=torch.float64)
    lag = place[first:] - place[:, None]
    kept = (lag >= 0) & (lag < WINDOW)
    weights = torch.cat([torch.where(kept, torch.exp(-lag / memory), 0.0) for memory in memories], dim=1)
    present = ~values.isnan()
    total = values.nan_to_num(nan=0.0).double() @ weights
    weight = present.double() @ weights
    means = torch.where(weight > 1e-6, total / weight, _NAN).float()
    return torch.stack(torch.split(means, steps - first, dim=-1))


def freshness(values: Tensor, first: int) -> Tensor:
    """See features.freshness. [..., steps] → [..., steps - first]."""
    ends = range(first + 1, values.shape[-1] + 1)
    return torch.stack([_fresh(values[..., max(0, end - WINDOW) : end]) for end in ends], dim=-1)


def _fresh(readings: Tensor) -> Tensor:
    """Of the last step. [..., steps] → [...]."""
    steps = readings.shape[-1]
    place = torch.arange(1, steps + 1, device=readings.device, dtype=torch.int16)
    newest = torch.where(readings.isnan(), 0, place).amax(-1)
    return torch.where(newest > 0, 1 / (1 + steps - newest.double()), 0.0).float()


def unchanged(values: Tensor, first: int, signals: Sequence[Signal]) -> Tensor:
    """See features.unchanged. [signals, gpus, steps] → [signals, gpus, steps - first]."""
    begin = max(0, first - WINDOW)
    ends = range(first + 1, values.shape[2] + 1)
    return torch.stack([_unchanged(values[..., begin:end], signals) for end in ends], dim=-1)


def _unchanged(readings: Tensor, signals: Sequence[Signal]) -> Tensor:
    """Of the last step. [signals, gpus, steps] → [signals, gpus]."""
    now = readings[..., -1:]
    place = torch.arange(1, readings.shape[-1] + 1, device=readings.device, dtype=torch.int16)
    present = ~readings.isnan()
    otherwise = torch.where(present & (readings != now), place, 0).amax(-1, keepdim=True)
    run = (((readings == now) & (place > otherwise)).sum(-1) - 1).clamp(max=WINDOW)
    # Who came only lately and never changed: nobody reported when the window began.
    begin = max(0, readings.shape[-1] - 1 - WINDOW)
    since = present[..., begin : begin + LATELY].any(-1) | (otherwise.squeeze(-1) > begin)
    count = run.float()
    told_apart, lately = resolutions(signals).tolist(), place > readings.shape[-1] - 1 - WINDOW
    for row, twin in enumerate(twins(signals).tolist()):
        if twin >= 0:
            count[row] = _way(readings[twin], (place > otherwise[row]) & lately) / told_apart[twin]
    return torch.where(present[..., -1] & (since | (run == WINDOW)), count, _NAN)


def _way(readings: Tensor, chosen: Tensor) -> Tensor:
    """See features._way. [gpus, steps] each → [gpus]."""
    known = chosen & ~readings.isnan()
    highest = torch.where(known, readings, -_INF).amax(-1)
    lowest = torch.where(known, readings, _INF).amin(-1)
    return torch.where(known.any(-1), highest - lowest, _NAN)


def trend(scaled: Tensor, first: int) -> Tensor:
    """See features.trend. [signals, gpus, steps] → [signals, gpus, steps - first]."""
    start = max(0, first - TREND)
    changes = pad(scaled[..., start:].diff(dim=-1), (1, 0), value=_NAN)
    # A sort, not the kernel for medians: that takes a floor for every series, which is more than the readings.
    lead = TREND - 1 - (first - start)
    recent = pad(changes, (max(lead, 0), 0), value=_NAN)[..., max(-lead, 0) :].unfold(-1, TREND, 1)
    median = _middle(recent.double(), TREND // 2)
    mad = _middle((recent - median.unsqueeze(-1)).abs(), TREND // 2).float()
    usual = median.float()
    return TREND * torch.where((usual.abs() <= mad) & (mad > 0), 0.0, usual)


def _middle(samples: Tensor, minimum: int) -> Tensor:
    """The median of those that are there, NaN with fewer than the minimum. [..., samples] → [...]."""
    count = (~samples.isnan()).sum(-1, keepdim=True)
    ordered = samples.sort(-1).values  # NaN last
    low, high = (ordered.gather(-1, place) for place in ((count - 1).clamp(min=0) // 2, count // 2))
    return torch.where(count >= minimum, 0.5 * low + 0.5 * high, _NAN).squeeze(-1)
