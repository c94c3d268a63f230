"""A recording (Parquet, one row per timestamp, node and gpu) → telemetry."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from detector.signals import Signals
from detector.telemetry import IDLE, Gpu, Telemetry

_LABELS = frozenset(("timestamp", "node", "gpu", "model", "rack", "job"))


class RecordingError(ValueError):
    """A recording cannot be used; the message names the file and the reason."""


def read(path: Path, signals: Signals) -> Telemetry:
    """Read a whole recording; any numeric column beside the labels is a signal. Raises RecordingError."""
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        raise RecordingError(f"{path} is not a readable Parquet file: {error}") from error
    for column in ("timestamp", "node", "gpu"):
        if column not in table.column_names:
            raise RecordingError(f"{path} has no column {column!r}; it has {', '.join(table.column_names)}")
    if not pa.types.is_timestamp(table.schema.field("timestamp").type):
        raise RecordingError(f"{path}: column 'timestamp' is {table.schema.field('timestamp').type}, not a timestamp")
    if table.num_rows == 0:
        raise RecordingError(f"{path} has no rows")
    timestamps, step = _seconds(table)
    node, gpu = (_strings(table, name) for name in ("node", "gpu"))
    keys, first, of = np.unique(np.char.add(np.char.add(node, "\0"), gpu), return_index=True, return_inverse=True)
    model, rack = (_strings(table, name)[first] for name in ("model", "rack"))
    gpus = tuple(
        Gpu(str(node[row]), str(gpu[row]), "", str(m), str(r)) for row, m, r in zip(first, model, rack, strict=True)
    )
    columns = [
        field.name
        for field in table.schema
        if field.name not in signals.ignore | _LABELS
        and (pa.types.is_floating(field.type) or pa.types.is_integer(field.type))
    ]
    if not columns:
        raise RecordingError(f"{path} has no numeric column, so no signal")
    values = np.full((len(columns), len(keys), len(timestamps)), np.nan, np.float32)
    for row, name in enumerate(columns):
        values[row, of, step] = table[name].to_numpy().astype(np.float32)
    job = np.full((len(keys), len(timestamps)), IDLE, np.int32)
    jobs, job_of = np.unique(_strings(table, "job"), return_inverse=True)
    job[of, step] = np.where(jobs[job_of] == "", IDLE, job_of)
    described = tuple(signals.describe(name) for name in columns)
    return Telemetry(described, gpus, timestamps, values, job, tuple(str(name) for name in jobs))


def _seconds(
    table: pa.Table,
) -> tuple[np.ndarray[tuple[int], np.dtype[np.float64]], np.ndarray[tuple[int], np.dtype[np.int64]]]:
    """The recording's time grid, and each row's place on it."""
    nanoseconds = pc.cast(table["timestamp"], pa.timestamp("ns", tz=table.schema.field("timestamp").type.tz))
    distinct, place = np.unique(nanoseconds.to_numpy().astype(np.int64), return_inverse=True)
    return distinct / 1e9, place


def _strings(table: pa.Table, name: str) -> np.ndarray[tuple[int], np.dtype[np.str_]]:
    """A label column as strings; absent and null are the empty string."""
    if name not in table.column_names:
        return np.full(table.num_rows, "", dtype="U1")
    return np.array(pc.fill_null(pc.cast(table[name], pa.string()), "").to_pylist(), dtype=np.str_)
