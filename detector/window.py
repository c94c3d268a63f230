"""The recent past of the fleet, as it grows: ring buffers of the newest steps."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import numpy as np
from numpy.typing import NDArray

from detector.signals import Signal
from detector.telemetry import IDLE, Gpu, Telemetry

Key = tuple[str, str]  # node, gpu
Times = NDArray[np.float64]  # Unix seconds
_JOBS_KEPT = 1000  # names of ended jobs are dropped beyond that


class Window:
    """The newest `length` steps of every signal of every GPU.

    GPUs and signals are added as they appear; a step is a column. The arrays are twice as long as the window and
    written left to right, so that the newest `length` columns are always one contiguous view; when the end is
    reached, the kept half moves to the front.
    """

    def __init__(self, length: int, step: float) -> None:
        self.length = length
        self.step = step
        self.newest: float | None = None
        self._end = length
        self._signals: dict[str, Signal] = {}
        self._gpus: dict[Key, Gpu] = {}
        self._jobs: dict[str, int] = {}
        self._values = np.full((0, 0, 2 * length), np.nan, np.float32)
        self._job = np.full((0, 2 * length), IDLE, np.int32)
        self._index()

    def advance(self, timestamp: float) -> int:
        """Make `timestamp` the newest step; returns by how many steps that moved the window."""
        moved = self.length if self.newest is None else round((timestamp - self.newest) / self.step)
        moved = min(max(moved, 0), self.length)
        if moved and self._end + moved > 2 * self.length:
            kept = slice(self._end - self.length, self._end)
            self._values[..., : self.length] = self._values[..., kept].copy()
            self._job[:, : self.length] = self._job[:, kept].copy()
            self._end = self.length
            if len(self._jobs) > _JOBS_KEPT:
                self._drop_ended_jobs()
        self._values[..., self._end : self._end + moved] = np.nan
        self._job[:, self._end : self._end + moved] = IDLE
        self._end += moved
        if self.newest is None or timestamp > self.newest:
            self.newest = timestamp
        return moved

    def include(self, signals: Iterable[Signal], gpus: Iterable[Gpu]) -> None:
        """Make room for signals and GPUs; of those already here the labels are brought up to date."""
        before = len(self._signals), len(self._gpus)
        self._signals |= {signal.name: signal for signal in signals if signal.name not in self._signals}
        self._gpus |= {(gpu.node, gpu.gpu): gpu for gpu in gpus}
        grown = np.full((len(self._signals), len(self._gpus), 2 * self.length), np.nan, np.float32)
        if grown.shape != self._values.shape:
            grown[: before[0], : before[1]] = self._values
            self._values = grown
            added = np.full((len(self._gpus) - before[1], 2 * self.length), IDLE, np.int32)
            self._job = np.concatenate([self._job, added])
        self._index()

    def write(self, signal: str, key: Key, timestamps: Times, values: NDArray[np.float64]) -> None:
        """Put samples in their steps: older than the window is dropped, a newer value replaces an older one."""
        steps, kept = self._columns(timestamps)
        self._values[self._rows[signal], self._columns_of[key], steps] = values[kept]

    def write_job(self, key: Key, name: str, timestamps: Times) -> None:
        """Note that a GPU worked for a job at these times; a GPU that reports nothing is passed over."""
        if key in self._columns_of:
            steps, _ = self._columns(timestamps)
            self._job[self._columns_of[key], steps] = self._jobs.setdefault(name, len(self._jobs))

    def forget(self, keys: set[Key]) -> None:
        """Drop GPUs that are no longer part of the fleet."""
        kept = [row for row, key in enumerate(self._gpus) if key not in keys]
        self._gpus = {key: gpu for key, gpu in self._gpus.items() if key not in keys}
        self._values, self._job = self._values[:, kept], self._job[kept]
        self._index()

    def telemetry(self) -> Telemetry:
        """A view of the window, oldest step first; valid until the next `advance`."""
        newest = 0.0 if self.newest is None else self.newest
        timestamps = newest - self.step * np.arange(self.length - 1, -1, -1, dtype=np.float64)
        kept = slice(self._end - self.length, self._end)
        return Telemetry(
            tuple(self._signals.values()),
            tuple(self._gpus.values()),
            timestamps,
            self._values[..., kept],
            self._job[:, kept],
            tuple(self._jobs),
        )

    @property
    def gpus(self) -> Mapping[Key, Gpu]:
        return self._gpus

    def silence(self) -> dict[Key, int]:
        """Steps since each GPU last reported anything; `length` if it never did within the window."""
        reported = np.any(~np.isnan(self.telemetry().values), axis=0)
        quiet = np.argmax(reported[:, ::-1], axis=1)
        quiet[~reported.any(axis=1)] = self.length
        return dict(zip(self._gpus, quiet.tolist(), strict=True))

    def _columns(self, timestamps: Times) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        newest = timestamps[-1] if self.newest is None else self.newest
        back = np.round((newest - timestamps) / self.step).astype(np.int64)
        kept = (back >= 0) & (back < self.length)
        return self._end - 1 - back[kept], kept

    def _index(self) -> None:
        self._rows = {name: row for row, name in enumerate(self._signals)}
        self._columns_of = {key: column for column, key in enumerate(self._gpus)}

    def _drop_ended_jobs(self) -> None:
        live, places = np.unique(self._job, return_inverse=True)
        names = list(self._jobs)
        self._jobs = {names[index]: place for place, index in enumerate(live[live != IDLE])}
        # np.unique sorts, so IDLE, the smallest, moves every other index up by one.
        self._job = (places - int(IDLE in live)).astype(np.int32)
