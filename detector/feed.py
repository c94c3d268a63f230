"""What Prometheus pushes by remote write, instead of being asked for it: the newest samples of every series.

Reading a fleet's series by queries is most of what a large fleet's tick costs Prometheus. Only series that are asked
for by their bare name can be answered from here, and only while nothing was lost: else the answer is None, and
Prometheus is asked.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable

import numpy as np
from numba import njit
from numpy.typing import NDArray

from detector.matrix import Labels, Matrix
from detector.remote_write import decode, labels_of

LOOKBACK = 300.0  # seconds, Prometheus' default
_KEPT = 24  # newest samples of a series
_NEVER = np.iinfo(np.int64).min
_LATE_STEPS = 2  # what comes later than that, or after such a silence, may not be all there is
_STRANGERS = 100_000  # series nobody asks for that are told apart without reading their labels
_ENDED = np.uint64(0x7FF0000000000002)  # Prometheus' staleness marker

Times = NDArray[np.int64]  # Unix milliseconds


class Feed:
    """The pushed series of the given names. lookback: for how long a sample stands, seconds, as in Prometheus."""

    def __init__(
        self, names: Iterable[str], step: float, lookback: float = LOOKBACK, clock: Callable[[], float] = time.time
    ) -> None:
        self._clock, self._step, self._lookback = clock, step, lookback
        self._lock = threading.Lock()
        self._since = np.inf  # Unix seconds: from then on nothing is known to be missing
        self._heard = -np.inf
        self._strangers: set[bytes] = set()
        self._rows: dict[bytes, int] = {}
        self._families: dict[str, dict[int, Labels]] = {name: {} for name in names}
        self._answers: dict[str, tuple[tuple[Labels, ...], NDArray[np.int64]]] = {}
        self._free: list[int] = []
        self._times = np.empty((0, _KEPT), np.int64)
        self._values = np.empty((0, _KEPT))
        self._next = np.empty(0, np.int64)

    def take(self, body: bytes) -> None:
        """Take in one message. Raises PushError, and then has taken nothing."""
        push = decode(body)
        known = {field: labels_of(field) for field in push.labels if not self._knows(field)}
        with self._lock:
            now = self._clock()
            behind = now - float(push.timestamps.max(initial=0)) / 1000 if len(push.timestamps) else 0.0
            if max(now - self._heard, behind) > _LATE_STEPS * self._step:
                self._since = now
            self._heard = now
            rows = np.array([self._row(field, known) for field in push.labels], np.int64)
            _append(rows[push.series], push.timestamps, push.values, self._times, self._values, self._next)

    def range(self, name: str, start: float, end: float, step: float) -> Matrix | None:
        """What Prometheus would answer at start, start + step, … end (Unix seconds); None when that is not certain."""
        with self._lock:
            silent = self._clock() - self._heard > _LATE_STEPS * self._step
            if silent or start - self._lookback < self._since or not self._families.get(name):
                return None
            labels, rows = self._answers.get(name) or self._answer(name)
            at = np.round(1000 * (start + step * np.arange(round((end - start) / step) + 1))).astype(np.int64)
            found, alive, covered = _look(rows, self._times, self._values, at, int(1000 * self._lookback))
            if not covered:
                return None
            if not alive.all():
                self._drop(name, rows[~alive])
                labels, rows = self._answer(name)
                found = found[alive]
        series, steps = np.nonzero(~np.isnan(found))
        return Matrix(labels, series.astype(np.int32), at[steps] / 1000, found[series, steps])

    def _knows(self, field: bytes) -> bool:
        return field in self._rows or field in self._strangers

    def _row(self, field: bytes, known: dict[bytes, dict[str, str]]) -> int:
        """Where a series stands, -1 if nobody asks for it."""
        row = self._rows.get(field, -1)
        if row >= 0 or field in self._strangers:
            return row
        labels = known.get(field) or labels_of(field)
        name = labels.get("__name__", "")
        if name not in self._families:
            if len(self._strangers) >= _STRANGERS:
                self._strangers.clear()
            self._strangers.add(field)
            return -1
        if not self._free:
            self._grow()
        row = self._rows[field] = self._free.pop()
        self._times[row], self._next[row] = _NEVER, 0
        self._families[name][row] = labels
        self._answers.pop(name, None)
        return row

    def _grow(self) -> None:
        count = len(self._next)
        more = max(1024, count)
        self._times = np.concatenate([self._times, np.full((more, _KEPT), _NEVER)])
        self._values = np.concatenate([self._values, np.full((more, _KEPT), np.nan)])
        self._next = np.concatenate([self._next, np.zeros(more, np.int64)])
        self._free = list(range(count + more - 1, count - 1, -1))

    def _answer(self, name: str) -> tuple[tuple[Labels, ...], NDArray[np.int64]]:
        family = self._families[name]
        answer = self._answers[name] = tuple(family.values()), np.array(list(family), np.int64)
        return answer

    def _drop(self, name: str, rows: NDArray[np.int64]) -> None:
        """Forget series that have ended: what is no longer there must not be found by its labels."""
        gone = set(rows.tolist())
        self._families[name] = {row: labels for row, labels in self._families[name].items() if row not in gone}
        self._rows = {field: row for field, row in self._rows.items() if row not in gone}
        self._free += gone


@njit(cache=True, nogil=True)
def _append(
    rows: NDArray[np.int64],
    timestamps: Times,
    samples: NDArray[np.float64],
    times: Times,
    values: NDArray[np.float64],
    places: NDArray[np.int64],
) -> None:
    """Put each sample in its row over the oldest one there, in place."""
    for sample in range(rows.size):
        row = rows[sample]
        if row >= 0:
            times[row, places[row]] = timestamps[sample]
            values[row, places[row]] = samples[sample]
            places[row] = (places[row] + 1) % times.shape[1]


@njit(cache=True, nogil=True)
def _look(
    rows: NDArray[np.int64], times: Times, values: NDArray[np.float64], at: Times, lookback: int
) -> tuple[NDArray[np.float64], NDArray[np.bool_], bool]:
    """Of each row the value that stands at each time, NaN for none; whether any may yet; whether enough is kept."""
    found, alive = np.full((rows.size, at.size), np.nan), np.zeros(rows.size, np.bool_)
    newest = np.empty(at.size, np.int64)
    for series in range(rows.size):
        row = rows[series]
        oldest, last = times[row, 0], 0
        newest[:] = -1
        for place in range(times.shape[1]):
            time_ = times[row, place]
            oldest = min(oldest, time_)
            if time_ > times[row, last]:
                last = place
            for step in range(at.size):
                if at[step] - lookback < time_ <= at[step] and (newest[step] < 0 or time_ >= times[row, newest[step]]):
                    newest[step] = place
        if oldest != _NEVER and oldest > at[0]:
            return found, alive, False
        for step in range(at.size):
            if newest[step] >= 0:
                found[series, step] = values[row, newest[step]]
        ended = values[row, last : last + 1].view(np.uint64)[0] == _ENDED and times[row, last] <= at[0]
        alive[series] = times[row, last] > at[0] - lookback and not ended
    return found, alive, True
