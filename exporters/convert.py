"""Real server telemetry → recordings, so that it can be replayed and scored like a fleet's.

ASD (Li et al., KDD 2021) and SMD (Su et al., KDD 2019): one archive per server, metrics scaled to [0, 1] and nameless.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from exporters import recording
from exporters.recording import RecordingError

START = datetime(2020, 1, 1, tzinfo=UTC)


@dataclass(frozen=True, slots=True)
class Dataset:
    """How a data set is laid out. `load` gives [time, metrics]."""

    folder: str
    step_seconds: int
    load: Callable[[Mapping[str, NDArray[np.generic]], str], NDArray[np.float32]]


def _asd(archive: Mapping[str, NDArray[np.generic]], part: str) -> NDArray[np.float32]:
    return archive[part].astype(np.float32)


def _smd(archive: Mapping[str, NDArray[np.generic]], part: str) -> NDArray[np.float32]:
    return (archive[f"{part}_micro"].T.astype(np.float64) / 1e6).astype(np.float32)


DATASETS = {"asd": Dataset("npz", 300, _asd), "smd": Dataset("machines", 60, _smd)}


def convert(name: str, source: Path, out: Path, part: str) -> tuple[int, int]:
    """Writes `out`, and its truth beside it for the test part. Returns (servers, rows). Raises `RecordingError`."""
    dataset = DATASETS[name]
    files = sorted((source / dataset.folder).glob("*.npz"), key=_natural)
    if not files:
        raise RecordingError(f"{source / dataset.folder} holds no .npz files")
    servers = [_server(dataset, file, part) for file in files]
    metrics = servers[0][0].shape[1]
    writer = recording.Writer(out, [f"metric_{index:02d}" for index in range(metrics)])
    try:
        for index, (values, _) in enumerate(servers):
            _write(writer, index, values, dataset.step_seconds)
        writer.close()
    except BaseException:
        writer.discard()
        raise
    if part == "test":
        truth = [
            row for index, (_, labels) in enumerate(servers) for row in _truth(index, labels, dataset.step_seconds)
        ]
        recording.write_truth(out.with_name(f"{out.stem}.truth.parquet"), truth)
    return len(servers), sum(len(values) for values, _ in servers)


def _server(dataset: Dataset, file: Path, part: str) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    try:
        with np.load(file) as archive:
            values = dataset.load(archive, part)
            labels = archive["test_label"] > 0 if part == "test" else np.zeros(len(values), np.bool_)
    except (OSError, KeyError, ValueError) as error:
        raise RecordingError(f"{file} is not an archive of this data set: {error}") from error
    return values, labels


def _write(writer: recording.Writer, index: int, values: NDArray[np.float32], step_seconds: int) -> None:
    rows = len(values)
    same = np.zeros(rows, np.int64)
    micros = int(START.timestamp() * 1e6) + np.arange(rows) * step_seconds * 1_000_000
    texts = {
        "node": (same, [_name(index)]),
        "gpu": (same, ["0"]),
        "model": (same, ["server"]),
        "rack": (same - 1, []),
        "job": (same - 1, []),
    }
    writer.write(micros, texts, np.ascontiguousarray(values.T))


def _truth(index: int, labels: NDArray[np.bool_], step_seconds: int) -> list[dict[str, object]]:
    # A run of labelled rows lasts from its first row to the row after its last.
    edges = np.flatnonzero(np.diff(np.concatenate([[False], labels, [False]]).astype(np.int8)))
    return [
        {
            "node": _name(index),
            "gpu": "0",
            "kind": "labelled",
            "severity": 1.0,
            "onset": "step",
            "start": START + timedelta(seconds=int(begin) * step_seconds),
            "end": START + timedelta(seconds=int(end) * step_seconds),
        }
        for begin, end in edges.reshape(-1, 2)
    ]


def _name(index: int) -> str:
    return f"server-{index + 1:02d}"


def _natural(file: Path) -> list[int]:
    return [int(digits) for digits in re.findall(r"\d+", file.stem)]
