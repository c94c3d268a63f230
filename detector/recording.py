"""A recording (Parquet, one row per timestamp, node and gpu) → telemetry."""

from __future__ import annotations

from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from detector import anew
from detector.signals import Signals
from detector.telemetry import IDLE, UNKNOWN, Gpu, Telemetry

_LABELS = frozenset(("timestamp", "node", "gpu", "model", "rack", "island", "job", "role", "driver", "vbios"))
_JITTER = 0.05  # of a step
_GAPS = 2  # times as long as what was recorded, all in all


class RecordingError(ValueError):
    """A recording cannot be used; the message names the file and the reason."""


def read(path: Path, signals: Signals) -> Telemetry:
    """Read a whole recording; any numeric column beside the labels is a signal. Raises RecordingError."""
    try:
        table = pq.read_table(path)
    except FileNotFoundError as error:
        raise RecordingError(f"{path} does not exist") from error
    except (OSError, pa.ArrowException) as error:
        raise RecordingError(f"{path} is not a readable Parquet file: {error}") from error
    for column in ("timestamp", "node", "gpu"):
        if column not in table.column_names:
            raise RecordingError(f"{path} has no column {column!r}; it has {', '.join(table.column_names)}")
    if not pa.types.is_timestamp(table.schema.field("timestamp").type):
        raise RecordingError(f"{path}: column 'timestamp' is {table.schema.field('timestamp').type}, not a timestamp")
    if table.num_rows == 0:
        raise RecordingError(f"{path} has no rows")
    for column in ("timestamp", "node", "gpu"):
        if table[column].null_count:
            raise RecordingError(f"{path}: column {column!r} is null in {table[column].null_count} rows")
    timestamps, step = _grid(path, table)
    node, gpu = (_strings(table, name) for name in ("node", "gpu"))
    keys, first, of = np.unique(np.char.add(np.char.add(node, "\0"), gpu), return_index=True, return_inverse=True)
    stands = [_strings(table, name)[first].tolist() for name in ("model", "rack", "island")]
    gpus = tuple(Gpu(str(node[row]), str(gpu[row]), "", *where) for row, *where in zip(first, *stands, strict=True))
    if (twice := _repeated(of * len(timestamps) + step)) is not None:
        at = datetime.fromtimestamp(timestamps[step[twice]], UTC)
        raise RecordingError(f"{path} holds GPU {gpu[twice]} of {node[twice]} at {at:%Y-%m-%dT%H:%M:%SZ} twice")
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
    (names, name_of), (roles, role_of) = (
        np.unique(_strings(table, label), return_inverse=True) for label in ("job", "role")
    )
    ranks, job_of = np.unique(name_of * len(roles) + role_of, return_inverse=True)
    jobs = names[ranks // len(roles)]
    job[of, step] = np.where(jobs[job_of] == "", IDLE, job_of)
    described = tuple(signals.describe(name) for name in columns)
    telemetry = Telemetry(described, gpus, timestamps, values, job, tuple(str(name) for name in jobs))
    if {"driver", "vbios"}.isdisjoint(table.column_names):
        return telemetry
    told = np.char.add(np.char.add(_strings(table, "driver"), " "), _strings(table, "vbios"))
    names, name_of = np.unique(told, return_inverse=True)
    software = np.full_like(job, UNKNOWN)
    software[of, step] = np.where(names[name_of] == " ", UNKNOWN, name_of)
    return anew.named(replace(telemetry, software=software, releases=tuple(str(name) for name in names)))


def _grid(path: Path, table: pa.Table) -> tuple[NDArray[np.float64], NDArray[np.int64]]:
    """The recording's regular grid, Unix seconds, and each row's place on it; times that nobody reported are on it."""
    nanoseconds = pc.cast(table["timestamp"], pa.timestamp("ns", tz=table.schema.field("timestamp").type.tz))
    distinct, row = np.unique(nanoseconds.to_numpy().astype(np.int64), return_inverse=True)
    if len(distinct) == 1:
        return distinct / 1e9, row
    apart = np.diff(distinct)
    step = float(np.sort(apart)[(len(apart) - 1) // 2])
    uneven = np.abs(apart / step - np.round(apart / step)) > _JITTER
    if uneven.any():
        seconds = apart[uneven.argmax()] / 1e9
        raise RecordingError(
            f"{path}: times are not on a regular grid: {seconds:g} s lie between two, mostly {step / 1e9:g} s"
        )
    place = np.concatenate([[0], np.cumsum(np.round(apart / step).astype(np.int64))])
    if place[-1] > _GAPS * len(distinct):
        spanned = f"{len(distinct)} of the {place[-1] + 1} steps that it spans"
        raise RecordingError(
            f"{path} holds only {spanned}: make several recordings of it, cut where nothing was recorded"
        )
    timestamps = distinct[0] / 1e9 + step / 1e9 * np.arange(place[-1] + 1)
    timestamps[place] = distinct / 1e9
    return timestamps, place[row]


def _repeated(keys: NDArray[np.int64]) -> int | None:
    """The row of a key that was there before."""
    order = np.argsort(keys, kind="stable")
    same = keys[order[1:]] == keys[order[:-1]]
    return int(order[1:][same].min()) if same.any() else None


def _strings(table: pa.Table, name: str) -> NDArray[np.str_]:
    """A label column as strings; absent and null are the empty string."""
    if name not in table.column_names:
        return np.full(table.num_rows, "", dtype="U1")
    return np.array(pc.fill_null(pc.cast(table[name], pa.string()), "").to_pylist(), dtype=np.str_)
