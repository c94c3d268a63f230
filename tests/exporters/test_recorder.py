"""The fleet recorded: the same seed, the same bytes; faults in truth and in the signals, jobs in their column."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest

from exporters import recording
from exporters.synthetic.fleet import build
from exporters.synthetic.recorder import Recorder

START = datetime(2026, 1, 1, tzinfo=UTC)


def record(folder: Path, seed: int = 7, hours: float = 1.0, faults: int = 4) -> Path:
    recorder = Recorder(build(4, 8, 32, ["H100"], seed), folder, START, hours, 10.0, faults)
    assert sum(recorder.run()) == hours * 360
    return folder


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return record(tmp_path_factory.mktemp("recording"))


def test_the_same_seed_gives_the_same_bytes(folder: Path, tmp_path: Path) -> None:
    same, other = record(tmp_path / "same"), record(tmp_path / "other", seed=8)
    for name in ("recording.parquet", "truth.parquet"):
        assert (same / name).read_bytes() == (folder / name).read_bytes()
        assert (other / name).read_bytes() != (folder / name).read_bytes()


def test_rows_are_one_per_step_and_gpu(folder: Path) -> None:
    read = recording.read(folder / "recording.parquet")
    assert len(read.sources) == 32
    assert len(read.microseconds) == 360 * 32
    assert np.unique(np.diff(np.unique(read.microseconds))).tolist() == [10_000_000]


def test_about_half_of_the_fleet_works_and_working_gpus_are_warmer(folder: Path) -> None:
    read = recording.read(folder / "recording.parquet")
    busy = read.job >= 0
    assert 0.25 < busy.mean() < 0.85
    temperature = read.values[read.signals.index("temperature_celsius")]
    assert np.nanmean(temperature[busy]) > np.nanmean(temperature[~busy]) + 10


def test_truth_names_each_fault_with_its_time(folder: Path) -> None:
    truth = pq.read_table(folder / "truth.parquet").to_pylist()
    assert list(truth[0]) == ["node", "gpu", "kind", "severity", "start", "end"]
    assert sorted(each["kind"] for each in truth) == ["clock_stuck", "fan_failure", "power_cap", "thermal_paste"]
    earliest = START + timedelta(hours=0.05)
    assert all(earliest <= each["start"] < each["end"] and 0.3 <= each["severity"] <= 1 for each in truth)


def test_a_capped_gpu_shows_in_its_limit_exactly_while_truth_says_so(folder: Path) -> None:
    capped = next(each for each in pq.read_table(folder / "truth.parquet").to_pylist() if each["kind"] == "power_cap")
    read = recording.read(folder / "recording.parquet")
    limit = read.values[read.signals.index("power_limit_watts")]
    low = limit < 699
    assert {read.sources[each].node + "/" + read.sources[each].gpu for each in read.series[low]} == {
        f"{capped['node']}/{capped['gpu']}"
    }
    when = read.microseconds[low] / 1e6
    assert capped["start"].timestamp() <= when.min() <= capped["start"].timestamp() + 60
    assert capped["end"].timestamp() - 20 <= when.max() <= capped["end"].timestamp() + 10


def test_a_recording_broken_off_leaves_nothing(tmp_path: Path) -> None:
    running = Recorder(build(1, 8, 32, ["H100"], 7), tmp_path, START, 40, 10.0, 0).run()
    next(running)
    running.close()
    assert list(tmp_path.iterdir()) == []
