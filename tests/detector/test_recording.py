"""What a recording may look like, and what is said of one that is none."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from detector import recording, signals
from detector.recording import RecordingError
from detector.telemetry import IDLE, Telemetry

START = datetime(2026, 1, 1, tzinfo=UTC)


def read(path: Path, rows: list[tuple[object, ...]], names: str = "timestamp node gpu load") -> Telemetry:
    """Rows whose first value is a number of seconds, written and read back."""
    columns = dict(zip(names.split(), map(list, zip(*rows, strict=True)), strict=True))
    times = [None if at is None else START + timedelta(seconds=at) for at in columns["timestamp"]]
    columns["timestamp"] = pa.array(times, pa.timestamp("us", tz="UTC"))
    pq.write_table(pa.table(columns), path / "recording.parquet")
    return recording.read(path / "recording.parquet", signals.load())


def test_rows_in_any_order_become_a_grid_and_what_nobody_reported_is_absent(tmp_path: Path) -> None:
    rows = [(30, "b", "0", 5.0, None), (0, "a", "0", 1.0, "x"), (5, "a", "0", None, "x"), (0, "b", "0", 2.0, None)]
    rows += [(5, "b", "0", 3.0, None), (10, "a", "0", float("inf"), None), (15, "a", "0", 9.0, None)]
    found = read(tmp_path, [*rows, (30, "a", "0", 4.0, None)], "timestamp node gpu load job")
    assert [(gpu.node, gpu.gpu) for gpu in found.gpus] == [("a", "0"), ("b", "0")]
    np.testing.assert_array_equal(found.timestamps, START.timestamp() + 5.0 * np.arange(7))
    nan = np.nan
    expected = [[1, nan, np.inf, 9, nan, nan, 4], [2, 3, nan, nan, nan, nan, 5]]
    np.testing.assert_array_equal(found.values[0], np.array(expected, np.float32))
    assert [found.jobs[job] if job != IDLE else "" for job in found.job[0]] == ["x", "x", *[""] * 5]
    assert not found.signals[0].alone, "a signal that nobody has described"


def test_times_may_tremble_a_little(tmp_path: Path) -> None:
    found = read(tmp_path, [(0, "a", "0", 1.0), (5.01, "a", "0", 2.0), (9.99, "a", "0", 3.0), (19.99, "a", "0", 4.0)])
    np.testing.assert_array_equal(found.values[0, 0], [1, 2, 3, np.nan, 4])
    assert len(set(found.timestamps)) == 5


@pytest.mark.parametrize(
    ("rows", "said"),
    [
        ([(0, "a", "0", 1.0), (0, "a", "1", 1.0), (0, "a", "0", 2.0)], "GPU 0 of a at 2026-01-01T00:00:00Z twice"),
        ([(0, "a", "0", 1.0), (None, "a", "0", 1.0)], "column 'timestamp' is null in 1 rows"),
        ([(0, "a", "0", 1.0), (5, None, "0", 1.0)], "column 'node' is null in 1 rows"),
        ([(0, "a", "0", 1.0), (5, "a", "0", 1.0), (8, "b", "0", 1.0)], "5 s lie between two, mostly 3 s"),
        ([(0, "a", "0", 1.0), (5, "a", "0", 1.0), (9000, "a", "0", 1.0)], "only 3 of the 1801 steps that it spans"),
        ([(0, "a", "0", "x")], "has no numeric column, so no signal"),
    ],
)
def test_what_is_no_recording_is_said_in_a_sentence(tmp_path: Path, rows: list[tuple[object, ...]], said: str) -> None:
    with pytest.raises(RecordingError) as error:
        read(tmp_path, rows)
    assert said in str(error.value)
    assert "recording.parquet" in str(error.value)


def test_columns_that_are_missing_are_named(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="has no column 'gpu'; it has timestamp, node, load"):
        read(tmp_path, [(0, "a", 1.0)], "timestamp node load")
    pq.write_table(pa.table({"timestamp": [1], "node": ["a"], "gpu": ["0"], "load": [1.0]}), tmp_path / "a.parquet")
    with pytest.raises(RecordingError, match="column 'timestamp' is int64, not a timestamp"):
        recording.read(tmp_path / "a.parquet", signals.load())
    with pytest.raises(RecordingError, match=r"none\.parquet does not exist"):
        recording.read(tmp_path / "none.parquet", signals.load())


def test_islands_and_roles_may_be_told_and_a_role_parts_the_ranks_of_a_job(tmp_path: Path) -> None:
    nodes = (("prefill", "island-1", "prefill"), ("decode", "island-1", "decode"), ("plain", None, None))
    rows = [(at, node, "0", island, "x", role, 1.0) for at in (0, 5) for node, island, role in nodes]
    found = read(tmp_path, [*rows], "timestamp node gpu island job role load")
    assert [gpu.island for gpu in found.gpus] == ["island-1", "", "island-1"]
    assert found.jobs == ("x", "x", "x")
    assert len(set(found.job[:, 0].tolist())) == 3
    assert found.of_job.tolist() == [[0, 0]] * 3
