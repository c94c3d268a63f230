"""The comparison: what methods are given, what they must not see, and what is counted."""

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from detector.__main__ import cli
from detector.evaluation import contamination, measures, rules, truth
from detector.evaluation.baselines import BASELINES, forecast
from detector.evaluation.baselines.series import prepare
from detector.evaluation.case import Case, build
from detector.evaluation.measures import Unit
from detector.evaluation.methods import METHODS, Outcome, Setup
from detector.evaluation.stress import STRESS
from detector.evaluation.truth import Row
from detector.telemetry import Telemetry
from detector.training import Settings

from .fleets import START, STEP, row, telemetry
from .test_scoring import recorded

SPLIT = 240
SETUP = Setup(Settings(1.0, 5, 0), ("utilization_ratio", "power_watts"))


def happening(node: str, gpu: str | None, begin: int, end: int, kind: str = "thermal_paste") -> Row:
    """A truth row for the given steps."""
    return Row(node, gpu, kind, 0.8, START + begin * STEP - 1, START + end * STEP - 1)


@pytest.fixture(scope="module")
def case() -> Case:
    fleet = telemetry(360, seed=4, nodes=2)
    fleet.values[row("temperature_celsius"), 5, 280:320] += 40
    rows = [happening("node-01", "5", 280, 320)]
    return build("hand", fleet, SPLIT, rows, 24, np.zeros((16, 120), bool), fleet=True)


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """The forecasters need not be good here."""
    monkeypatch.setattr(forecast, "_UPDATES", 40)


@pytest.mark.parametrize("name", [name for name in METHODS if name != "stethos"])
def test_no_method_looks_ahead_or_at_the_truth(name: str, case: Case) -> None:
    steps = 30
    known = METHODS[name](case, SETUP).scores
    later = case.telemetry.values.copy()
    later[..., SPLIT + steps :] = later[..., SPLIT + steps :][..., ::-1] * 3
    other = replace(
        case,
        telemetry=replace(case.telemetry, values=later),
        events=(),
        labels=~case.labels,
        excused=~case.excused,
        rules=~case.rules,
    )
    np.testing.assert_allclose(METHODS[name](other, SETUP).scores[:, :steps], known[:, :steps], rtol=1e-5)


@pytest.mark.parametrize("name", [name for name in BASELINES if name != "random"])
def test_every_baseline_sees_a_gpu_that_overheats_grossly(name: str, case: Case) -> None:
    figures = measures.units(case, METHODS[name](case, SETUP))[0].figures
    assert figures["auc_roc"] > 0.7


def test_baselines_get_no_gap_and_learn_their_scale_from_the_training_part(case: Case) -> None:
    values = case.telemetry.values.copy()
    values[:, 3, 100:300] = np.nan
    values[row("power_watts"), :, SPLIT:] *= 50
    series = prepare(replace(case.telemetry, values=values), SPLIT, by_model=True)
    unscaled = prepare(case.telemetry, SPLIT, by_model=True)
    assert np.isfinite(series.values).all()
    others = [gpu for gpu in range(16) if gpu != 3]
    np.testing.assert_allclose(series.values[others, :SPLIT], unscaled.values[others, :SPLIT], atol=0.1)


def test_a_rack_s_fault_is_one_event_and_one_begun_in_training_is_none() -> None:
    fleet = telemetry(100, nodes=4)
    rows = [happening(f"node-0{node}", None, 60, 80, "hot_inlet") for node in (1, 2)]
    found = truth.events([*rows, happening("node-03", "1", 30, 55), happening("node-04", "2", 10, 20)], fleet, 50, 0)
    assert [(event.start, event.end, len(event.entities)) for event in found] == [(-20, 5, 1), (10, 30, 16)]
    recovering = truth.events([happening("node-04", "2", 10, 48)], fleet, 50, 5)
    assert truth.mask(recovering, 32, 50, 5).sum() == 3
    assert not truth.mask(recovering, 32, 50, 0).any()
    made = build("hand", fleet, 50, rows, 10, np.zeros((32, 50), bool), fleet=True)
    assert made.base_rate == pytest.approx(16 * 20 / (32 * 50))
    assert made.excused[0].sum() == 25


def test_the_rules_see_silence_double_bits_and_fatal_codes_but_not_a_missed_scrape() -> None:
    fleet = telemetry(60, nodes=1)
    fleet.values[:, 1, 20] = np.nan
    fleet.values[:, 2, 20:] = np.nan
    xid = np.zeros((1, 8, 60), np.float32)
    xid[0, 4, 30:40], xid[0, 5, 30:40] = 79, 31
    double_bits = np.zeros((1, 8, 60), np.float32)
    double_bits[0, 6, 50:] = 1
    named = tuple(replace(fleet.signals[0], name=name) for name in ("xid", "ecc_uncorrected_total"))
    alarms = rules.alarms(
        replace(fleet, signals=fleet.signals + named, values=np.concatenate([fleet.values, xid, double_bits]))
    )
    # The codes themselves go on being reported, so nothing here is silent.
    assert sorted(set(np.flatnonzero(alarms.any(axis=1)).tolist())) == [4, 6]
    alone = rules.alarms(fleet)
    assert np.flatnonzero(alone.any(axis=1)).tolist() == [2]
    assert int(np.argmax(alone[2])) == 23


def outcome(case: Case, value: float, steps: slice, gpus: slice | list[int]) -> Outcome:
    scores = np.full(case.labels.shape, 0.5, np.float32)
    scores[gpus, steps] = value
    return Outcome(scores, 1.0, 1.0, calibrated=True, causes={(5, 45): "cooling"})


def test_the_figures_of_a_fleet_are_those_counted_by_hand(case: Case) -> None:
    found = measures.units(case, outcome(case, 2.0, slice(45, 50), [5, 9]))[0].figures
    assert found["event_recall_shipped"] == 1
    assert found["median_delay_steps"] == 5
    assert found["cause_right"] == 1
    assert found["false_alarms_per_1000h"] == pytest.approx(1000 / (16 * 120 * STEP / 3600))
    silent = measures.units(case, outcome(case, 0.9, slice(0, 120), slice(None)))[0].figures
    assert silent["event_recall_shipped"] == silent["false_alarms_per_1000h"] == 0


def test_a_group_s_false_alarm_is_one_however_many_gpus_it_has(case: Case) -> None:
    found = outcome(case, 2.0, slice(45, 50), [5])
    alarming = np.zeros(120, np.float32)
    alarming[90:95] = 3.0  # long after the event
    grouped = replace(found, own=found.scores, groups={("node", "node-01"): alarming, ("rack", "rack-1"): 0 * alarming})
    hour = 1000 / (16 * 120 * STEP / 3600)
    figures = measures.units(case, grouped)[0].figures
    assert figures["false_alarms_per_1000h"] == pytest.approx(hour)
    assert figures["false_alarms_of_gpus_per_1000h"] == 0
    assert measures.alarm_bins(case, grouped, 60)[:2].tolist() == [3.0, 0.5]
    # While one of eight is in an event, an alarm of all is wrong; while half are, it is right.
    at_once = replace(grouped, groups={("node", "node-01"): np.roll(alarming, -48)})
    assert measures.alarm_bins(case, at_once, 60)[0] == 3.0
    excused = case.excused.copy()
    excused[:4] = excused[5]
    assert measures.alarm_bins(replace(case, excused=excused), at_once, 60)[0] == 0.5


def test_event_recall_is_pooled_with_one_threshold_for_all_fleets() -> None:
    quiet = Unit({}, np.array([3.0, 1.0]), 500.0, np.array([2.0, 5.0]), np.array([np.inf, 5.0]))
    loud = Unit({}, np.array([9.0, 4.0]), 500.0, np.array([6.0]), np.array([6.0]))
    found = measures.pooled([quiet, loud])
    assert found["event_recall_1_per_1000h"] == pytest.approx(2 / 3)
    assert found["event_recall_0.1_per_1000h"] == 0
    assert found["event_recall_0.1_per_1000h_with_rules"] == pytest.approx(1 / 3)


def test_an_interval_holds_its_mean_and_a_constant_difference_has_none() -> None:
    values = np.random.default_rng(1).random(12)
    units = [Unit({"vus_pr": float(value)}) for value in values]
    found = measures.interval(units)["vus_pr"]
    assert found["mean"] == pytest.approx(values.mean())
    assert found["low"] < found["mean"] < found["high"]
    better = [Unit({"vus_pr": float(value) + 0.1}) for value in values]
    differs = measures.difference(better, units, "vus_pr")
    assert differs["low"] == pytest.approx(0.1)
    assert differs["high"] == pytest.approx(0.1)


def test_hit_rates_come_from_the_signals_that_were_blamed() -> None:
    fleet = telemetry(100, nodes=1)
    rows = [happening("node-01", "0", 60, 70)]
    case = build("servers", fleet, 50, rows, 10, np.zeros((8, 50), bool), fleet=False)
    guilty = replace(case.events[0], signals=("power_watts", "sm_clock_hertz"))
    blame = np.zeros((5, 8, 50), np.float32)
    blame[row("power_watts"), 0, 10:20], blame[row("utilization_ratio"), 0, 10:20] = 3, 2
    blame[row("sm_clock_hertz"), 0, 10:20] = 1
    told = Outcome(np.zeros((8, 50), np.float32), 0, 0, blame)
    figures = measures.units(replace(case, events=(guilty,)), told)[0].figures
    assert (figures["hit_rate_100"], figures["hit_rate_150"]) == (0.5, 1.0)


@pytest.mark.parametrize("name", STRESS)
def test_stress_leaves_the_past_of_who_is_there_as_it_was_and_takes_from_the_test(name: str, case: Case) -> None:
    harder = STRESS[name](case, 1)
    before, after = case.telemetry.values, harder.telemetry.values
    there = ~np.isnan(after[..., :SPLIT]).all(axis=(0, 2))
    assert there.mean() == (0.5 if "node" in name else 1.0)
    np.testing.assert_array_equal(after[:, there, :SPLIT], before[:, there, :SPLIT])
    share = np.isnan(after[..., SPLIT:]).mean()
    expected = {"10": 0.1, "30": 0.3, "signal": 0.2, "node": 0.5}
    assert share == pytest.approx(next(value for key, value in expected.items() if key in name), abs=0.02)


def test_another_beginning_keeps_the_test_part(case: Case) -> None:
    learned = telemetry(SPLIT, seed=9, nodes=2)
    joined = contamination.before(learned, case.telemetry, SPLIT)
    np.testing.assert_array_equal(joined.values[..., :SPLIT], learned.values)
    np.testing.assert_array_equal(joined.values[..., SPLIT:], case.telemetry.values[..., SPLIT:])
    jobs = {joined.jobs[job] for job in np.unique(joined.job) if job >= 0}
    assert jobs == {"job-a"}
    assert not set(np.unique(joined.job[:, :SPLIT])) & set(np.unique(joined.job[:, SPLIT:])) - {-1}


def utc(step: int) -> datetime:
    return datetime.fromtimestamp(START + step * STEP - 1, UTC)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A recording of somebody's own, with its truth."""
    fleet: Telemetry = telemetry(300, seed=4, nodes=1)
    fleet.values[row("temperature_celsius"), 5, 200:240] += 40
    recorded(fleet, tmp_path / "recording.parquet")
    event = {"node": "node-01", "gpu": "5", "kind": "hot", "severity": 1.0, "start": utc(200), "end": utc(240)}
    pq.write_table(pa.Table.from_pylist([event]), tmp_path / "truth.parquet")
    return tmp_path


def test_evaluate_prints_a_table_and_writes_json(folder: Path) -> None:
    out = folder / "report.json"
    methods = [word for name in ("random", "peer_z", "linear_one_hop") for word in ("--methods", name)]
    done = CliRunner().invoke(
        cli, ["evaluate", "--data", str(folder), "--seeds", "2", "--json", str(out), *methods], catch_exceptions=False
    )
    assert done.exit_code == 0, done.output
    report = json.loads(out.read_text(), parse_constant=lambda name: pytest.fail(f"{name} is not JSON"))
    assert report["events"] == 1
    assert 0 < report["base_rate"] < 0.1
    assert set(report["methods"]) == {"random", "peer_z", "linear_one_hop"}
    for figures in report["methods"].values():
        assert {"mean", "low", "high"} == set(figures["vus_pr"])
        assert "event_recall_1_per_1000h" in figures
    assert report["methods"]["peer_z"]["auc_roc"]["mean"] > 0.9
    assert "base rate 0." in done.output
    assert "linear_one_hop" in done.output


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--data", "asd"], "Error: asd is not part of this project: name the folder that holds it with --datasets"),
        (["--data", "smd", "--datasets", "."], "Error: smd is not there: smd19 is no folder"),
        (["--data", "/nowhere"], "Error: /nowhere/recording.parquet does not exist"),
        (["--data", ".", "--methods", "magic"], "Error: there is no method 'magic'"),
        (["--data", ".", "--methods", "pca", "--stress"], "Error: stress and quiet hours are for stethos"),
        (["--data", ".", "--contamination"], "Error: contamination and quiet hours need synthetic fleets"),
    ],
)
def test_what_cannot_be_compared_is_said_in_a_sentence(
    arguments: list[str], message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("STETHOS_DATA", raising=False)
    done = CliRunner().invoke(cli, ["evaluate", *arguments])
    assert done.exit_code == 1
    assert message in done.output


@pytest.mark.slow
def test_a_synthetic_fleet_is_recorded_learned_scored_and_measured(tmp_path: Path) -> None:
    out = tmp_path / "report.json"
    small = [
        "--nodes",
        "2",
        "--history-hours",
        "1",
        "--hours",
        "1",
        "--step",
        "6",
        "--faults",
        "4",
        "--iterations",
        "5",
        "--seeds",
        "1",
    ]
    methods = ["--methods", "stethos", "--methods", "random"]
    done = CliRunner().invoke(cli, ["evaluate", "--data", "synthetic", *small, *methods, "--json", str(out)])
    assert done.exit_code == 0, done.output
    figures = json.loads(out.read_text())["methods"]["stethos"]
    assert 0 <= figures["vus_pr"]["mean"] <= 1
    assert figures["event_recall_shipped"]["mean"] is not None
    assert figures["train_seconds"] > 0
