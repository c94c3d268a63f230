"""Ground truth → events. Only the measures see it."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from detector.evaluation.events import Event, Mask
from detector.recording import RecordingError
from detector.telemetry import Telemetry

_COLUMNS = ("node", "gpu", "kind", "severity", "start", "end")


@dataclass(frozen=True, slots=True)
class Row:
    """One row of a truth file; times in Unix seconds, gpu None for the whole node."""

    node: str
    gpu: str | None
    kind: str
    severity: float
    start: float
    end: float
    creeping: bool = False

    def later(self, seconds: float) -> Row:
        return replace(self, start=self.start + seconds, end=self.end + seconds)


def read(path: Path) -> list[Row]:
    """All rows. Raises RecordingError."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise RecordingError(f"{path} is not a readable Parquet file: {error}") from error
    missing = [name for name in _COLUMNS if name not in table.column_names]
    if missing:
        raise RecordingError(f"{path} has no column {missing[0]!r}; it has {', '.join(table.column_names)}")
    return [
        Row(
            row["node"],
            row["gpu"],
            row["kind"],
            float(row["severity"]),
            _seconds(row["start"]),
            _seconds(row["end"]),
            row.get("onset") == "creeping",
        )
        for row in table.to_pylist()
    ]


def events(rows: Sequence[Row], telemetry: Telemetry, split: int, recovery: int) -> list[Event]:
    """The events that reach, with `recovery` steps after them, into the steps from `split` on, counted from there.

    One begun before has a start below 0, one that is over then an end below it.

    Rows that tell of the same thing at the same time (a rack's fault, told for each node) are one event.
    """
    by_fault: dict[Row, set[int]] = {}
    for row in rows:
        mine = {
            index
            for index, gpu in enumerate(telemetry.gpus)
            if gpu.node == row.node and (row.gpu is None or gpu.gpu == row.gpu)
        }
        by_fault.setdefault(replace(row, node="") if row.gpu is None else row, set()).update(mine)
    found = []
    for row, entities in by_fault.items():
        # A sample holds what was read at its time: the first after the start is the first that can show anything.
        first, end = np.searchsorted(telemetry.timestamps, [row.start, row.end], side="right") - split
        if entities and end > first and end + recovery > 0:
            found.append(Event(tuple(sorted(entities)), int(first), int(end), row.kind, row.severity, row.creeping))
    return sorted(found, key=lambda event: (event.start, event.entities))


def mask(events: Sequence[Event], entities: int, steps: int, after: int) -> Mask:
    """Which samples are anomalous, and `after` steps of recovery from it; bool [entities, steps]."""
    found = np.zeros((entities, steps), np.bool_)
    for event in events:
        found[list(event.entities), max(event.start, 0) : max(event.end + after, 0)] = True
    return found


def interpretations(folder: Path, signals: Sequence[str]) -> dict[int, list[tuple[int, int, tuple[str, ...]]]]:
    """Which signals are to blame, by entity: (first step, last step, signals). Lines are `first-last:signal,signal`."""
    files = sorted(folder.glob("*.txt"), key=lambda path: [int(digits) for digits in re.findall(r"\d+", path.stem)])
    found: dict[int, list[tuple[int, int, tuple[str, ...]]]] = {}
    for entity, file in enumerate(files):
        for line in file.read_text().split():
            span, _, blamed = line.partition(":")
            first, _, last = span.partition("-")
            names = tuple(signals[int(number) - 1] for number in blamed.split(",") if number)
            found.setdefault(entity, []).append((int(first), int(last), names))
    return found


def _seconds(value: object) -> float:
    if not isinstance(value, datetime):
        raise RecordingError(f"truth: {value!r} is not a time")
    return value.replace(tzinfo=value.tzinfo or UTC).timestamp()
