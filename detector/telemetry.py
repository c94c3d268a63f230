"""Telemetry of a fleet as arrays: what recordings and Prometheus both turn into."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from detector.signals import Signal

Floats = NDArray[np.float32]
IDLE = -1


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU (or server) and where it stands. `node` and `gpu` are its identity, the rest may change or be empty."""

    node: str
    gpu: str
    uuid: str = ""
    model: str = ""
    rack: str = ""


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Samples on a regular grid of steps.

    values: float32 [signals, gpus, steps], NaN where nothing was reported; counters are still totals.
    job: int32 [gpus, steps], an index into `jobs`, or IDLE.
    timestamps: float64 [steps], Unix seconds.
    """

    signals: tuple[Signal, ...]
    gpus: tuple[Gpu, ...]
    timestamps: NDArray[np.float64]
    values: Floats
    job: NDArray[np.int32]
    jobs: tuple[str, ...]

    @property
    def step(self) -> float:
        """Seconds from one sample to the next."""
        return float(np.median(np.diff(self.timestamps))) if len(self.timestamps) > 1 else 1.0


def clean(signals: tuple[Signal, ...], values: Floats) -> Floats:
    """Readings fit for comparison: infinities and values out of range become absent, counters become increases.

    values: [signals, gpus, steps]. The first step of a counter is absent: its increase is not known.
    """
    cleaned = np.where(np.isfinite(values), values, np.float32(np.nan))
    for index, signal in enumerate(signals):
        if signal.range is not None:
            low, high = signal.range
            plane = cleaned[index]
            plane[(plane < low) | (plane > high)] = np.nan
        if signal.kind == "counter":
            cleaned[index] = _increase(cleaned[index])
    return cleaned


def _increase(total: Floats) -> Floats:
    increase = np.full_like(total, np.nan)
    previous, current = total[:, :-1], total[:, 1:]
    # A total below the last one was reset to zero in between, so all of it is new.
    increase[:, 1:] = np.where(current >= previous, current - previous, current)
    increase[:, 1:][np.isnan(previous)] = np.nan
    return increase
