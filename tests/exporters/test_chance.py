"""What comes by chance: kinds by weight, chaos by rate, upkeep that breaks nothing; all of it by seed."""

from collections import Counter

import numpy as np
import pytest

from exporters.synthetic.chance import Jobs, Upkeep, draw, target
from exporters.synthetic.chaos import Chaos, Profile
from exporters.synthetic.faults import KINDS
from exporters.synthetic.fleet import Fleet, build


def test_few_faults_are_different_ones_and_many_follow_the_weights() -> None:
    rng = np.random.default_rng(7)
    assert len(set(draw(10, rng))) == 10
    assert set(draw(len(KINDS), rng)) == set(KINDS)
    counts = Counter(draw(20_000, rng))
    total = sum(kind.weight for kind in KINDS.values())
    for name, kind in KINDS.items():
        assert counts[name] / 20_000 == pytest.approx(kind.weight / total, rel=0.2)


def test_what_only_load_shows_befalls_a_gpu_at_work() -> None:
    fleet, rng = build(4, 8, 32, ["H100"], 7), np.random.default_rng(7)
    assert target(fleet, "straggler", rng) is None
    fleet.add_load("node-03", [5], "training", 0.9)
    assert {target(fleet, "straggler", rng) for _ in range(20)} == {("node-03", 5, None)}


def test_flaps_befall_gpus_with_nvlink_only() -> None:
    fleet, rng = build(2, 8, 32, ["L40S", "H100"], 7), np.random.default_rng(7)
    for node in fleet.nodes:
        fleet.add_load(node, range(8), "training", 0.9)
    parts = [target(fleet, "nvlink_flap", rng) for _ in range(50)]
    assert {part[0] for part in parts if part} == {"node-02"}


def chaotic(seed: int) -> tuple[Fleet, Chaos]:
    fleet = build(8, 2, 32, ["H100"], seed)
    for node in fleet.nodes:
        fleet.add_load(node, [0, 1], "training", 0.9)
    chaos = Chaos(fleet)
    return fleet, chaos


def test_chaos_comes_at_its_rates_and_each_fault_lasts_half_a_minute() -> None:
    fleet, chaos = chaotic(7)
    chaos.profile = Profile(kinds=("fan_failure", "straggler"))
    for _ in range(600):  # 100 minutes
        chaos.step(10.0)
        fleet.step(10.0)
    counts = Counter(fault.node for fault in fleet.history)
    # 5 + 8 + 12 + 6 + 10 + 7 + 9 + 11 % of 100 minutes: 68 faults, give or take 3 σ
    assert 44 <= len(fleet.history) <= 92
    assert counts["node-03"] > counts["node-01"]
    lengths = [fault.end_seconds - fault.start_seconds for fault in fleet.history if fault.end_seconds]
    assert set(lengths) == {30.0}


def test_chaos_is_the_same_for_the_same_seed_and_nothing_when_off() -> None:
    histories = []
    for seed in (7, 7, 8):
        fleet, chaos = chaotic(seed)
        chaos.profile = Profile(rates_percent_per_minute=(60.0,))
        for _ in range(200):
            chaos.step(5.0)
            fleet.step(5.0)
        histories.append([(each.kind, each.node, each.gpu, each.start_seconds) for each in fleet.history])
    assert histories[0] == histories[1] != histories[2]
    fleet, chaos = chaotic(7)
    for _ in range(200):
        chaos.step(5.0)
    assert fleet.history == []


def test_a_reboot_ends_loads_and_comes_back_by_itself_without_being_a_fault() -> None:
    fleet = build(2, 4, 32, ["H100"], 7)
    load = fleet.add_load("node-01", [0], "training", 0.9)
    for _ in range(10):
        fleet.step(5.0)
    fleet.pause("node-01", "reboot", 60)
    fleet.step(5.0)
    assert (load.state, load.reason) == ("interrupted", "node node-01: reboot")
    assert fleet.is_down("node-01")
    assert fleet.readings("node-01") == []
    for _ in range(12):
        fleet.step(5.0)
    back = fleet.readings("node-01")[0]
    assert back.xid_code == 0
    assert back.energy_millijoules is not None
    assert back.energy_millijoules < 5_000_000
    assert fleet.history == []
    assert fleet.xids == {}


def test_a_driver_restart_hides_the_gpus_and_a_gap_only_a_scrape() -> None:
    fleet = build(2, 4, 32, ["H100"], 7)
    load = fleet.add_load("node-02", [0], "training", 0.9)
    fleet.pause("node-01", "driver_restart", 20)
    fleet.pause("node-02", "scrape_gap", 20)
    fleet.step(5.0)
    assert not fleet.is_down("node-01")
    assert fleet.hears("node-01")
    assert fleet.readings("node-01") == []
    assert not fleet.hears("node-02")
    for _ in range(4):
        fleet.step(5.0)
    assert len(fleet.readings("node-01")) == 4
    assert fleet.hears("node-02")
    assert load.state == "running"


def test_upkeep_comes_at_its_rhythm() -> None:
    fleet = build(20, 1, 32, ["H100"], 7)
    upkeep = Upkeep(fleet, np.random.default_rng(7))
    gaps = reboots = 0
    for _ in range(8640):  # 24 hours of 20 nodes: 40 gaps, 2 reboots
        before = dict(fleet.pauses)
        upkeep.step(10.0)
        fresh = [pause for name, pause in fleet.pauses.items() if before.get(name) != pause]
        gaps += sum(pause.kind == "scrape_gap" for pause in fresh)
        reboots += sum(pause.kind == "reboot" for pause in fresh)
        fleet.seconds += 10.0
        fleet.pauses = {name: each for name, each in fleet.pauses.items() if each.end_seconds > fleet.seconds}
    assert 22 <= gaps <= 60
    assert reboots <= 8


def test_a_programs_own_xid_is_counted_and_breaks_nothing() -> None:
    fleet = build(1, 4, 32, ["H100"], 7)
    load = fleet.add_load("node-01", range(4), "training", 0.9)
    fleet.application_error("node-01", 2, 31)
    fleet.step(5.0)
    assert fleet.readings("node-01")[2].xid_code == 31
    assert fleet.xids["node-01"][2, 31].count == 1
    assert fleet.history == []
    assert load.state == "running"


def test_some_jobs_end_by_their_own_mistake() -> None:
    fleet, rng = build(4, 8, 32, ["H100"], 7), np.random.default_rng(7)
    jobs = Jobs(fleet, rng)
    for _ in range(480):  # 8 hours
        jobs.step(60.0)
        fleet.step(60.0)
    codes = Counter({code for seen in fleet.xids.values() for _, code in seen})
    assert codes
    assert set(codes) <= {13, 31, 43}
