"""A model's life: renewed in a process of its own, tried in the shadow, promoted, guarded, rolled back."""

import shutil
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from detector import registry, signals, training
from detector.fleet import Fleet
from detector.lifecycle import REJECTED, SHADOW, LifeCycle, Plan
from detector.promql import Prometheus
from detector.service import Service
from detector.shard import Shard
from detector.signals import Signal
from detector.tally import Drift, Tally
from detector.telemetry import Gpu
from detector.training import Settings

from .conftest import Serve
from .fleets import START, STEP, row, telemetry

STATE = ("utilization_ratio", "power_watts")
GPUS = (Gpu("n", "0"), Gpu("n", "1"))
HOUR = 3600.0


def test_an_alarm_that_lasts_counts_once_in_a_block_and_survives_a_change_of_the_fleet() -> None:
    tally = Tally(STEP)
    for step in range(60):
        tally.add(GPUS, np.array([1.5, np.nan], np.float32), step * STEP)
    assert tally.alarms == 1
    assert tally.gpu_hours == pytest.approx(60 * STEP / 3600)
    tally.add(GPUS[:1], np.array([1.5], np.float32), 59 * STEP)
    assert tally.alarms == 1
    tally.add(GPUS[:1], np.array([1.5], np.float32), 60 * STEP)
    assert tally.alarms == 2
    assert tally.rate == pytest.approx(1000 * 2 / tally.gpu_hours)


def test_drift_is_one_as_calibrated_and_tells_the_signal_that_left() -> None:
    noise = np.random.default_rng(1)
    drift = Drift((Signal("a"), Signal("b"), Signal("c", scored=False)))
    quantile = np.log(100)  # 99 % of a Laplace distribution's sizes lie below
    for step in range(1500):
        residuals = noise.laplace(size=(3, 200)) / quantile
        if step > 750:
            residuals[1:] *= 3
        drift.add(residuals.astype(np.float32))
        if step == 750:
            assert drift.drifted() is None
            assert all(ratio == pytest.approx(1, abs=0.1) for ratio in drift.ratios().values())
    assert drift.drifted() == "b"
    assert set(drift.ratios()) == {"a", "b"}


def test_a_fleet_that_leans_to_one_side_has_drifted_long_before_its_residuals_are_large() -> None:
    noise = np.random.default_rng(2)
    drift = Drift((Signal("a"), Signal("b"), Signal("c", scored=False)))
    for step in range(900):
        residuals = 0.2 * noise.standard_normal((3, 200)).astype(np.float32)
        residuals[0, : 60 if step % 2 else 0] = np.nan
        if step > 300:
            assert drift.drifted() in {None, "b"}
            residuals[1:] += 0.4
        else:
            assert drift.drifted() is None
        drift.add(residuals)
        if drift.drifted():
            break
    assert 500 < step < 700
    assert drift.shifts()["b"] >= 1 > drift.shifts()["a"]
    assert drift.ratios()["b"] < 1


class Clock:
    def __init__(self) -> None:
        self.now = time.time()

    def __call__(self) -> float:
        return self.now


class Stage:
    """A fleet's models on disk, and a life cycle over them; the Prometheus is not there."""

    def __init__(self, folder: Path, made: list[Path], client: Prometheus) -> None:
        self.folder, self._made, self._client = folder, list(made), client
        self.clock = Clock()

    def put(self, place: str = "") -> Path:
        """One more version, newer than those before."""
        version = self._made.pop(0)
        shutil.copytree(version, self.folder / place / version.name)
        return self.folder / place / version.name

    def start(self) -> tuple[Fleet, LifeCycle]:
        fleet = Fleet(self._client, signals.load(), self.folder, STEP)
        fleet._now = self.clock()
        fleet._newest_model()
        plan = Plan("http://127.0.0.1:9", signals.DEFAULT, self.folder, STEP, budget=0.1, keep=2)
        return fleet, LifeCycle(fleet, plan, self.clock)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """Versions of one model, oldest first: the same weights under other names."""
    folder = tmp_path_factory.mktemp("made")
    judge, card = training.train([telemetry(300, nodes=1)], STATE, Settings(0.1, 3, 0), lambda *_: None)
    versions = []
    for number in range(4):
        version = f"2026010{number + 1}T000000Z-{number:08x}"
        versions.append(
            registry.write(folder, replace(judge, version=version), card.model_copy(update={"version": version}))
        )
    return versions


@pytest.fixture
def stage(tmp_path: Path, made: list[Path]) -> Iterator[Stage]:
    with Prometheus("http://127.0.0.1:9", timeout=1) as client:
        yield Stage(tmp_path / "models", made, client)


def names(folder: Path) -> list[str]:
    return [version.name for version in registry.versions(folder)]


def test_a_candidate_that_keeps_the_budget_is_promoted_after_its_trial(stage: Stage) -> None:
    office, candidate = stage.put(), stage.put(SHADOW)
    fleet, life = stage.start()
    life.review()
    assert fleet.trial
    assert fleet.trial.version == candidate.name
    life.review()
    assert names(stage.folder) == [office.name]
    stage.clock.now += HOUR + 1
    life.review()
    assert names(stage.folder) == [candidate.name, office.name]
    fleet._newest_model()
    assert fleet.office == stage.folder / candidate.name
    assert life.events.counts == {("promote", "ok"): 1}


def test_a_candidate_that_breaks_the_budget_is_rejected_with_the_reason(stage: Stage) -> None:
    office, candidate = stage.put(), stage.put(SHADOW)
    fleet, life = stage.start()
    life.review()
    assert fleet.trial
    fleet.trial.own.alarms, fleet.trial.own.gpu_hours = 5, 1000.0
    life.review()
    assert names(stage.folder) == [office.name]
    assert names(stage.folder / REJECTED) == [candidate.name]
    assert "5 alarms in 1000 GPU-hours" in (stage.folder / REJECTED / candidate.name / "reason.txt").read_text()
    assert fleet.trial is None


def test_a_candidate_that_rebuilds_no_better_is_rejected_at_once(stage: Stage) -> None:
    stage.put()
    candidate = stage.put(SHADOW)
    card = registry.Card.model_validate_json((candidate / "card.json").read_text())
    worse = card.model_copy(update={"rebuild_error": 0.2, "rebuild_error_before": 0.1})
    (candidate / "card.json").write_text(worse.model_dump_json())
    _, life = stage.start()
    life.review()
    life.review()
    assert (
        "rebuilds no better: 0.2 against 0.1" in (stage.folder / REJECTED / candidate.name / "reason.txt").read_text()
    )


def test_a_damaged_candidate_is_rejected_and_the_office_stays(stage: Stage) -> None:
    office, candidate = stage.put(), stage.put(SHADOW)
    (candidate / "model.safetensors").write_bytes(b"nothing of a model")
    _, life = stage.start()
    life.review()
    assert names(stage.folder) == [office.name]
    assert "checksum" in (stage.folder / REJECTED / candidate.name / "reason.txt").read_text()


def test_a_new_version_that_alone_breaks_the_budget_is_rolled_back(stage: Stage) -> None:
    before, office = stage.put(), stage.put()
    fleet, life = stage.start()
    assert fleet.office == office
    life.review()
    assert fleet.trial
    assert fleet.trial.version == before.name
    fleet.trial.office.alarms, fleet.trial.office.gpu_hours = 5, 1000.0
    fleet.trial.own.alarms, fleet.trial.own.gpu_hours = 5, 1000.0
    life.review()
    assert fleet.office == office, "a fleet in which both alarm has faults, not a bad model"
    fleet.trial.own.alarms = 0
    life.review()
    fleet._newest_model()
    assert fleet.office == before
    assert names(stage.folder / REJECTED) == [office.name]
    assert life.events.counts["roll_back", "ok"] == 1


def test_a_first_model_serves_without_a_trial(stage: Stage) -> None:
    candidate = stage.put(SHADOW)
    fleet, life = stage.start()
    life.review()
    life.review()
    fleet._newest_model()
    assert fleet.office == stage.folder / candidate.name


def wait(life: LifeCycle) -> None:
    """Until no training is under way."""
    if life._child:
        life._child[1].wait()


def renewed(life: LifeCycle) -> dict[str, int]:
    """What has been tried so far, after one more look at what is due."""
    life.renew()
    wait(life)
    life._reap()
    return {kind: count for (kind, _), count in life.events.counts.items()}


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Trainings write down what they were asked for, and fail."""
    program, told = tmp_path / "program", tmp_path / "asked"
    program.write_text(
        f'#!/bin/sh\necho "$@" >> {told}\nwhile [ -e {tmp_path}/busy ]; do sleep 0.05; done\nexit ${{RESULT:-1}}\n'
    )
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    return told


def test_a_fleet_without_a_model_gets_one_after_an_hour_and_failing_is_tried_again(stage: Stage, asked: Path) -> None:
    _, life = stage.start()
    assert renewed(life) == {}
    stage.clock.now += HOUR
    assert renewed(life) == renewed(life) == {"retrain": 1}
    stage.clock.now += HOUR
    assert renewed(life) == {"retrain": 2}
    assert "--against" not in asked.read_text()


def test_what_is_due_goes_by_the_age_of_what_is_on_disk_and_not_of_the_process(stage: Stage, asked: Path) -> None:
    first = stage.put()
    trained = registry.made_at(first.name)
    for hours, due in ((23, {}), (25, {"recalibrate": 1}), (169, {"retrain": 1})):
        stage.clock.now = trained + hours * HOUR
        assert renewed(stage.start()[1]) == due
    second = stage.put()
    card = registry.card_of(second).model_copy(update={"parent": first.name})
    (second / "card.json").write_text(card.model_dump_json())
    stage.clock.now = registry.made_at(second.name) + HOUR
    assert renewed(stage.start()[1]) == {}
    stage.clock.now = trained + 169 * HOUR
    assert renewed(stage.start()[1]) == {"retrain": 1}, "recalibrating trains nothing"
    shutil.copytree(second, stage.folder / REJECTED / "20260108T000000Z-00000000")
    (stage.folder / REJECTED / "20260108T000000Z-00000000" / "card.json").write_text(
        card.model_copy(update={"parent": None}).model_dump_json()
    )
    assert renewed(stage.start()[1]) == {}, "what was turned down was trained all the same"


def test_a_drift_is_answered_once_and_after_the_training_that_is_under_way(
    stage: Stage, asked: Path, tmp_path: Path
) -> None:
    stage.put()
    fleet, life = stage.start()
    fleet.drift = Drift((Signal("a"),))
    for _ in range(800):
        fleet.drift.add(np.full((1, 8), 5, np.float32))
    (tmp_path / "busy").touch()
    life.recalibrate()
    life.review()
    assert life._child
    assert life._child[0] == "recalibrate"
    (tmp_path / "busy").unlink()
    for _ in range(3):
        wait(life)
        life.review()
    assert life.events.counts == {("recalibrate", "failed"): 1, ("retrain", "failed"): 1}


def test_recalibrating_daily_does_not_fill_the_disk(stage: Stage, asked: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RESULT", "0")
    versions = [stage.put() for _ in range(3)]
    stage.clock.now = registry.made_at(versions[-1].name) + 25 * HOUR
    assert renewed(stage.start()[1]) == {"recalibrate": 1}
    assert str(versions[-1]) in asked.read_text()
    assert names(stage.folder) == [version.name for version in versions[:0:-1]]


def test_a_training_is_asked_for_what_the_service_judges_with(stage: Stage, asked: Path) -> None:
    stage.put()
    fleet, life = stage.start()
    life.plan = replace(life.plan, edges=frozenset({"job", "load"}), shard=Shard(2, 3), budget=0.5, history=240.0)
    fleet._window.include((), [Gpu(f"n{node}", "0", rack=f"r{node // 40}") for node in range(600)])
    life.retrain()
    wait(life)
    life._reap()
    said = asked.read_text()
    assert "--no-edges=node --no-edges=rack" in said
    assert "--budget 0.5" in said
    share = Shard.parse(said.split("--shard ")[1].split()[0])
    assert share.of > 3
    assert share.index % 3 == 2
    assert any(map(share.has, fleet.gpus)), "a share without a rack teaches nothing"


def test_a_restart_goes_on_with_the_same_models(stage: Stage) -> None:
    office, candidate = stage.put(), stage.put(SHADOW)
    for _ in range(2):
        fleet, life = stage.start()
        life.review()
        assert fleet.office == office
        assert fleet.trial
        assert fleet.trial.version == candidate.name


def test_only_the_newest_versions_stay_on_disk(stage: Stage) -> None:
    versions = [stage.put() for _ in range(3)]
    stage.put(SHADOW)
    _, life = stage.start()
    life.review()
    stage.clock.now += HOUR + 1
    life.review()
    assert len(names(stage.folder)) == 2
    assert versions[0].name not in names(stage.folder)


@pytest.mark.slow
def test_a_model_is_retrained_from_prometheus_while_the_ticks_go_on(prometheus: Serve, tmp_path: Path) -> None:
    url, models, at = prometheus(telemetry(420, nodes=1)), tmp_path / "kept", START + 400 * STEP
    judge, card = training.train([telemetry(300, nodes=1)], STATE, Settings(0.1, 3, 0), lambda *_: None)
    office = registry.write(models, judge, card)
    clock = Clock()
    with Prometheus(url) as client:
        fleet = Fleet(client, signals.load(), models, STEP)
        plan = Plan(url, signals.DEFAULT, models, STEP, 0.1, history=0.5, trial=0.01, iterations=150, niceness=0)
        life = LifeCycle(fleet, plan, clock)
        service = Service(fleet, STEP, life, clock)
        clock.now = at
        service.tick()
        life.retrain()
        ticks = 0
        while not life.events.counts:
            service.tick()
            ticks += 1
            time.sleep(0.1)
        assert life.events.counts == {("retrain", "ok"): 1}
        assert ticks > 10
        while not {("promote", "ok"), ("reject", "ok")} & life.events.counts.keys():
            clock.now += STEP
            service.tick()
        service.tick()
        page = service.metrics().decode()
    candidate = next(version for version in models.rglob("card.json") if version.parent != office)
    written = registry.Card.model_validate_json(candidate.read_text())
    assert written.rebuild_error is not None
    assert written.rebuild_error_before is not None
    # More iterations, on the live fleet, are better: it is promoted, and the office guards it.
    assert written.rebuild_error < written.rebuild_error_before
    assert fleet.office == models / candidate.parent.name
    assert 'stethos_detector_model_events_total{kind="promote",result="ok"} 1.0' in page
    assert f'stethos_detector_shadow_info{{version="{office.name}"}} 1.0' in page


def test_a_new_power_limit_ends_a_gpus_own_history_and_nobody_elses(prometheus: Serve, tmp_path: Path) -> None:
    fleet_ = telemetry(200)
    limits = np.full((1, *fleet_.values.shape[1:]), 700.0, np.float32)
    limits[0, 5, 150:] = 500.0
    described = signals.load().describe("power_limit_watts")
    limited = replace(fleet_, signals=(*fleet_.signals, described), values=np.concatenate([fleet_.values, limits]))
    with Prometheus(prometheus(limited)) as client:
        fleet = Fleet(client, signals.load(), tmp_path / "none", STEP)
        fleet.tick(START + 149 * STEP)
        fleet.tick(START + 150 * STEP)
        held = fleet._window.telemetry().values[row("power_watts"), :, -3:]
    own = list(fleet._window.gpus).index((fleet_.gpus[5].node, fleet_.gpus[5].gpu))
    assert np.isnan(held[own, :2]).all()
    assert not np.isnan(held[own, 2])
    assert not np.isnan(np.delete(held, own, axis=0)).any()
