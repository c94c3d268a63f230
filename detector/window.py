"""The recent past of the fleet, as it grows: ring buffers of the newest steps."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping
from dataclasses import replace

import numpy as np
from numba import njit
from numpy.typing import NDArray

from detector import anew
from detector.signals import Signal
from detector.telemetry import IDLE, UNKNOWN, Floats, Gpu, Telemetry

Key = tuple[str, str]  # node, gpu
Job = tuple[str, str]  # name, role
Times = NDArray[np.float64]  # Unix seconds
Rows = NDArray[np.int64]
_FOREVER = 1_000_000_000  # steps
_JOBS_KEPT = 1000  # ended jobs are dropped beyond that


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
        self.generation = 0  # changes when GPUs come or go
        self._end = length
        self._signals: dict[str, Signal] = {}
        self._gpus: dict[Key, Gpu] = {}
        self._jobs: dict[Job, int] = {}
        self._values = np.full((0, 0, 2 * length), np.nan, np.float32)
        self._job = np.full((0, 2 * length), IDLE, np.int32)
        self._software = np.full((0, 2 * length), UNKNOWN, np.int32)
        self._releases: dict[str, int] = {}
        self._known: dict[str, Floats] = {}  # of signals that restart and, "", of software; see `anew.moved`
        self._stamps = np.arange(2 * length)  # see Telemetry
        self._stamp = 0
        self._heard = np.full((0, 0), -np.inf)  # Unix seconds of the newest reading, [signals, gpus]
        self._since = np.zeros(0)  # Unix seconds from which on each GPU's own past counts
        self._index()

    def advance(self, timestamp: float) -> int:
        """Make `timestamp` the newest step; returns by how many steps that moved the window."""
        moved = self.length if self.newest is None else round((timestamp - self.newest) / self.step)
        moved = min(max(moved, 0), self.length)
        if moved and self._end + moved > 2 * self.length:
            kept = slice(self._end - self.length, self._end)
            self._values[..., : self.length] = self._values[..., kept].copy()
            self._job[:, : self.length] = self._job[:, kept].copy()
            self._software[:, : self.length] = self._software[:, kept].copy()
            self._stamps[: self.length] = self._stamps[kept].copy()
            self._end = self.length
            if len(self._jobs) > _JOBS_KEPT:
                self._drop_ended_jobs()
        self._values[..., self._end : self._end + moved] = np.nan
        self._job[:, self._end : self._end + moved] = IDLE
        self._software[:, self._end : self._end + moved] = UNKNOWN
        self._touch(slice(self._end, self._end + moved))
        self._end += moved
        if self.newest is None or timestamp > self.newest:
            self.newest = timestamp
        return moved

    def include(self, signals: Iterable[Signal], gpus: Iterable[Gpu]) -> None:
        """Make room for signals and GPUs; of those already here the labels are brought up to date."""
        before = len(self._signals), len(self._gpus)
        self._signals |= {signal.name: signal for signal in signals if signal.name not in self._signals}
        self._gpus |= {(gpu.node, gpu.gpu): self._completed(gpu) for gpu in gpus}
        added = len(self._gpus) - before[1]
        if added:
            self.generation += 1
        if (len(self._signals), len(self._gpus)) != before:
            grown = np.full((len(self._signals), len(self._gpus), 2 * self.length), np.nan, np.float32)
            grown[: before[0], : before[1]] = self._values
            self._values = grown
            self._job = np.concatenate([self._job, np.full((added, 2 * self.length), IDLE, np.int32)])
            self._software = np.concatenate([self._software, np.full((added, 2 * self.length), UNKNOWN, np.int32)])
            self._since = np.concatenate([self._since, np.full(added, -np.inf)])
            heard = np.full(grown.shape[:2], -np.inf)
            heard[: before[0], : before[1]] = self._heard
            self._heard = heard
        self._index()

    def _completed(self, gpu: Gpu) -> Gpu:
        """With what its other series have told of it."""
        known = self._gpus.get((gpu.node, gpu.gpu), gpu)
        return replace(gpu, island=gpu.island or known.island, software=gpu.software or known.software)

    def rows(self, keys: Iterable[Key]) -> Rows:
        """Where GPUs stand, -1 for one that is not here; valid until the generation changes."""
        return np.array([self._row.get(key, -1) for key in keys], np.int64)

    def write(self, signal: str, rows: Rows, timestamps: Times, values: NDArray[np.float64]) -> None:
        """Put samples, one a row, in their steps: what is older than the window or not finite is dropped.

        A newer value replaces an older one; of several for one GPU and step the largest stays.
        """
        steps, kept = self._columns(timestamps)
        place = self._place[signal]
        steps = np.where(kept, steps, -1)
        self._stamp += 1
        planes = self._values[place], self._heard[place], self._stamps
        _put(rows, steps, timestamps, values, self._since, *planes, self._stamp * 2 * self.length)

    def number(self, jobs: Iterable[Job]) -> Rows:
        """The numbers of jobs; valid until the next `advance`."""
        return np.array([self._jobs.setdefault(job, len(self._jobs)) for job in jobs], np.int64)

    def write_job(self, rows: Rows, jobs: Rows, timestamps: Times) -> None:
        """Note that GPUs worked for jobs at these times; a GPU that reports nothing is passed over."""
        steps, kept = self._columns(timestamps)
        kept &= rows >= 0
        self._job[rows[kept], steps[kept]] = jobs[kept]
        self._touch(steps[kept])

    def hold_jobs(self, steps: int) -> None:
        """Take the jobs to go on as they were, for the newest steps."""
        if 0 < steps < self.length:
            self._job[:, self._end - steps : self._end] = self._job[:, self._end - steps - 1, None]
            self._touch(slice(self._end - steps, self._end))

    def clear(self) -> None:
        """Forget everything that was reported, not by whom: the clock was set back."""
        self.newest = None
        self._values[:], self._job[:], self._heard[:] = np.nan, IDLE, -np.inf
        self._software[:], self._since[:], self._known = UNKNOWN, -np.inf, {}
        self._touch(slice(None))

    def forget(self, keys: set[Key]) -> None:
        """Drop GPUs that are no longer part of the fleet."""
        kept = [row for row, key in enumerate(self._gpus) if key not in keys]
        self._gpus = {key: gpu for key, gpu in self._gpus.items() if key not in keys}
        self._touch(slice(None))
        self._values, self._job, self._heard = self._values[:, kept], self._job[kept], self._heard[:, kept]
        self._software, self._since = self._software[kept], self._since[kept]
        self._known = {
            name: level[:, [row for row in kept if row < level.shape[1]]] for name, level in self._known.items()
        }
        self.generation += 1
        self._index()

    def release(self, names: Iterable[str]) -> Rows:
        """The numbers of what runs on GPUs."""
        return np.array([self._releases.setdefault(name, len(self._releases)) for name in names], np.int64)

    def write_software(self, rows: Rows, releases: Rows, timestamps: Times) -> None:
        """Note what ran on GPUs at these times. Of two at a time it is still what it was: the other's series ends."""
        steps, kept = self._columns(timestamps)
        kept &= rows >= 0
        rows, steps, releases = rows[kept], steps[kept], releases[kept]
        order = np.argsort(releases == self._level("")[0, rows], kind="stable")
        self._software[rows[order], steps[order]] = releases[order]

    def begin_anew(self, steps: int) -> Rows:
        """Drop what GPUs reported before they were set to another level or ran another software, in the newest steps.

        Returns the rows of those GPUs.
        """
        newest = slice(self._end - min(steps, self.length), self._end)
        software = self._level("")
        before = software[0].copy()
        begins = anew.moved(anew.levels(self._software[:, newest]), software, 0.5)
        for name, signal in self._signals.items():
            if signal.restarts:
                begins |= anew.moved(self._values[self._place[name], :, newest], self._level(name), signal.resolution)
        rows = np.flatnonzero(begins.any(axis=1))
        for row in rows.tolist():
            first = newest.start + int(np.flatnonzero(begins[row])[-1])
            self._values[:, row, :first] = np.nan
            # What is read once more is not to bring back what was dropped.
            self._since[row] = (self.newest or 0.0) - (self._end - first - 0.5) * self.step
        if len(rows):
            self._touch(slice(None))
        self._label(np.flatnonzero((software[0] != before) & ~np.isnan(software[0])))
        return rows

    def _level(self, name: str) -> Floats:
        """What was last known of a signal that restarts or, "", of software; see `anew.moved`."""
        known = self._known.get(name, anew.nothing(0))
        missing = len(self._gpus) - known.shape[1]
        level = self._known[name] = np.concatenate([known, anew.nothing(missing)], axis=1) if missing else known
        return level

    def _label(self, rows: Rows) -> None:
        """Give GPUs what runs on them by now as their label."""
        if len(rows):
            names, codes = list(self._releases), self._level("")[0]
            self.include((), [replace(self._fleet[row], software=names[int(codes[row])]) for row in rows.tolist()])

    def telemetry(self) -> Telemetry:
        """A view of the window, oldest step first; valid until the next `advance`."""
        newest = 0.0 if self.newest is None else self.newest
        timestamps = newest - self.step * np.arange(self.length - 1, -1, -1, dtype=np.float64)
        kept = slice(self._end - self.length, self._end)
        return Telemetry(
            self._described,
            self._fleet,
            timestamps,
            self._values[..., kept],
            self._job[:, kept],
            tuple(name for name, _ in self._jobs),
            software=self._software[:, kept],
            releases=tuple(self._releases),
            stamps=self._stamps[kept],
        )

    @property
    def jobs(self) -> tuple[Job, ...]:
        """Those of `telemetry`, with their roles."""
        return tuple(self._jobs)

    @property
    def gpus(self) -> Mapping[Key, Gpu]:
        return self._gpus

    def silence(self) -> NDArray[np.int64]:
        """Steps since each GPU last reported a number, be it before the window. [gpus]."""
        if self.newest is None:
            return np.zeros(len(self._gpus), np.int64)
        heard: Times = self._heard.max(axis=0, initial=-np.inf)
        quiet: Rows = np.clip(np.round((self.newest - heard) / self.step), 0, _FOREVER).astype(np.int64)
        return quiet

    def heard_without(self, names: Collection[str]) -> NDArray[np.bool_]:
        """Whether each GPU's other signals were heard as late as these, so that its silence is its own. [gpus]."""
        these = np.array([name in names for name in self._signals], np.bool_)
        newest, others = (self._heard[of].max(axis=0, initial=-np.inf) for of in (these, ~these))
        late: NDArray[np.bool_] = others >= newest - 2 * self.step
        return late

    def reported(self) -> frozenset[str]:
        """The signals of which the window holds a number."""
        heard: NDArray[np.bool_] = np.any(self._heard > self._oldest(), axis=1)
        return frozenset(name for name, there in zip(self._signals, heard.tolist(), strict=True) if there)

    def coverage(self) -> float:
        """Of the readings that came within the window, the share that came in the newest step."""
        known = self._heard > self._oldest()
        if self.newest is None or not known.any():
            return 0.0
        return float((self._heard > self.newest - self.step / 2).sum() / known.sum())

    def _touch(self, columns: slice | NDArray[np.int64]) -> None:
        """Let it be known that something in these columns has changed."""
        self._stamp += 1
        self._stamps[columns] = self._stamp * 2 * self.length + np.arange(2 * self.length)[columns]

    def _oldest(self) -> float:
        return np.inf if self.newest is None else self.newest - (self.length - 0.5) * self.step

    def _columns(self, timestamps: Times) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        newest = timestamps.max(initial=0.0) if self.newest is None else self.newest
        back = np.round((newest - timestamps) / self.step).astype(np.int64)
        return self._end - 1 - back, (back >= 0) & (back < self.length)

    def _index(self) -> None:
        self._place = {name: place for place, name in enumerate(self._signals)}
        self._row = {key: row for row, key in enumerate(self._gpus)}
        self._described, self._fleet = tuple(self._signals.values()), tuple(self._gpus.values())

    def _drop_ended_jobs(self) -> None:
        live, places = np.unique(self._job, return_inverse=True)
        jobs = list(self._jobs)
        self._jobs = {jobs[index]: place for place, index in enumerate(live[live != IDLE])}
        # np.unique sorts, so IDLE, the smallest, moves every other index up by one.
        self._job = (places - int(IDLE in live)).astype(np.int32)
        self._touch(slice(None))


@njit(cache=True, nogil=True)
def _put(
    rows: Rows,
    steps: NDArray[np.int64],
    timestamps: Times,
    values: NDArray[np.float64],
    since: Times,
    plane: NDArray[np.float32],
    heard: Times,
    stamps: NDArray[np.int64],
    stamp: int,
) -> None:
    """Write samples into one signal's plane, see `Window.write`; a row or step of -1 has no place."""
    for sample in range(rows.size):
        if rows[sample] >= 0 and steps[sample] >= 0 and np.isfinite(np.float32(values[sample])):
            plane[rows[sample], steps[sample]] = np.nan
    for sample in range(rows.size):
        row, step = rows[sample], steps[sample]
        value = np.float32(values[sample])  # what it cannot hold is as good as infinite
        if row >= 0 and step >= 0 and np.isfinite(value):
            if timestamps[sample] >= since[row] and not value <= plane[row, step]:
                plane[row, step] = value
            heard[row] = max(heard[row], timestamps[sample])
            stamps[step] = stamp + step
