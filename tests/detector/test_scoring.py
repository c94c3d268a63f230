"""Scoring the past says what the service said when it was the present."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from detector import recording, registry, scoring, signals, training, verdicts
from detector.__main__ import cli
from detector.fleet import Fleet
from detector.promql import Prometheus
from detector.scoring import Step
from detector.state import Snapshot
from detector.telemetry import IDLE, UNKNOWN, Telemetry
from detector.topology import KINDS
from detector.training import Settings

from .conftest import Serve
from .fleets import START, STEP, row, telemetry

STATE = ("utilization_ratio", "power_watts")
STEPS = 150
WATCHED = range(112, STEPS)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    judge, card = training.train([telemetry(400, seed=7)], STATE, Settings(1.0, 15, 0), lambda *_: None)
    return registry.write(tmp_path_factory.mktemp("models"), judge, card)


@pytest.fixture(scope="module")
def eventful() -> Telemetry:
    """One GPU grows hot, one falls off the bus, one loses a reading here and there, and a whole rack warms up."""
    fleet = telemetry(STEPS, seed=3)
    fleet.values[row("temperature_celsius"), 21, 120:] += 15
    fleet.values[:, 6, 128:] = np.nan
    fleet.values[row("power_watts"), 3, 100::3] = np.nan
    fleet.values[row("temperature_celsius"), 16:, 125:] += 8
    return fleet


def recorded(fleet: Telemetry, path: Path) -> Path:
    """The telemetry as a recording."""
    steps, gpus = len(fleet.timestamps), len(fleet.gpus)
    columns: dict[str, object] = {
        "timestamp": pa.array(np.repeat(fleet.timestamps * 1e6, gpus).astype("int64"), pa.timestamp("us", tz="UTC")),
        "job": [None if job == IDLE else fleet.jobs[job] for job in fleet.job.T.ravel().tolist()],
    }
    if fleet.software is not None:
        told = [fleet.releases[code].split() if code != UNKNOWN else (None, None) for code in fleet.software.T.ravel()]
        columns["driver"], columns["vbios"] = map(list, zip(*told, strict=True))
    for name in ("node", "gpu", "model", "rack"):
        columns[name] = [getattr(gpu, name) for gpu in fleet.gpus] * steps
    for signal, plane in zip(fleet.signals, fleet.values, strict=True):
        columns[signal.name] = pa.array(plane.T.ravel(), pa.float32(), mask=np.isnan(plane.T.ravel()))
    pq.write_table(pa.table(columns), path)
    return path


def assert_same(live: Sequence[Snapshot], offline: Sequence[Step]) -> None:
    for snapshot, step in zip(live, offline, strict=True):
        verdicts = {gpu.uuid: verdict for gpu, verdict in snapshot.verdicts.items()}
        found = {gpu.uuid: verdict for gpu, verdict in step.findings.items()}
        assert verdicts.keys() == found.keys()
        for uuid, verdict in verdicts.items():
            assert found[uuid].score == pytest.approx(verdict.score, abs=1e-5)
            assert found[uuid].cause == verdict.cause
            assert dict(found[uuid].contributions) == pytest.approx(dict(verdict.contributions), abs=1e-4)
        assert dict(step.groups) == pytest.approx(dict(snapshot.groups), abs=1e-5)


def test_live_and_offline_agree_and_so_do_prometheus_and_a_recording(
    prometheus: Serve, model: Path, eventful: Telemetry, tmp_path: Path
) -> None:
    url = prometheus(eventful)
    with Prometheus(url) as client:
        fleet = Fleet(client, signals.load(), model.parent, STEP)
        live = [fleet.tick(START + step * STEP + 1.0) for step in WATCHED]
    judge, _ = registry.read(model)
    offline = list(scoring.score(eventful, judge, WATCHED.start))
    assert_same(live, offline)
    causes = {cause for step in offline for cause in step.findings.causes.values()}
    assert "missing" in causes

    def scores(*source: str) -> pa.Table:
        out = tmp_path / "scores.parquet"
        done = CliRunner().invoke(cli, ["score", *source, "--model", str(model), "--out", str(out)])
        assert done.exit_code == 0, done.output
        return pq.read_table(out)

    def utc(step: int) -> str:
        return f"{datetime.fromtimestamp(START + step * STEP, UTC):%Y-%m-%dT%H:%M:%SZ}"

    by_recording = scores("--recording", str(recorded(eventful, tmp_path / "recording.parquet")))
    by_prometheus = scores("--prometheus", url, "--start", utc(0), "--end", utc(STEPS - 1))
    assert by_recording.column_names[:6] == ["timestamp", "node", "gpu", "score", "common_mode_score", "cause"]
    assert by_recording.column_names[6:] == [f"{what}_{n}" for n in (1, 2, 3) for what in ("signal", "contribution")]
    keys = [("timestamp", "ascending"), ("node", "ascending"), ("gpu", "ascending")]
    first, second = by_recording.sort_by(keys), by_prometheus.sort_by(keys)
    for name in ("timestamp", "node", "gpu", "cause"):
        assert first[name].equals(second[name]), name
    np.testing.assert_allclose(first["score"].to_numpy(), second["score"].to_numpy(), atol=1e-5)


def test_live_and_offline_agree_when_limits_and_drivers_change(
    prometheus: Serve, eventful: Telemetry, tmp_path: Path
) -> None:
    """Before the service looks for the first time, and while it watches; also through a recording."""
    power_limit = signals.load().describe("power_limit_watts")

    def limited(fleet: Telemetry) -> Telemetry:
        steps = len(fleet.timestamps)
        limit = np.full((1, len(fleet.gpus), steps), 700, np.float32)
        limit[0, 1, steps // 2 :] = limit[0, 9, 130:] = 500
        software = np.zeros((len(fleet.gpus), steps), np.int32)
        software[8:16, 60:], software[24:, 124:] = 1, 1
        software[:, 75::10] = UNKNOWN
        values = np.concatenate([fleet.values, limit])
        return replace(
            fleet, signals=(*fleet.signals, power_limit), values=values, software=software, releases=("1 v", "2 v")
        )

    judge, card = training.train([limited(telemetry(400, seed=7))], STATE, Settings(1.0, 15, 0), lambda *_: None)
    assert set(card.software_of) == {"1 v", "2 v"}
    registry.write(tmp_path / "models", judge, card)
    fleet = limited(eventful)
    with Prometheus(prometheus(fleet)) as client:
        live = [Fleet(client, signals.load(), tmp_path / "models", STEP)]
        snapshots = [live[0].tick(START + step * STEP + 1.0) for step in WATCHED]
    offline = list(scoring.score(fleet, judge, WATCHED.start))
    assert_same(snapshots, offline)
    for step, renewed in ((124, list(range(24, 32))), (130, [9])):
        past = np.isnan(offline[step - WATCHED.start].own[..., :-1]).all(axis=(0, 2))
        assert np.flatnonzero(past).tolist() == renewed
    again = recording.read(recorded(fleet, tmp_path / "recording.parquet"), signals.load())
    for one, other in zip(scoring.score(again, judge, WATCHED.start), offline, strict=True):
        order = [again.gpus.index(replace(gpu, uuid="")) for gpu in fleet.gpus]
        np.testing.assert_allclose(one.findings.score[order], other.findings.score, atol=1e-5)


def test_a_step_does_not_depend_on_what_comes_later(model: Path, eventful: Telemetry) -> None:
    judge, _ = registry.read(model)
    later = replace(eventful, values=eventful.values.copy())
    later.values[..., 130:] *= 2
    first, second = (list(scoring.score(fleet, judge, 120))[:10] for fleet in (eventful, later))
    for one, other in zip(first, second, strict=True):
        np.testing.assert_array_equal(one.findings.score, other.findings.score)
        assert one.groups == other.groups


def test_a_gpu_that_was_never_seen_has_no_score_and_neither_has_a_silent_node(model: Path) -> None:
    fleet = telemetry(110, seed=5)
    fleet.values[:, 0] = np.nan
    fleet.values[:, 8:16, 100:] = np.nan
    judge, _ = registry.read(model)
    scores = next(scoring.score(fleet, judge, 109)).findings.score
    assert np.isnan(scores[0])
    assert np.isnan(scores[8:16]).all()
    assert not np.isnan(scores[16:]).any()


@pytest.mark.parametrize("working", [0, 2])
def test_an_exporter_that_hangs_is_told_of_its_node_and_of_none_of_its_gpus(model: Path, working: int) -> None:
    fleet = telemetry(STEPS, seed=5)
    fleet.values[:, working:8], fleet.job[working:8] = fleet.values[:, 16 + working : 24], IDLE
    fleet.values[:, :8, 105:] = fleet.values[:, :8, 104:105]
    judge, _ = registry.read(model)
    steps = list(scoring.score(fleet, judge, 103))
    assert max(step.groups["node", "node-01"] for step in steps[8:15]) >= 1
    assert max(max(step.groups.values()) for step in steps[:3]) < 1
    own = [verdicts.worst(verdicts.ratios(step.own[:, :8], judge.signals, judge.own)) for step in steps[:15]]
    assert np.max(own) < 1


def test_a_folder_of_models_is_its_newest_and_one_of_other_signals_is_refused(
    model: Path, eventful: Telemetry, tmp_path: Path
) -> None:
    path, out = recorded(eventful.newest(30), tmp_path / "recording.parquet"), tmp_path / "scores.parquet"
    command = ["score", "--recording", str(path), "--model", str(model.parent), "--out", str(out)]
    assert CliRunner().invoke(cli, command).exit_code == 0
    assert out.exists()
    names = [*pq.read_schema(path).names[:6], *(f"other_{name}" for name in pq.read_schema(path).names[6:])]
    pq.write_table(pq.read_table(path).rename_columns(names), path)
    out.unlink()
    refused = CliRunner().invoke(cli, command)
    assert refused.exit_code == 1
    assert f"model {model.name} knows none of the signals that are to be scored" in refused.output
    assert not out.exists()


def test_peers_can_be_left_out_of_training_as_they_are_out_of_the_service(tmp_path: Path) -> None:
    fleet = telemetry(300, nodes=1)
    path = recorded(fleet, tmp_path / "recording.parquet")
    options = [f"--no-edges={kind}" for kind in KINDS]
    for name, chosen in (("all", []), ("none", options)):
        out = str(tmp_path / name)
        done = CliRunner().invoke(
            cli, ["train", "--recording", str(path), "--iterations", "2", "--threads", "1", "--out", out, *chosen]
        )
        assert done.exit_code == 0, done.output
    judge, _ = training.train([replace(fleet, edges=frozenset())], STATE, Settings(0.1, 2, 0), lambda *_: None)
    made, other = (registry.read(registry.versions(tmp_path / name)[0])[0] for name in ("none", "all"))
    assert registry.pack(made) == registry.pack(judge) != registry.pack(other)


def test_a_scores_file_needs_a_model_that_is_one(tmp_path: Path, eventful: Telemetry) -> None:
    path = recorded(eventful, tmp_path / "recording.parquet")
    out = tmp_path / "scores.parquet"
    done = CliRunner().invoke(
        cli, ["score", "--recording", str(path), "--model", str(tmp_path / "none"), "--out", str(out)]
    )
    assert done.exit_code == 1
    assert "Error: model" in done.output
    assert not out.exists()
