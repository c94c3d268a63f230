"""A recorded day looked at: on a grid, by fixed thresholds, as a picture, and beside real clusters."""

import os
from datetime import UTC, datetime
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
from click.testing import CliRunner

from exporters import grid, marginals, picture, recording, thresholds
from exporters.grid import Fault, Grid
from exporters.recording import RecordingError
from exporters.synthetic.fleet import build
from exporters.synthetic.recorder import Recorder

START = datetime(2026, 1, 1, tzinfo=UTC)
ACME = Path(os.environ.get("STETHOS_DATA", Path(__file__).parents[2] / ".." / "shared" / "data")) / "acme_gpu_cdfs"
KINDS = ("thermal_paste", "fan_failure", "clock_stuck", "power_cap", "efficiency_loss", "hot_inlet")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("day")
    recorder = Recorder(build(2, 8, 8, ["A100"], 3), folder, START, 8.0, 60.0, 24, kinds=KINDS)
    assert sum(recorder.run()) == 480
    return folder


@pytest.fixture(scope="module")
def on(folder: Path) -> Grid:
    return grid.read(folder / "recording.parquet")


def test_a_grid_has_every_value_in_its_place(folder: Path, on: Grid) -> None:
    read = recording.read(folder / "recording.parquet")
    row = 12_34
    step = int(np.searchsorted(on.seconds, (read.microseconds[row] - read.microseconds[0]) / 1e6))
    gpu = on.sources.index(read.sources[read.series[row]])
    power = read.values[read.signals.index("power_watts"), row]
    assert on.signals["power_watts"][step, gpu] == pytest.approx(power, nan_ok=True)
    assert on.job.shape == (480, 16)
    assert on.step_seconds == 60


def test_truth_is_one_fault_each_also_for_a_rack(folder: Path, on: Grid) -> None:
    faults = grid.faults(folder / "truth.parquet", on)
    assert {each.kind for each in faults} == set(KINDS)
    assert 12 < len(faults) <= 24
    assert {len(each.gpus) for each in faults if each.kind == "hot_inlet"} == {8}
    assert {len(each.gpus) for each in faults if each.kind != "hot_inlet"} == {1}


def flat(steps: int = 120, **signals: float) -> Grid:
    """Two GPUs that report the same for two hours, a minute a step."""
    values = {name: np.full((steps, 2), value, np.float32) for name, value in signals.items()}
    sources = tuple(recording.Series("node-01", gpu, "H100", "rack-1") for gpu in "01")
    return Grid(np.arange(steps, dtype=np.float64) * 60, START, sources, values, np.full((steps, 2), -1))


def test_a_rule_fires_after_its_time_and_not_before() -> None:
    on = flat(temperature_celsius=60)
    on.signals["temperature_celsius"][10:20, 0] = 90
    on.signals["temperature_celsius"][10:14, 1] = 90
    fires = thresholds.fires(thresholds.SETS["levels"][0], on)
    assert np.flatnonzero(fires[:, 0]).tolist() == [15, 16, 17, 18, 19]
    assert not fires[:, 1].any()


def test_alarms_are_found_false_or_excused() -> None:
    on = flat(throttle_thermal_ratio=0)
    for steps in (slice(10, 20), slice(21, 30), slice(80, 90)):  # the first two are close enough to be one
        on.signals["throttle_thermal_ratio"][steps, 0] = 0.5
    faults = [Fault("thermal_paste", 0.8, (0,), 600.0, 1500.0), Fault("clock_stuck", 0.8, (1,), 600.0, 1500.0)]
    found = thresholds.outcome(thresholds.SETS["levels"], on, faults)
    assert (found.alarms, found.false) == (2, 1)
    assert found.found == {"thermal_paste": 1, "clock_stuck": 0}
    assert found.recall == 0.5
    assert found.false_per_1000_gpu_hours == 250
    on.job[:] = 5  # GPU 1 works with GPU 0: an alarm on either is the fault's doing
    mates = thresholds.outcome(thresholds.SETS["levels"], on, [Fault("straggler", 0.8, (1,), 600.0, 1500.0)])
    assert (mates.alarms, mates.false, mates.recall) == (2, 1, 0.0)


def test_an_xid_counts_when_it_is_new_and_critical() -> None:
    on = flat(xid=0)
    on.signals["xid"][50:, 0] = 79
    on.signals["xid"][50:, 1] = 43
    assert [(each.gpu, each.start, each.end) for each in thresholds.alarms(thresholds.SETS["events"], on)] == [
        (0, 3000.0, 3000.0)
    ]


def test_thresholds_print_sets_rules_and_kinds(folder: Path) -> None:
    done = CliRunner().invoke(
        thresholds.main, [str(folder / "recording.parquet"), str(folder / "truth.parquet")], catch_exceptions=False
    )
    assert done.exit_code == 0
    assert "per 1,000 GPU-hours" in done.output
    assert all(kind in done.output for kind in KINDS)


def test_a_day_is_drawn(folder: Path, on: Grid, tmp_path: Path) -> None:
    arguments = [str(folder / "recording.parquet"), str(folder / "truth.parquet"), str(tmp_path / "day.svg")]
    done = CliRunner().invoke(picture.main, arguments, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    root = ElementTree.parse(tmp_path / "day.svg").getroot()  # noqa: S314
    texts = [each.text or "" for each in root.iter("{http://www.w3.org/2000/svg}text")]
    assert sum(each == "hot inlet" for each in texts) == sum(
        each.kind == "hot_inlet" for each in grid.faults(folder / "truth.parquet", on)
    )
    assert sum("node-" in each and "GPU" in each for each in texts) == 3


def test_a_day_without_faults_cannot_be_drawn(on: Grid) -> None:
    with pytest.raises(RecordingError, match="no rack's air grew hot"):
        picture.draw(on, [])


def test_a_file_that_is_no_truth_is_named(folder: Path, on: Grid) -> None:
    with pytest.raises(RecordingError, match="is no truth file"):
        grid.faults(folder / "recording.parquet", on)


def test_the_spread_is_that_of_real_clusters(folder: Path) -> None:
    """Medians of what the physics makes, where jobs differ from fleet to fleet: a factor of two, five kelvin."""
    if not ACME.is_dir():
        pytest.skip(f"the data set is not at {ACME}; set STETHOS_DATA")
    read = recording.read(folder / "recording.parquet")
    middle, top = marginals.PERCENTS.tolist().index(50), marginals.PERCENTS.tolist().index(95)
    for cluster in marginals.CLUSTERS:
        for signal in ("temperature_celsius", "memory_temperature_celsius"):
            real, ours = marginals.real(ACME, cluster, signal), marginals.quantiles(read, signal)
            assert ours[middle] == pytest.approx(real[middle], abs=8)
            assert ours[top] == pytest.approx(real[top], abs=8)
        real, ours = marginals.real(ACME, cluster, "power_watts"), marginals.quantiles(read, "power_watts")
        assert 0.5 < ours[middle] / real[middle] < 2
        assert 0.75 < ours[top] / real[top] < 1.25


def test_quantiles_of_a_missing_data_set_are_an_error(folder: Path, tmp_path: Path) -> None:
    done = CliRunner().invoke(marginals.main, [str(folder / "recording.parquet"), str(tmp_path)])
    assert done.exit_code == 1
    assert "gpu_power_seren.npz" in done.output
