"""A recording as arrays over time and GPUs, and its truth on the same grid."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from exporters import recording
from exporters.recording import Recording, RecordingError, Series

Matrix = NDArray[np.float32]
Mask = NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Grid:
    """[steps, gpus] for each signal and for the jobs (-1: none); GPUs in the order of `sources`."""

    seconds: NDArray[np.float64]  # [steps], since the first
    start: datetime
    sources: tuple[Series, ...]
    signals: dict[str, Matrix]
    job: NDArray[np.int64]

    @property
    def step_seconds(self) -> float:
        """The shortest time between two rows."""
        return float(np.diff(self.seconds).min())


@dataclass(frozen=True, slots=True)
class Fault:
    """One line of truth, or several that are one rack's: the GPUs it befell, and when, in seconds of the grid."""

    kind: str
    severity: float
    gpus: tuple[int, ...]
    start: float
    end: float


def grid(read: Recording) -> Grid:
    """Raises `RecordingError` for fewer than two steps."""
    times, step = np.unique(read.microseconds, return_inverse=True)
    if len(times) < 2:
        raise RecordingError("a recording of one step has nothing to look at over time")
    order = sorted(range(len(read.sources)), key=lambda each: _natural(read.sources[each]))
    column = np.empty(len(order), np.int64)
    column[order] = np.arange(len(order))
    where = (step, column[read.series])
    job = np.full((len(times), len(order)), -1)
    job[where] = read.job
    signals = {}
    for name, values in zip(read.signals, read.values, strict=True):
        signals[name] = np.full(job.shape, np.nan, np.float32)
        signals[name][where] = values
    start = datetime.fromisoformat(f"{np.datetime64(int(times[0]), 'us')}+00:00")
    return Grid((times - times[0]) / 1e6, start, tuple(read.sources[each] for each in order), signals, job)


def _natural(source: Series) -> tuple[str, int]:
    return source.node, int(source.gpu)


def faults(path: Path, on: Grid) -> list[Fault]:
    """The truth beside a recording. Raises `RecordingError`."""
    try:
        rows = pq.read_table(path).to_pylist()
        found = list(_faults(rows, on))
    except (OSError, KeyError, pa.ArrowException) as error:
        raise RecordingError(f"{path} is no truth file: {error}") from error
    return sorted(found, key=lambda each: each.start)


def _faults(rows: Sequence[dict[str, object]], on: Grid) -> Iterator[Fault]:
    # A rack's fault is told once for each of its nodes.
    merged: dict[tuple[object, ...], list[int]] = {}
    for row in rows:
        alone = row["gpu"] is not None or row["kind"] != "hot_inlet"
        key = (row["kind"], row["severity"], row["start"], row["end"], (row["node"], row["gpu"]) if alone else None)
        merged.setdefault(key, []).extend(
            place
            for place, source in enumerate(on.sources)
            if source.node == row["node"] and row["gpu"] in (None, source.gpu)
        )
    for (kind, severity, start, end, _), gpus in merged.items():
        assert isinstance(start, datetime)
        assert isinstance(end, datetime)
        since = (start - on.start).total_seconds(), (end - on.start).total_seconds()
        yield Fault(str(kind), float(str(severity)), tuple(gpus), *since)


def read(path: Path) -> Grid:
    """The recording at `path` as a grid. Raises `RecordingError`."""
    return grid(recording.read(path))
