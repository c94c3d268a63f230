"""Recordings: Parquet, one row per (timestamp, node, gpu), signals as float columns in base units.

Label columns: `timestamp` (UTC), `node`, `gpu`, `model`, `rack`, `job` (null when idle); where there is something to
tell, `island` (of NVLink), `role` (of the GPU in its job), `driver` and `vbios` (versions), too. Every other column is
a signal and numeric; null is silence. Truth lies in a second file, so that nobody reads it by accident.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

_GPU = re.compile("[0-9]{1,9}")
LABELS = ("timestamp", "node", "gpu", "model", "rack", "job")
MORE = ("island", "role", "driver", "vbios")  # labels that may be missing

_TEXT = pa.dictionary(pa.int32(), pa.string())
_LABEL_FIELDS = [
    pa.field("timestamp", pa.timestamp("us", tz="UTC"), nullable=False),
    pa.field("node", _TEXT, nullable=False),
    pa.field("gpu", _TEXT, nullable=False),
    pa.field("model", _TEXT, nullable=False),
    pa.field("rack", _TEXT),
    pa.field("job", _TEXT),
]
TRUTH = pa.schema(
    [
        pa.field("node", pa.string(), nullable=False),
        pa.field("gpu", pa.string()),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("severity", pa.float64(), nullable=False),
        pa.field("onset", pa.string(), nullable=False),
        pa.field("start", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("end", pa.timestamp("us", tz="UTC"), nullable=False),
    ]
)


class RecordingError(ValueError):
    """A recording cannot be used; the message names the file, the place and the value."""


@dataclass(frozen=True, slots=True)
class Series:
    """One source of readings in a recording."""

    node: str
    gpu: str
    model: str
    rack: str
    island: str = ""


@dataclass(frozen=True, slots=True)
class Recording:
    """A recording in memory. Rows are in the order of time; `series` and `job` say whose they are (job -1: none).

    A job with several roles is in `jobs` once for each.
    """

    microseconds: NDArray[np.int64]  # [rows], since 1970
    sources: tuple[Series, ...]
    series: NDArray[np.int64]  # [rows] → sources
    jobs: tuple[tuple[str, str], ...]  # name and role
    job: NDArray[np.int64]  # [rows] → jobs
    signals: tuple[str, ...]
    values: NDArray[np.float32]  # [signals, rows]; NaN is silence
    releases: tuple[tuple[str, str], ...] = (("", ""),)  # driver and firmware
    release: NDArray[np.int64] | None = None  # [rows] → releases; None where nobody tells


def read(path: Path) -> Recording:
    """The whole recording, checked. Raises `RecordingError`."""
    table = _table(path)
    signals = _signals(path, table.schema)
    if table.num_rows == 0:
        raise RecordingError(f"{path} has no rows")
    node, nodes = _codes(path, table, "node")
    gpu, gpus = _codes(path, table, "gpu")
    if odd := [each for each in gpus if not _GPU.fullmatch(each)]:
        raise RecordingError(f"{path}: column 'gpu' holds {odd[0][:80]!r}, not the number of a GPU")
    if "" in nodes:
        raise RecordingError(f"{path}: column 'node' holds '', not the name of a node")
    model, models = _codes(path, table, "model")
    (rack, racks), (island, islands) = (_codes(path, table, name, nullable=True) for name in ("rack", "island"))
    pairs, first, series = np.unique(node * len(gpus) + gpu, return_index=True, return_inverse=True)
    sources = tuple(
        Series(
            nodes[pair // len(gpus)],
            gpus[pair % len(gpus)],
            models[model[row]],
            (*racks, "")[rack[row]],
            (*islands, "")[island[row]],
        )
        for pair, row in zip(pairs.tolist(), first.tolist(), strict=True)
    )
    micros = _microseconds(path, table)
    _check_time(path, micros, series, sources)
    job, jobs = _pairs(path, table, "job", "role")
    release, releases = _pairs(path, table, "driver", "vbios")
    values = np.stack([table[name].cast(pa.float32(), safe=False).to_numpy() for name in signals])
    if np.isinf(values).any():
        column, row = (int(each[0]) for each in np.nonzero(np.isinf(values)))
        held = table[signals[column]][row]
        raise RecordingError(f"{path}: column {signals[column]!r} holds {held} in row {row}, no value of a signal")
    order = np.argsort(micros, kind="stable")
    return Recording(
        micros[order],
        sources,
        series[order],
        jobs,
        job[order],
        signals,
        values[:, order],
        releases,
        release[order] if releases else None,
    )


def _table(path: Path) -> pa.Table:
    try:
        table = pq.read_table(path)
    except (OSError, pa.ArrowException) as error:
        reason = " ".join(str(error).split())
        raise RecordingError(f"{path} is not a readable Parquet file: {reason}") from error
    missing = [name for name in LABELS if name not in table.column_names]
    if missing:
        raise RecordingError(f"{path} lacks the column {missing[0]!r}; it has {', '.join(table.column_names)}")
    kind = table.schema.field("timestamp").type
    if not pa.types.is_timestamp(kind) or kind.tz is None:
        raise RecordingError(f"{path}: column 'timestamp' is {kind}, not a timestamp with a time zone")
    for name in ("timestamp", "node", "gpu", "model"):
        if table[name].null_count:
            row = int(pc.index(pc.is_null(table[name]), True).as_py())
            raise RecordingError(f"{path}: column {name!r} is null in row {row}")
    return table


def _microseconds(path: Path, table: pa.Table) -> NDArray[np.int64]:
    try:
        micros = table["timestamp"].cast(pa.timestamp("us", tz="UTC")).cast(pa.int64())
    except pa.ArrowException as error:
        raise RecordingError(f"{path}: column 'timestamp' holds no whole microseconds: {error}") from error
    result: NDArray[np.int64] = micros.to_numpy()
    return result


def _signals(path: Path, schema: pa.Schema) -> tuple[str, ...]:
    names = tuple(name for name in schema.names if name not in (*LABELS, *MORE))
    if not names:
        raise RecordingError(f"{path} has no signal column, only labels")
    for name in names:
        kind = schema.field(name).type
        if not (pa.types.is_floating(kind) or pa.types.is_integer(kind)):
            raise RecordingError(f"{path}: column {name!r} is {kind}, not a number")
    return names


def _codes(path: Path, table: pa.Table, name: str, nullable: bool = False) -> tuple[NDArray[np.int64], tuple[str, ...]]:
    # Each row's index into the distinct texts; -1 for null.
    if name not in table.column_names:
        return np.full(table.num_rows, -1), ()
    try:
        encoded = table[name].cast(pa.string()).combine_chunks().dictionary_encode()
    except pa.ArrowException as error:
        kind = table.schema.field(name).type
        raise RecordingError(f"{path}: column {name!r} is {kind}, not text") from error
    array = encoded if isinstance(encoded, pa.DictionaryArray) else encoded.chunk(0)
    indices = pc.fill_null(array.indices, -1) if nullable else array.indices
    return indices.to_numpy().astype(np.int64), tuple(array.dictionary.to_pylist())


def _pairs(path: Path, table: pa.Table, name: str, more: str) -> tuple[NDArray[np.int64], tuple[tuple[str, str], ...]]:
    # Each row's index into the distinct pairs of the two columns' texts; -1 where the first has none.
    (one, ones), (other, others) = (_codes(path, table, each, nullable=True) for each in (name, more))
    texts = (*others, "")
    pairs, of = np.unique(np.where(one < 0, -1, one * len(texts) + other % len(texts)), return_inverse=True)
    none = int(len(pairs) > 0 and pairs[0] < 0)
    return of - none, tuple((ones[pair // len(texts)], texts[pair % len(texts)]) for pair in pairs[none:].tolist())


def _check_time(path: Path, micros: NDArray[np.int64], series: NDArray[np.int64], sources: Sequence[Series]) -> None:
    order = np.argsort(series, kind="stable")
    same = series[order][1:] == series[order][:-1]
    wrong = np.flatnonzero(same & (np.diff(micros[order]) <= 0))
    if len(wrong):
        row = int(order[wrong[0] + 1])
        source = sources[series[row]]
        when = np.datetime64(int(micros[row]), "us")
        raise RecordingError(
            f"{path}: time does not advance for node {source.node!r} gpu {source.gpu!r} in row {row} ({when}Z)"
        )


class Writer:
    """Writes a recording a row group at a time, under a temporary name until `close`."""

    def __init__(self, path: Path, signals: Sequence[str], more: Sequence[str] = ()) -> None:
        """more: of MORE those labels that there are."""
        self.path = path
        self._labels = (*LABELS[1:], *more)
        self._temporary = path.with_name(f".{path.name}.part")
        fields = [pa.field(name, pa.float32()) for name in signals]
        self._schema = pa.schema([*_LABEL_FIELDS, *(pa.field(name, _TEXT) for name in more), *fields])
        path.parent.mkdir(parents=True, exist_ok=True)
        self._writer = pq.ParquetWriter(self._temporary, self._schema, compression="zstd")

    def write(
        self,
        microseconds: NDArray[np.int64],
        texts: Mapping[str, tuple[NDArray[np.int64], Sequence[str]]],
        values: NDArray[np.float32],
    ) -> None:
        """One row group. `texts`: label → (index per row, -1 for null; distinct texts). `values` [signals, rows]."""
        columns = [pa.array(microseconds, pa.timestamp("us", tz="UTC"))]
        columns += [_dictionary(*texts[name]) for name in self._labels]
        columns += [pa.array(row, pa.float32(), mask=np.isnan(row)) for row in values]
        self._writer.write_table(pa.table(columns, schema=self._schema), row_group_size=len(microseconds))

    def close(self) -> None:
        """The file gets its name."""
        self._writer.close()
        self._temporary.replace(self.path)

    def discard(self) -> None:
        """Leaves nothing behind."""
        self._writer.close()
        self._temporary.unlink(missing_ok=True)


def _dictionary(codes: NDArray[np.int64], texts: Sequence[str]) -> pa.DictionaryArray:
    indices = pa.array(codes.astype(np.int32), mask=codes < 0)
    return pa.DictionaryArray.from_arrays(indices, pa.array(list(texts), pa.string()))


def write_truth(path: Path, rows: Sequence[Mapping[str, object]]) -> None:
    """The truth file: `node, gpu, kind, severity, onset, start, end` (gpu null: the whole node)."""
    temporary = path.with_name(f".{path.name}.part")
    pq.write_table(pa.Table.from_pylist(list(rows), schema=TRUTH), temporary)
    temporary.replace(path)
