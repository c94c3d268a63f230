"""Real data sets as recordings. They are not in the repository: STETHOS_DATA says where they lie."""

import os
from datetime import timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from exporters import convert, recording
from exporters.recording import RecordingError

DATA = Path(os.environ.get("STETHOS_DATA", Path(__file__).parents[2] / ".." / "shared" / "data"))
FOLDERS = {"asd": "asd", "smd": "smd19"}
SHAPES = {"asd": (12, 19, 300), "smd": (19, 38, 60)}


def source(name: str) -> Path:
    folder = DATA / FOLDERS[name]
    if not folder.is_dir():
        pytest.skip(f"the data set is not at {folder}; set STETHOS_DATA")
    return folder


@pytest.mark.parametrize("name", ["asd", "smd"])
def test_a_test_part_has_its_values_and_its_labels(name: str, tmp_path: Path) -> None:
    servers, metrics, step = SHAPES[name]
    out = tmp_path / "out.parquet"
    convert.convert(name, source(name), out, "test")
    read = recording.read(out)
    assert len(read.sources) == servers
    assert read.sources[0] == recording.Series("server-01", "0", "server", "")
    assert read.signals == tuple(f"metric_{index:02d}" for index in range(metrics))
    assert read.microseconds[0] == convert.START.timestamp() * 1e6
    assert np.diff(read.microseconds[read.series == 0]).tolist()[0] == step * 1_000_000
    assert np.isfinite(read.values).all()
    truth = pq.read_table(tmp_path / "out.truth.parquet").to_pylist()
    assert {each["kind"] for each in truth} == {"labelled"}
    labelled = sum((each["end"] - each["start"] for each in truth), timedelta()) / timedelta(seconds=step)
    archives = sorted(source(name).glob("*/*.npz"))
    assert labelled == sum(int((np.load(each)["test_label"] > 0).sum()) for each in archives)


def test_values_are_those_of_the_archive(tmp_path: Path) -> None:
    folder = source("asd")
    convert.convert("asd", folder, tmp_path / "out.parquet", "train")
    read = recording.read(tmp_path / "out.parquet")
    expected = np.load(folder / "npz" / "omi-10.npz")["train"]
    tenth = next(index for index, each in enumerate(read.sources) if each.node == "server-10")
    np.testing.assert_array_equal(read.values[:, read.series == tenth].T, expected)
    assert not (tmp_path / "out.truth.parquet").exists()


def test_a_folder_without_the_data_is_named(tmp_path: Path) -> None:
    with pytest.raises(RecordingError, match=f"{tmp_path}/npz holds no .npz files"):
        convert.convert("asd", tmp_path, tmp_path / "out.parquet", "test")


def test_an_archive_of_something_else_is_named_and_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "npz").mkdir()
    np.savez(tmp_path / "npz" / "omi-1.npz", other=np.zeros(3))
    with pytest.raises(RecordingError, match=r"omi-1\.npz is not an archive of this data set"):
        convert.convert("asd", tmp_path, tmp_path / "out.parquet", "test")
    assert not (tmp_path / "out.parquet").exists()


def test_labelled_runs_become_intervals(tmp_path: Path) -> None:
    (tmp_path / "npz").mkdir()
    labels = np.array([1, 1, 0, 0, 1, 0, 1], np.int8)
    np.savez(tmp_path / "npz" / "omi-1.npz", test=np.zeros((7, 2), np.float32), test_label=labels)
    assert convert.convert("asd", tmp_path, tmp_path / "out.parquet", "test") == (1, 7)
    truth = pq.read_table(tmp_path / "out.truth.parquet").to_pylist()
    spans = [((each["start"] - convert.START).total_seconds() / 300, each["end"] - each["start"]) for each in truth]
    assert spans == [(0, timedelta(seconds=600)), (4, timedelta(seconds=300)), (6, timedelta(seconds=300))]
