"""The fleet recorded: the same seed, the same bytes; faults in truth and in the signals, jobs in their column."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq
import pytest
import yaml

from exporters import recording
from exporters.replay import ReplaySource
from exporters.synthetic.faults import KINDS
from exporters.synthetic.fleet import build
from exporters.synthetic.layout import DRIVERS
from exporters.synthetic.recorder import Recorder
from tests.exporters.series import value

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


def test_no_fault_comes_before_the_quiet_hours_are_over(tmp_path: Path) -> None:
    made = Recorder(build(4, 8, 32, ["H100"], 7), tmp_path, START, 1.0, 10.0, 8, quiet_hours=0.75)
    sum(made.run())
    begun = [fault.start_seconds - 600 for fault in made.fleet.history]  # after ten minutes of warming up
    assert len(begun) >= 6
    assert min(begun) >= 2700
    assert max(begun) <= 3600


def test_rows_are_one_per_step_and_gpu(folder: Path) -> None:
    read = recording.read(folder / "recording.parquet")
    assert len(read.sources) == 32
    assert len(read.microseconds) == 360 * 32
    assert np.unique(np.diff(np.unique(read.microseconds))).tolist() == [10_000_000]


def test_a_recording_has_every_signal_that_the_detector_reads(folder: Path) -> None:
    wanted = yaml.safe_load((Path(__file__).parents[2] / "detector" / "signals.yml").read_text())["signals"]
    names = {each["name"] for each in wanted if "name" in each}
    assert names == set(recording.read(folder / "recording.parquet").signals)


@pytest.mark.parametrize(
    ("kind", "signal", "healthy"),
    [
        ("pcie_width", "pcie_width_ratio", 1.0),
        ("nvlink_flap", "nvlink_errors_total", 0.0),
        ("ecc_uncorrectable", "row_remap_pending", 0.0),
    ],
)
def test_what_a_fault_leaves_is_recorded_and_replayed(tmp_path: Path, kind: str, signal: str, healthy: float) -> None:
    recorder = Recorder(build(1, 4, 8, ["H100"], 7), tmp_path, START, 0.1, 10.0, 0, upkeep=False)
    recorder.fleet.add_fault(kind, "node-01", 2, 0.9)
    assert sum(recorder.run()) == 36
    read = recording.read(tmp_path / "recording.parquet")
    last = dict(zip(read.series[-4:].tolist(), read.values[read.signals.index(signal), -4:].tolist(), strict=True))
    assert {last[gpu] for gpu in (0, 1, 3)} == {healthy}
    assert last[2] != healthy
    page = ReplaySource(read, monotonic=iter([0.0, 355.0, 355.0]).__next__).page("node-01")
    lanes, most = (value(page, f"DCGM_FI_DEV_PCIE_{name}LINK_WIDTH", gpu="2") or 0 for name in ("", "MAX_"))
    errors = [value(page, f"DCGM_FI_DEV_NVLINK_{name}_ERROR_COUNT_TOTAL", gpu="2") for name in NVLINK]
    assert {
        "pcie_width_ratio": lanes / most,
        "nvlink_errors_total": sum(each or 0 for each in errors),
        "row_remap_pending": value(page, "DCGM_FI_DEV_ROW_REMAP_PENDING", gpu="2"),
    }[signal] == last[2]


NVLINK = ("REPLAY", "RECOVERY", "CRC_FLIT")


def test_about_half_of_the_fleet_works_and_working_gpus_are_warmer(folder: Path) -> None:
    read = recording.read(folder / "recording.parquet")
    busy = read.job >= 0
    assert 0.25 < busy.mean() < 0.85
    temperature = read.values[read.signals.index("temperature_celsius")]
    assert np.nanmean(temperature[busy]) > np.nanmean(temperature[~busy]) + 10


def test_truth_names_each_fault_with_its_time(folder: Path) -> None:
    truth = pq.read_table(folder / "truth.parquet").to_pylist()
    assert list(truth[0]) == ["node", "gpu", "kind", "severity", "onset", "start", "end"]
    assert {each["kind"] for each in truth} <= set(KINDS)
    assert len({each["kind"] for each in truth}) == 4
    earliest = START + timedelta(hours=0.05)
    assert all(earliest <= each["start"] < each["end"] and 0.3 <= each["severity"] <= 1 for each in truth)


def test_a_lost_gpu_is_silent_exactly_while_truth_says_so(tmp_path: Path) -> None:
    recorder = Recorder(build(4, 8, 32, ["H100"], 7), tmp_path, START, 1.0, 10.0, 0, upkeep=False)
    fleet = recorder.fleet
    steps = recorder.run()
    fault = fleet.add_fault("off_the_bus", "node-02", 5, 1.0)
    for _ in steps:
        pass
    assert fault.end_seconds is None
    read = recording.read(tmp_path / "recording.parquet")
    power = read.values[read.signals.index("power_watts")]
    assert {(read.sources[each].node, read.sources[each].gpu) for each in read.series[np.isnan(power)]} == {
        ("node-02", "5")
    }
    truth = pq.read_table(tmp_path / "truth.parquet").to_pylist()
    assert [(each["node"], each["gpu"], each["kind"]) for each in truth] == [("node-02", "5", "off_the_bus")]


def test_a_racks_fault_is_told_for_each_of_its_nodes(tmp_path: Path) -> None:
    recorder = Recorder(build(4, 8, 16, ["H100"], 7), tmp_path, START, 0.1, 10.0, 0)
    recorder.fleet.add_fault("hot_inlet", None, None, 1.0, rack="rack-2")
    assert sum(recorder.run()) == 36
    truth = pq.read_table(tmp_path / "truth.parquet").to_pylist()
    assert [(each["node"], each["gpu"]) for each in truth] == [("node-03", None), ("node-04", None)]


def test_upkeep_is_in_the_recording_and_not_in_truth(tmp_path: Path) -> None:
    recorder = Recorder(build(32, 1, 32, ["H100"], 7), tmp_path, START, 2.0, 10.0, 0)
    assert sum(recorder.run()) == 720
    read = recording.read(tmp_path / "recording.parquet")
    silent = np.isnan(read.values[read.signals.index("power_watts")])
    assert 0 < silent.mean() < 0.05
    assert pq.read_table(tmp_path / "truth.parquet").num_rows == 0


def test_a_recording_broken_off_leaves_nothing(tmp_path: Path) -> None:
    running = Recorder(build(1, 8, 32, ["H100"], 7), tmp_path, START, 40, 10.0, 0).run()
    next(running)
    running.close()
    assert list(tmp_path.iterdir()) == []


def test_racks_that_nvlink_joins_are_islands_in_a_recording_and_its_replay(tmp_path: Path) -> None:
    sum(Recorder(build(4, 4, 8, ["GB200"], 7), tmp_path, START, 0.1, 10.0, 0).run())
    read = recording.read(tmp_path / "recording.parquet")
    assert len({each.island for each in read.sources} - {""}) == 2
    assert len({(each.rack, each.island) for each in read.sources}) == 2
    source = ReplaySource(read)
    assert f'island="{read.sources[0].island}"' in source.page(read.sources[0].node)


def test_a_driver_that_is_restarted_may_be_a_newer_one_and_a_replay_says_so(tmp_path: Path) -> None:
    fleet = build(2, 8, 16, ["H100"], 7)
    recorder = Recorder(fleet, tmp_path, START, 0.2, 10.0, 0, upkeep=False)
    steps = recorder.run()
    fleet.update_driver("node-02")
    sum(steps)
    read = recording.read(tmp_path / "recording.parquet")
    assert read.release is not None
    told = {
        read.sources[series].node: read.releases[code][0]
        for series, code in zip(read.series, read.release, strict=True)
    }
    assert told == {"node-01": DRIVERS[0], "node-02": DRIVERS[1]}
    assert f'driver="{DRIVERS[1]}"' in ReplaySource(read).page("node-02")
