"""The recording format: what goes in comes out, and what is wrong is named."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from exporters import recording
from exporters.recording import RecordingError

SECOND = 1_000_000
START = 1_767_225_600 * SECOND


def table(**changed: pa.Array) -> pa.Table:
    """Two GPUs, three steps; a column is replaced, or dropped when given as None."""
    columns = {
        "timestamp": pa.array([START + step * 5 * SECOND for step in (0, 0, 1, 1, 2, 2)], pa.timestamp("us", "UTC")),
        "node": pa.array(["node-01"] * 6),
        "gpu": pa.array(["0", "1"] * 3),
        "model": pa.array(["NVIDIA H100 80GB HBM3"] * 6),
        "rack": pa.array(["rack-1"] * 6),
        "job": pa.array([None, "a", None, "a", "b", "a"]),
        "temperature_celsius": pa.array([30.0, 60.0, None, 61.0, 32.0, 62.0], pa.float32()),
        "power_watts": pa.array([70.0, 600.0, 71.0, 601.0, 72.0, 602.0], pa.float32()),
    } | changed
    return pa.table({name: column for name, column in columns.items() if column is not None})


def written(folder: Path, made: pa.Table) -> Path:
    path = folder / "recording.parquet"
    pq.write_table(made, path)
    return path


def test_a_recording_reads_as_it_was_written(tmp_path: Path) -> None:
    read = recording.read(written(tmp_path, table()))
    assert [(each.node, each.gpu, each.rack) for each in read.sources] == [
        ("node-01", "0", "rack-1"),
        ("node-01", "1", "rack-1"),
    ]
    assert read.signals == ("temperature_celsius", "power_watts")
    assert read.series.tolist() == [0, 1, 0, 1, 0, 1]
    assert [read.jobs[code][0] if code >= 0 else None for code in read.job] == [None, "a", None, "a", "b", "a"]
    np.testing.assert_array_equal(read.values[0], np.array([30, 60, np.nan, 61, 32, 62], np.float32))


def test_the_writer_writes_what_the_reader_reads(tmp_path: Path) -> None:
    path = tmp_path / "out" / "recording.parquet"
    writer = recording.Writer(path, ["power_watts", "metric_00"])
    texts = {
        "node": (np.array([0, 1]), ["node-01", "node-02"]),
        "gpu": (np.array([0, 0]), ["0"]),
        "model": (np.array([0, 0]), ["server"]),
        "rack": (np.array([-1, -1]), []),
        "job": (np.array([-1, 0]), ["a"]),
    }
    values = np.array([[1.5, np.nan], [0.25, 0.5]], np.float32)
    for step in range(3):
        writer.write(np.full(2, START + step * SECOND), texts, values)
    assert not path.exists()
    writer.close()
    assert [each.name for each in path.parent.iterdir()] == ["recording.parquet"]
    assert pq.ParquetFile(path).num_row_groups == 3
    assert pq.read_table(path)["power_watts"].null_count == 3
    read = recording.read(path)
    assert read.microseconds.tolist() == [START + step * SECOND for step in (0, 0, 1, 1, 2, 2)]
    assert read.job.tolist() == [-1, 0] * 3
    np.testing.assert_array_equal(read.values[:, 2:4], values)


def test_rows_may_come_gpu_by_gpu(tmp_path: Path) -> None:
    read = recording.read(written(tmp_path, table().sort_by([("gpu", "ascending"), ("timestamp", "ascending")])))
    assert np.all(np.diff(read.microseconds) >= 0)
    assert read.values[1, read.series == 1].tolist() == [600, 601, 602]


TIMES = [0, 0, 2, 1, 1, 2]


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"node": None}, "lacks the column 'node'"),
        ({"job": None}, "lacks the column 'job'"),
        ({"timestamp": pa.array([1.0] * 6)}, "'timestamp' is double"),
        ({"timestamp": pa.array([0] * 6, pa.timestamp("us"))}, r"'timestamp' is timestamp\[us\], not"),
        ({"node": pa.array(["a", "a", None, "a", "a", "a"])}, "'node' is null in row 2"),
        ({"gpu": pa.array(["0", "x"] * 3)}, "'gpu' holds 'x'"),
        ({"gpu": pa.array(["9" * 5000, "1"] * 3)}, "'gpu' holds '999"),
        ({"node": pa.array([""] * 6)}, "'node' holds ''"),
        ({"model": pa.array([{"a": 1}] * 6)}, "'model' is struct<a: int64>, not text"),
        ({"timestamp": pa.array([1, 2, 3, 4, 5, 6], pa.timestamp("ns", "UTC"))}, "no whole microseconds"),
        ({"power_watts": pa.array([1, 2, float("inf"), 4, 5, 6])}, "'power_watts' holds inf in row 2"),
        ({"power_watts": pa.array([1, 2, 3, -1e300, 5, 6])}, r"'power_watts' holds -1e\+300 in row 3"),
        ({"comment": pa.array(["hot"] * 6)}, "'comment' is string, not a number"),
        ({"temperature_celsius": None, "power_watts": None}, "no signal column"),
        (
            {"timestamp": pa.array([START + step * SECOND for step in TIMES], pa.timestamp("us", "UTC"))},
            "time does not advance for node 'node-01' gpu '0' in row 4 .2026-01-01T00:00:01",
        ),
    ],
)
def test_what_is_malformed_is_named(tmp_path: Path, changed: dict[str, pa.Array], said: str) -> None:
    path = written(tmp_path, table(**changed))
    with pytest.raises(RecordingError, match=said) as caught:
        recording.read(path)
    assert str(path) in str(caught.value)


def test_counters_of_any_width_are_read(tmp_path: Path) -> None:
    made = table(ecc_corrected_total=pa.array([2**24 + 1] * 6, pa.int64()), rack=pa.array([None] * 6, pa.string()))
    read = recording.read(written(tmp_path, made))
    assert read.values[2].tolist() == [2**24] * 6
    assert {each.rack for each in read.sources} == {""}


def test_no_rows_is_no_recording(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match="has no rows"):
        recording.read(written(tmp_path, table().slice(0, 0)))


def test_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = written(tmp_path, table())
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(RecordingError, match="not a readable Parquet file"):
        recording.read(path)


def test_a_broken_off_recording_leaves_nothing(tmp_path: Path) -> None:
    recording.Writer(tmp_path / "recording.parquet", ["power_watts"]).discard()
    assert list(tmp_path.iterdir()) == []


def test_roles_and_islands_may_be_told(tmp_path: Path) -> None:
    count = table().num_rows
    more = table().append_column("role", pa.array(["r", None] * (count // 2)))
    read = recording.read(written(tmp_path, more.append_column("island", pa.array(["i"] * count))))
    assert {each.island for each in read.sources} == {"i"}
    assert [read.jobs[code] if code >= 0 else None for code in read.job] == [
        None if job is None else (job, ("r", "")[row % 2]) for row, job in enumerate([None, "a", None, "a", "b", "a"])
    ]
