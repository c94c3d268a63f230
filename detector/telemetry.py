"""Telemetry of a fleet as arrays: what recordings and Prometheus both turn into."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import TypeVar

import numpy as np
from numba import njit
from numpy.typing import NDArray

from detector.signals import Signal

Floats = NDArray[np.float32]
IDLE = -1
UNKNOWN = -1
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Gpu:
    """One GPU (or server) and where it stands. `node` and `gpu` are its identity, the rest may change or be empty."""

    node: str
    gpu: str
    uuid: str = ""
    model: str = ""
    rack: str = ""
    island: str = field(default="", compare=False)  # of NVLink; in another one it is still the same GPU
    software: str = field(default="", compare=False)  # what runs on it: driver and firmware


def by_fleet(found: Callable[[tuple[Gpu, ...]], T]) -> Callable[[tuple[Gpu, ...]], T]:
    """Remember what was found for the last few fleets, told apart by identity: to hash a large one takes longer."""
    known: tuple[tuple[tuple[Gpu, ...], T], ...] = ()

    def recalled(gpus: tuple[Gpu, ...]) -> T:
        nonlocal known
        for fleet, result in known:
            if fleet is gpus:
                return result
        result = found(gpus)
        known = (*known[-7:], (gpus, result))
        return result

    return recalled


@dataclass(frozen=True, slots=True)
class Telemetry:
    """Samples on a regular grid of steps.

    values: float32 [signals, gpus, steps], NaN where nothing was reported; counters are still totals.
    job: int32 [gpus, steps], an index into `jobs`, or IDLE. A job whose ranks have several roles is in `jobs` once for
    each of them.
    timestamps: float64 [steps], Unix seconds.
    edges: the kinds of peers to compare with, of topology.KINDS; None for all.
    software: int32 [gpus, steps], an index into `releases`, or UNKNOWN; None where nobody tells.
    stamps: int64 [steps], each step's own number, another one after a change to it; None where nobody counts.
    """

    signals: tuple[Signal, ...]
    gpus: tuple[Gpu, ...]
    timestamps: NDArray[np.float64]
    values: Floats
    job: NDArray[np.int32]
    jobs: tuple[str, ...]
    edges: frozenset[str] | None = None
    software: NDArray[np.int32] | None = None
    releases: tuple[str, ...] = ()
    stamps: NDArray[np.int64] | None = None

    @property
    def step(self) -> float:
        """Seconds from one sample to the next."""
        return float(np.median(np.diff(self.timestamps))) if len(self.timestamps) > 1 else 1.0

    @property
    def of_job(self) -> NDArray[np.int32]:
        """`job` whatever the role, [gpus, steps]: the first place in `jobs` that bears the name."""
        first: dict[str, int] = {}
        places = [first.setdefault(name, place) for place, name in enumerate(self.jobs)]
        if len(first) == len(places):
            return self.job
        whole: NDArray[np.int32] = np.array([*places, IDLE], np.int32)[self.job]
        return whole

    def newest(self, steps: int) -> Telemetry:
        """A view of the last `steps` steps."""
        return self.part(slice(-steps, None))

    def part(self, steps: slice) -> Telemetry:
        """A view of some steps."""
        return replace(
            self,
            timestamps=self.timestamps[steps],
            values=self.values[..., steps],
            job=self.job[:, steps],
            software=None if self.software is None else self.software[:, steps],
            stamps=None if self.stamps is None else self.stamps[steps],
        )


def clean(signals: tuple[Signal, ...], values: Floats) -> Floats:
    """Readings fit for comparison: infinities and values out of range become absent, counters become increases.

    values: [signals, gpus, steps]. The first step of a counter is absent: its increase is not known.
    """
    cleaned = np.empty(values.shape, np.float32)
    unbounded = (-np.inf, np.inf)
    for index, signal in enumerate(signals):
        _clean(values[index], *(signal.range or unbounded), signal.kind == "counter", cleaned[index])
    return cleaned


@njit(cache=True, nogil=True)
def _clean(values: Floats, low: float, high: float, counter: bool, out: Floats) -> None:
    """One signal, [gpus, steps]."""
    for gpu in range(values.shape[0]):
        previous = np.float32(np.nan)
        for step in range(values.shape[1]):
            value = values[gpu, step]
            if not (np.isfinite(value) and low <= value <= high):
                value = np.float32(np.nan)
            if counter:
                # A total below the last one was reset to zero in between, so all of it is new.
                out[gpu, step] = value if value < previous else value - previous
                previous = value
            else:
                out[gpu, step] = value
