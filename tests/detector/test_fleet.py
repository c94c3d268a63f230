"""The detector against a real Prometheus that holds a known history, step by step."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from detector import history, ingest, recording, registry, scoring, signals, training
from detector.calibration import HISTORY
from detector.fleet import LENGTH, Fleet
from detector.promql import Prometheus, PrometheusError
from detector.residuals import ModelJudge
from detector.telemetry import IDLE, Floats, Gpu, Telemetry
from detector.topology import KINDS
from detector.trail import Trail
from detector.training import Settings
from detector.window import Window

from .conftest import Serve
from .fleets import START, STEP, row, telemetry

STATE = ("utilization_ratio", "power_watts")
HOT = Gpu("node-03", "5", "GPU-2-5", "H100", "rack-2")


def column(fleet: Telemetry, gpu: Gpu) -> int:
    return fleet.gpus.index(gpu)


def overheated(fleet: Telemetry, since: int, celsius: float = 12.0) -> Telemetry:
    values = fleet.values.copy()
    values[row("temperature_celsius"), column(fleet, HOT), since:] += celsius
    return replace(fleet, values=values)


def watch(url: str, models: Path, steps: range) -> list[dict[Gpu, float]]:
    """The scores that the service's own code gives, tick after tick."""
    with Prometheus(url) as client:
        fleet = Fleet(client, signals.load(), models, STEP)
        ticks = [fleet.tick(START + step * STEP + 1.0) for step in steps]
    return [{gpu: verdict.score for gpu, verdict in tick.verdicts.items()} for tick in ticks]


def scored(judge: ModelJudge, fleet: Telemetry, first: int) -> Floats:
    """Offline, [gpus, steps from `first` on]."""
    return np.stack([step.findings.score for step in scoring.score(fleet, judge, first)], axis=1)


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models")
    judge_, card = training.train([telemetry(600, seed=7)], STATE, Settings(1.0, 150, 0), lambda *_: None)
    registry.write(folder, judge_, card)
    return folder


def test_without_a_model_the_peers_tell_the_one_hot_gpu(prometheus: Serve, tmp_path: Path) -> None:
    url = prometheus(overheated(telemetry(200), since=150))
    before, after = watch(url, tmp_path / "none", range(145, 166, 20))
    assert len(before) == len(after) == 32
    assert max(before.values()) < 1
    assert [gpu for gpu, score in after.items() if score >= 1] == [HOT]


def test_with_a_model_too_and_it_is_taken_up_when_it_appears(prometheus: Serve, trained: Path, tmp_path: Path) -> None:
    url = prometheus(overheated(telemetry(200), since=150))
    with Prometheus(url) as client:
        fleet = Fleet(client, signals.load(), tmp_path / "models", STEP)
        assert fleet.tick(START + 140 * STEP).version == "none"
        (tmp_path / "models").symlink_to(trained)
        found = fleet.tick(START + 170 * STEP)
    assert found.version == registry.versions(trained)[0].name
    assert found.basis["model"] == 32
    hot = [(gpu, verdict.cause) for gpu, verdict in found.verdicts.items() if verdict.score >= 1]
    assert hot == [(HOT, "cooling")]


def test_live_and_recorded_scores_of_the_same_samples_agree(prometheus: Serve, trained: Path) -> None:
    fleet = overheated(telemetry(170), since=150)
    url = prometheus(fleet)
    live = watch(url, trained, range(LENGTH, 170))
    loaded, _ = registry.read(registry.versions(trained)[0])
    recorded = scored(loaded, fleet, LENGTH - HISTORY)
    for step, found in enumerate(live, LENGTH):
        expected = recorded[:, step - (LENGTH - HISTORY)]
        np.testing.assert_allclose([found[gpu] for gpu in fleet.gpus], expected, atol=1e-5)


def test_history_comes_back_from_prometheus_as_it_was(prometheus: Serve) -> None:
    fleet = telemetry(120)
    with Prometheus(prometheus(fleet)) as client:
        back = history.read(client, signals.load(), START, START + 119 * STEP, STEP)
        longer = history.read(client, signals.load(), START - 600, START + 119 * STEP, STEP)
        with pytest.raises(PrometheusError, match="holds no reading of any signal from 2023-11-14T20:13:20Z to"):
            history.read(client, signals.load(), START - 7200, START - 3600, STEP)
    np.testing.assert_array_equal(longer.timestamps, back.timestamps)
    assert set(back.gpus) == set(fleet.gpus)
    order = [back.gpus.index(gpu) for gpu in fleet.gpus]
    names = [signal.name for signal in back.signals]
    for signal, plane in zip(fleet.signals, fleet.values, strict=True):
        np.testing.assert_array_equal(back.values[names.index(signal.name)][order], plane)
    np.testing.assert_array_equal(back.job[order] >= 0, fleet.job >= 0)


def test_a_gpu_that_vanishes_keeps_a_score_while_its_node_answers(prometheus: Serve, tmp_path: Path) -> None:
    fleet = telemetry(200)
    fleet.values[:, column(fleet, HOT), 150:] = np.nan
    with Prometheus(prometheus(fleet)) as client:
        found = Fleet(client, signals.load(), tmp_path, STEP)
        assert found.tick(START + 149 * STEP).verdicts[HOT].score < 1
        verdict = found.tick(START + 153 * STEP).verdicts[HOT]
    assert verdict.score >= 1
    assert verdict.cause == "missing"


def test_a_silent_fleet_gets_no_score_at_all(prometheus: Serve, tmp_path: Path) -> None:
    with Prometheus(prometheus(telemetry(100))) as client:
        fleet = Fleet(client, signals.load(), tmp_path, STEP)
        assert len(fleet.tick(START + 99 * STEP).verdicts) == 32
        later = fleet.tick(START + 110 * STEP)
        assert len(later.verdicts) == 0
        assert later.coverage == 0.0


def test_a_model_that_is_damaged_or_of_another_fleet_is_passed_over_and_the_one_before_serves(
    prometheus: Serve, trained: Path, tmp_path: Path
) -> None:
    good = registry.versions(trained)[0]
    models = tmp_path / "models"
    shutil.copytree(good, models / good.name)
    card, weights = registry.card_of(good), bytearray((good / "model.safetensors").read_bytes())
    weights[-1] ^= 1
    renamed = tuple(replace(signal, name=f"other_{signal.name}") for signal in card.signals)
    others: dict[str, dict[str, object]] = {
        "99991231T000000Z-00000000": {},
        "99991231T000001Z-00000000": {"signals": card.signals[:-1]},
        "99991231T000002Z-00000000": {"offsets_of": card.offsets_of[:-1]},
        "99991231T000003Z-00000000": {"models": ("A30",)},
        "99991231T000004Z-00000000": {"signals": renamed},
        "99991231T000005Z-00000000": {"version": "99991231T000006Z-00000000"},
    }
    for name, changes in others.items():
        shutil.copytree(good, models / name)
        changed = card.model_copy(update={"version": name} | changes)
        (models / name / "card.json").write_text(changed.model_dump_json())
    (models / "99991231T000000Z-00000000" / "model.safetensors").write_bytes(weights)
    with Prometheus(prometheus(telemetry(102))) as client:
        fleet = Fleet(client, signals.load(), models, STEP)
        for step in (99, 100):
            found = fleet.tick(START + step * STEP)
            assert found.version == good.name
            assert found.basis["model"] == 32
        shutil.rmtree(models / good.name)
        assert fleet.tick(START + 101 * STEP).version == good.name, "none other serves"


def test_a_prometheus_that_is_not_there_leaves_the_window_as_it_was(tmp_path: Path) -> None:
    with Prometheus("http://127.0.0.1:9", timeout=1) as client:
        fleet = Fleet(client, signals.load(), tmp_path, STEP)
        with pytest.raises(PrometheusError, match=r"127\.0\.0\.1:9 does not answer"):
            fleet.tick(START)


def test_training_twice_with_a_seed_gives_the_same_weights() -> None:
    def weights() -> bytes:
        judge_, _ = training.train([telemetry(400)], STATE, Settings(1.0, 20, 3), lambda *_: None)
        return registry.pack(judge_)

    assert weights() == weights()


def test_too_little_telemetry_is_refused_with_what_is_needed() -> None:
    with pytest.raises(training.TrainingError, match="has 100 steps; at least 240"):
        training.train([telemetry(100)], STATE, Settings(), lambda *_: None)


def test_a_version_read_back_judges_as_before(trained: Path) -> None:
    loaded, card = registry.read(registry.versions(trained)[0])
    assert isinstance(loaded, ModelJudge)
    assert card.gpus == 32
    again, _ = registry.read(registry.versions(trained)[0])
    fleet = telemetry(100, seed=9)
    first, second = (scored(each, fleet, 70) for each in (loaded, again))
    np.testing.assert_array_equal(first, second)
    assert np.isfinite(first).any()


def test_a_model_serves_on_when_a_signal_is_no_longer_reported(trained: Path) -> None:
    loaded, _ = registry.read(registry.versions(trained)[0])
    fleet = telemetry(200, seed=11)
    fleet.values[row("power_watts")] = np.nan
    found = scored(loaded, fleet, LENGTH)
    # Trained on batches that lack nothing, a model calls nearly every GPU anomalous here.
    assert np.nanmean(found >= 1) < 0.3


def test_a_recording_and_its_telemetry_are_the_same(tmp_path: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    fleet = telemetry(10, nodes=1)
    steps = len(fleet.timestamps)
    columns: dict[str, object] = {
        "timestamp": pa.array(np.repeat(fleet.timestamps * 1e6, 8).astype("int64"), pa.timestamp("us", tz="UTC")),
        "node": [gpu.node for gpu in fleet.gpus] * steps,
        "gpu": [gpu.gpu for gpu in fleet.gpus] * steps,
        "model": [gpu.model for gpu in fleet.gpus] * steps,
        "rack": [gpu.rack for gpu in fleet.gpus] * steps,
        "job": [None] * (8 * steps),
    }
    for signal, plane in zip(fleet.signals, fleet.values, strict=True):
        columns[signal.name] = pa.array(plane.T.ravel(), pa.float32())
    pq.write_table(pa.table(columns), tmp_path / "recording.parquet")
    back = recording.read(tmp_path / "recording.parquet", signals.load())
    assert [signal.name for signal in back.signals] == [signal.name for signal in fleet.signals]
    np.testing.assert_array_equal(back.values, fleet.values)
    np.testing.assert_allclose(back.timestamps, fleet.timestamps)


def test_the_window_is_what_a_plain_array_would_hold() -> None:
    random = np.random.default_rng(2)
    fleet = telemetry(60, nodes=1)
    window = Window(length=7, step=STEP)
    expected = np.full((5, 8, 60), np.nan, np.float32)
    for step in range(60):
        window.advance(float(fleet.timestamps[step]))
        window.include(fleet.signals, fleet.gpus)
        for signal in range(5):
            for gpu in range(8):
                late = step - int(random.integers(0, 3))
                if late >= 0 and random.random() < 0.8:
                    at, value = fleet.timestamps[[late]], fleet.values[signal, gpu, [late]].astype(np.float64)
                    window.write(fleet.signals[signal].name, np.array([gpu]), at, value)
                    expected[signal, gpu, late] = value[0]
        held = window.telemetry().values
        start = max(0, step - 6)
        np.testing.assert_array_equal(held[..., 7 - (step + 1 - start) :], expected[..., start : step + 1])


def test_ended_jobs_are_dropped_from_the_windows_memory() -> None:
    window = Window(length=3, step=STEP)
    gpu = Gpu("n", "0")
    for step in range(3000):
        at = np.array([START + step * STEP])
        window.advance(float(at[0]))
        window.include((), [gpu])
        window.write_job(np.array([0]), window.number([(f"job-{step}", "")]), at)
    held = window.telemetry()
    assert len(held.jobs) <= 1002
    assert [held.jobs[index] for index in held.job[0]] == ["job-2997", "job-2998", "job-2999"]


def test_a_trail_holds_the_newest_residuals_in_their_order() -> None:
    random = np.random.default_rng(6)
    rows = random.random((4, 3, 60)).astype(np.float32)
    trail, at = Trail(rows[..., :8]), 8
    for new in (1, 3, 0, 7, 1, 1, 5, 2):
        trail.add(rows[..., at : at + new])
        at += new
        np.testing.assert_array_equal(trail.values, rows[..., at - 8 : at])
    trail.forget(np.array([1]))
    assert np.isnan(trail.values[:, 1]).all()
    np.testing.assert_array_equal(trail.values[:, 2], rows[:, 2, at - 8 : at])
    others = trail.of(np.array([2, -1]))
    np.testing.assert_array_equal(others.values[:, 0], rows[:, 2, at - 8 : at])
    assert np.isnan(others.values[:, 1]).all()


def test_islands_and_roles_come_from_prometheus_and_a_model_that_knows_islands_serves(
    prometheus: Serve, tmp_path: Path
) -> None:
    """Those of a fleet whose islands are racks, and of a job whose ranks on the second node have another role."""
    fleet = telemetry(400, seed=3)
    second = (fleet.job != IDLE) & (np.arange(len(fleet.gpus)) >= 8)[:, None]
    roles = np.where(second, 1, fleet.job).astype(np.int32)
    gpus = tuple(replace(gpu, island=gpu.rack) for gpu in fleet.gpus)
    fleet = replace(fleet, gpus=gpus, job=roles, jobs=("job-a", "job-a"))
    judge, card = training.train([fleet], STATE, Settings(1.0, 15, 0), lambda *_: None)
    assert card.kinds == KINDS
    registry.write(tmp_path, judge, card)
    url = prometheus(fleet)
    live = watch(url, tmp_path, range(LENGTH + 1, LENGTH + 3))
    offline = scored(judge, fleet, LENGTH + 1)
    for step, tick in enumerate(live):
        np.testing.assert_allclose([tick[gpu] for gpu in fleet.gpus], offline[:, step], atol=1e-5)
    with Prometheus(url) as client:
        window = Window(8, STEP)
        ingest.Ingest(client, signals.load(), window).pull(START + 80 * STEP + 1.0)
    assert {gpu.island for gpu in window.gpus.values()} == {"rack-1", "rack-2"}
    assert set(window.jobs) == {("job-a", "0"), ("job-a", "1")}
