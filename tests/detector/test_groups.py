from dataclasses import replace
from types import SimpleNamespace
from typing import cast

import numpy as np
import pytest

from detector import groups, signals
from detector.calibration import BLOCK, HISTORY, HORIZONS, Thresholds, calibrate
from detector.residuals import Judge, PeerJudge, Residuals
from detector.telemetry import IDLE, Floats

from .fleets import telemetry


def test_a_group_scores_when_half_of_it_is_off_in_the_same_signal() -> None:
    fleet = telemetry(steps=2)
    ratios = np.zeros((2, len(fleet.gpus)), np.float32)
    ratios[0, :5] = 3.0  # five of the eight GPUs of node-01
    found = groups.find(ratios, fleet).scores
    assert found["node", "node-01"] == pytest.approx(3.0)
    ratios[0, :8] = 3.0  # one of the two nodes of the rack
    assert groups.find(ratios, fleet).scores["rack", "rack-1"] == 0.0
    ratios[0, 8] = 3.0
    assert groups.find(ratios, fleet).scores["rack", "rack-1"] == pytest.approx(3.0)
    assert found["rack", "rack-1"] == 0.0


def test_a_signal_that_half_of_a_group_does_not_report_says_nothing_of_it() -> None:
    fleet = telemetry(steps=2)
    ratios = np.full((2, len(fleet.gpus)), 0.25, np.float32)
    ratios[0, :8] = [4, 4, 4, 4, -np.inf, -np.inf, -np.inf, -np.inf]
    ratios[:, 8:14] = -np.inf  # of node-02 two can be judged, too few
    found = groups.find(ratios, fleet).scores
    assert found["node", "node-01"] == pytest.approx(0.25)
    assert ("node", "node-02") not in found
    expected = np.quantile(ratios[:, [*range(8), 14, 15]], 0.5, axis=1, method="lower").max()
    assert found["rack", "rack-1"] == pytest.approx(expected)


def test_idle_gpus_say_nothing_of_what_only_work_shows() -> None:
    fleet = telemetry(steps=2)
    fleet.job[:] = IDLE
    ratios = np.full((2, len(fleet.gpus)), 0.25, np.float32)
    ratios[0, :8] = [4, 4, 4, -np.inf, -np.inf, -np.inf, -np.inf, -np.inf]
    assert groups.find(ratios, fleet).scores["node", "node-01"] == pytest.approx(0.25)
    fleet.job[:3] = 0
    assert groups.find(ratios, fleet).scores["node", "node-01"] == pytest.approx(4.0)
    fleet.job[2], ratios[0, 2] = IDLE, -np.inf  # two are too few to tell of it
    assert groups.find(ratios, fleet).scores["node", "node-01"] == pytest.approx(0.25)
    fleet.job[:7], ratios[0, 2] = 0, 4.0
    assert groups.find(ratios, fleet).scores["node", "node-01"] == pytest.approx(0.25)


def test_idle_gpus_whose_readings_move_do_not_hide_their_braked_node_nor_do_those_whose_job_has_just_ended() -> None:
    fleet = telemetry(steps=HISTORY + 1)
    fleet.job[:] = IDLE
    fleet.job[:3, :-4] = 0
    clock = replace(signals.load().describe("sm_clock_hertz"), hides=())
    shared = np.full((3, len(fleet.gpus), HISTORY), np.nan, np.float32)
    shared[0, :3, :-4] = -4.0  # with the network's help, against the node's peers, and for how long it stood still
    shared[2] = 0.0
    thresholds = Thresholds(np.full((len(HORIZONS), 4), 2.0, np.float32))
    judge = cast(Judge, SimpleNamespace(signals=(clock,), own=thresholds, shared=thresholds, group_units={}))
    scores = groups.settle(judge, Residuals(np.zeros_like(shared), shared), fleet).scores
    assert scores["node", "node-01"] == pytest.approx(4.0 * 20 / 24 / 2.0)
    assert scores["rack", "rack-1"] == 0.0
    shared[0] = np.nan
    shared[2, 8:] = 6.0  # all of the rack's other node stands still
    scores = groups.settle(judge, Residuals(np.zeros_like(shared), shared), fleet).scores
    assert scores["node", "node-02"] >= 1
    assert scores["rack", "rack-1"] == 0.0  # and nothing more


WORK = signals.Signal("work", follows="job")
CLOCK, POWER = signals.Signal("clock", mask="clocks", hides=("power",)), signals.Signal("power", mask="power")


def off(node: float, rack: float = 0.0) -> groups.Found:
    """By so much in the first of two signals: node-01, and its rack."""
    return groups.Found((("node", "node-01"), ("rack", "rack-1")), np.array([[node, rack], [0, 0]], np.float32))


def test_what_a_node_is_told_of_its_job_is_not() -> None:
    fleet = telemetry(steps=2)
    fleet.job[:] = IDLE
    fleet.job[:8] = 0
    shared = np.zeros((2, len(fleet.gpus), HISTORY), np.float32)
    shared[:, :8] = -3.0
    judge = PeerJudge((CLOCK, POWER), ("utilization_ratio", "power_watts"))

    def scores() -> dict[tuple[str, str], float]:
        return groups.settle(judge, Residuals(np.ones_like(shared), shared.copy()), fleet).scores

    assert scores()["node", "node-01"] >= 1
    assert ("job", "job-a") not in scores()
    fleet.job[8:11] = 0  # of the few elsewhere nothing is known, for too many of the others are off
    assert ("job", "job-a") not in scores()
    fleet.job[:], shared[:] = 0, -3.0  # all nodes, none of which is more the job's than another
    assert scores()["node", "node-02"] >= 1
    assert scores()["job", "job-a"] >= 1


def test_ranks_beside_a_node_that_is_off_are_no_measure_for_the_others() -> None:
    fleet = telemetry(steps=2)
    fleet.job[:] = IDLE
    fleet.job[:16] = 0
    shared = np.zeros((2, len(fleet.gpus), HISTORY), np.float32)
    judge = PeerJudge((CLOCK, POWER), ("utilization_ratio", "power_watts"))

    def forgotten() -> list[int]:
        own = np.ones_like(shared)
        groups.settle(judge, Residuals(own, shared), fleet)
        return np.flatnonzero(np.isnan(own).all(axis=(0, 2))).tolist()

    assert forgotten() == []
    shared[:, :8] = -3.0
    assert forgotten() == list(range(8, 16))  # neither the node's own nor who works for nobody
    assert np.isnan(shared[:, 8:16]).all()  # nor are they the measure for their node
    fleet.job[2:8, -1] = IDLE  # two of its ranks are few beside eight
    shared[:, 8:16] = 0.0
    assert forgotten() == []


def test_what_a_whole_node_or_rack_goes_off_by_is_no_finding_about_its_gpus() -> None:
    fleet = telemetry(steps=2)
    ratios = np.full((2, len(fleet.gpus)), 2.0, np.float32)
    ratios[:, 1] = -np.inf

    def left(found: groups.Found, judged: tuple[signals.Signal, ...]) -> Floats:
        rest = groups.apart(ratios, found, judged, fleet)
        assert np.isneginf(rest[:, 1]).all()
        return np.where(ratios > 0, rest, 2.0).astype(np.float32) / 2.0

    assert (left(off(0.5), (CLOCK, POWER)) == 1).all()
    half = left(off(0.75), (CLOCK, POWER))  # less power follows from a lower clock
    assert (left(off(0.75), (CLOCK, WORK)) == half).all()  # and less work
    assert (half[:, [0, *range(2, 8)]] == 0.5).all()
    assert (half[:, 8:] == 1).all()
    assert left(off(0.75), (POWER, CLOCK))[:, 0].tolist() == [0.5, 1.0]
    gone = left(off(0.0, 1.2), (CLOCK, POWER))[0] == 0
    assert gone.tolist() == [gpu.rack == "rack-1" and row != 1 for row, gpu in enumerate(fleet.gpus)]


def lower(members: Floats) -> Floats:
    middle: Floats = np.nanquantile(members, 0.5, axis=1, method="lower")
    return middle


def test_medians_are_what_numpy_says_of_each_group_and_a_job_counts_while_it_runs() -> None:
    fleet = telemetry(steps=130)
    values = np.random.default_rng(4).standard_normal((2, len(fleet.gpus), 130)).astype(np.float32)
    values[0, 3, 10:20] = np.nan
    found = groups.medians(values, fleet)
    nodes, racks = len({gpu.node for gpu in fleet.gpus}), len({gpu.rack for gpu in fleet.gpus})
    assert {kind: [part.shape for part in parts] for kind, parts in found.items()} == {
        "node": [(2, nodes, 130)],
        "rack": [(2, racks, 130)],
        "job": [(2, 1, BLOCK)],  # the second is the only one in which it runs
    }
    np.testing.assert_allclose(found["node"][0][:, 0], np.nanmedian(values[:, :8], axis=1), rtol=1e-6)
    np.testing.assert_allclose(found["rack"][0][:, 0], lower(values[:, :16]), rtol=1e-6)
    np.testing.assert_allclose(found["job"][0][:, 0], lower(values[:, :16, BLOCK : 2 * BLOCK]), rtol=1e-6)
    fleet.job[:16, 70:75] = IDLE
    paused, *_ = groups.medians(values, fleet)["job"]
    assert np.isnan(paused[:, 0, 10:15]).all()
    assert not np.isnan(paused[:, 0, 15:]).any()


def test_the_middle_of_many_is_steadier_and_less_of_it_is_much() -> None:
    random = np.random.default_rng(8)
    usual = {"node": 1.0, "rack": 0.6}
    blocks = {kind: random.exponential(scale, (2, 3, 4000)).astype(np.float32) for kind, scale in usual.items()}
    units = groups.units(blocks)
    assert units == {"rack": pytest.approx(0.6, rel=0.1)}
    nobody = np.zeros((2, 3, 0), np.float32)
    assert groups.units({"node": blocks["node"], "rack": nobody}) == {}
    fleet = telemetry(steps=2)
    ratios = np.full((2, len(fleet.gpus)), 0.7, np.float32)
    found = groups.find(ratios, fleet, {"rack": 0.5}).scores
    assert found["node", "node-01"] == pytest.approx(0.7)
    assert found["rack", "rack-1"] == pytest.approx(1.4)


def test_a_node_that_is_silent_for_longer_than_upkeep_takes_is_an_alarm_of_its_own() -> None:
    gpus = telemetry(steps=2).gpus
    silence = np.repeat([20, 20, 0, -1], 8)
    silence[3] = 10  # one of its GPUs was the last to be heard
    gone = silence != 0
    found = groups.silent(silence, gone, gpus, step=30.0)
    assert found.scores == {("node", "node-01"): 0.5, ("node", "node-02"): 1.0}
    assert found.causes == {("node", "node-02"): "missing"}
    assert groups.silent(silence, gone, gpus, step=300.0).scores["node", "node-02"] == 2.0
    gone[:16] = False  # their exporter answers
    assert groups.silent(silence, gone, gpus, step=30.0).scores == {}


def test_a_job_of_several_roles_is_one_group() -> None:
    fleet = telemetry(steps=110)
    roles = np.where((fleet.job != IDLE) & (np.arange(len(fleet.gpus)) < 8)[:, None], 1, fleet.job).astype(np.int32)
    parted = replace(fleet, job=roles, jobs=("job-a", "job-a"))
    values = np.random.default_rng(4).standard_normal((2, len(fleet.gpus), 110)).astype(np.float32)
    np.testing.assert_array_equal(groups.medians(values, parted)["job"], groups.medians(values, fleet)["job"])
    one, other = (groups.find(values[..., 0], each.newest(10)) for each in (fleet, parted))
    assert ("job", "job-a") in one.keys
    assert other.scores == one.scores
    np.testing.assert_array_equal(groups.members(("job", "job-a"), parted), groups.members(("job", "job-a"), fleet))


def test_a_whole_job_that_draws_more_power_has_more_to_do_and_one_that_draws_less_may_be_held_back() -> None:
    power = signals.load().describe("power_watts")
    temperature, clock = (signals.load().describe(name) for name in ("temperature_celsius", "sm_clock_hertz"))
    assert power.direction == "both"
    common = groups.signals((power, temperature, clock))
    assert [signal.direction for signal in common] == ["low", "high", "low"]
    maxima = np.random.default_rng(6).exponential(1.0, (len(HORIZONS), 4, 400)).astype(np.float32)
    found = calibrate(maxima, common, 1e-3)
    assert np.isinf(found.values[0, :2]).all()  # only what lasts, of heat as well
    assert np.isfinite(found.values[:, 2]).all()
    assert np.isfinite(found.spike).all()


def test_a_group_that_is_off_tells_why() -> None:
    fleet = telemetry(steps=2)
    fleet.job[:] = IDLE
    known = signals.load()
    clock, power = known.describe("sm_clock_hertz"), known.describe("power_watts")
    shared = np.zeros((2, len(fleet.gpus), HISTORY), np.float32)
    shared[:, :8] = -3.0  # less power follows from a lower clock
    judge = PeerJudge((clock, power), ("utilization_ratio", "power_watts"))
    found = groups.settle(judge, Residuals(np.zeros_like(shared), shared), fleet)
    assert found.causes == {("node", "node-01"): "clocks"}
    shared[0] = 0.0
    assert groups.settle(judge, Residuals(np.zeros_like(shared), shared), fleet).causes == {
        ("node", "node-01"): "power_loss"
    }


def test_of_two_halves_of_a_job_that_differ_the_louder_is_off() -> None:
    fleet = telemetry(steps=2)
    fleet.job[:] = IDLE
    fleet.job[:4] = 0
    judge = PeerJudge((CLOCK, POWER), ("utilization_ratio", "power_watts"))

    def scores(*of_ranks: float) -> list[float]:
        own = np.zeros((2, len(fleet.gpus), HISTORY), np.float32)
        at_threshold = judge.own.values[1, 1]
        own[1, :4] = np.array(of_ranks)[:, None] * at_threshold
        own[1, 4] = 1.5 * at_threshold  # no rank of theirs
        ratios = groups.weigh(judge, Residuals(own, np.zeros_like(own)), fleet)[1].max(axis=0)
        assert ratios[4] == pytest.approx(1.5)
        return [float(ratio) for ratio in ratios[:4]]

    assert scores(2.0, 1.9, 1.5, 0.5) == pytest.approx([2.0, 1.9, -np.inf, 0.5])  # half of its peers and more
    assert scores(2.0, 1.5, 0.5, 0.5) == pytest.approx([2.0, 1.5, 0.5, 0.5])  # one of three
    assert scores(2.0, 2.0, 2.0, 0.5) == pytest.approx([2.0, 2.0, 2.0, 0.5])  # none is louder
