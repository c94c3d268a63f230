"""The fleet: deterministic, and honest about what is gone."""

import numpy as np
import pytest

from exporters import dcgm
from exporters.synthetic import sensors
from exporters.synthetic.fleet import Fleet, build
from exporters.synthetic.parts import ConflictError, NotFoundError


def stepped(fleet: Fleet, seconds: int) -> Fleet:
    for _ in range(seconds):
        fleet.step(1.0)
    return fleet


def eventful(seed: int) -> Fleet:
    fleet = build(3, 8, 16, ["H100", "A100"], seed)
    fleet.add_load("node-02", [0, 1, 2], "training", 0.9, "a")
    stepped(fleet, 30)
    fleet.add_fault("ecc_creep", "node-02", 1, 0.7)
    fleet.add_node("node-04", 4, "L40S")
    stepped(fleet, 30)
    fleet.remove_node("node-01")
    return stepped(fleet, 30)


def test_the_same_seed_gives_the_same_bytes() -> None:
    pages = [
        "".join(dcgm.expose(fleet.readings(node), node) for node in fleet.nodes)
        for fleet in (eventful(7), eventful(7), eventful(8))
    ]
    assert pages[0] == pages[1]
    assert pages[0] != pages[2]


def test_readings_do_not_depend_on_who_looks() -> None:
    watched, alone = build(1, 8, 32, ["H100"], 7), build(1, 8, 32, ["H100"], 7)
    for _ in range(20):
        watched.step(1.0)
        watched.readings("node-01")
        alone.step(1.0)
    assert np.array_equal(watched.matrix(), alone.matrix(), equal_nan=True)


def test_nodes_fill_racks() -> None:
    fleet = build(5, 8, 16, ["H100"], 7)
    assert [node.place.rack for node in fleet.nodes.values()] == ["rack-1", "rack-1", "rack-2", "rack-2", "rack-3"]
    fleet.remove_node("node-01")
    assert fleet.add_node("node-09", 8).place.rack == "rack-1"


def test_removing_a_node_leaves_the_others_as_they_were() -> None:
    fleet = build(3, 8, 32, ["H100"], 7)
    fleet.add_load("node-03", [0], "matrix", 1.0)
    stepped(fleet, 100)
    before = fleet.readings("node-03")
    fleet.remove_node("node-02")
    assert fleet.readings("node-03") == before
    temperature = stepped(fleet, 1).readings("node-03")[0].temperature_celsius
    assert temperature is not None
    assert temperature > 55


def test_off_the_bus_leaves_an_xid_and_then_nothing() -> None:
    fleet = stepped(build(1, 8, 32, ["H100"], 7), 5)
    load = fleet.add_load("node-01", [2, 3], "training", 0.9)
    fleet.add_fault("off_the_bus", "node-01", 3, 1.0)
    stepped(fleet, 5)
    last_words = next(each for each in fleet.readings("node-01") if each.identity.gpu == 3)
    assert last_words.xid_code == 79
    assert last_words.temperature_celsius is None
    assert (load.state, load.reason) == ("interrupted", "XID 79: GPU 3 of node node-01 has fallen off the bus")
    assert fleet.free("node-01") == [0, 1, 2, 4, 5, 6, 7]
    assert [each.identity.gpu for each in stepped(fleet, 20).readings("node-01")] == [0, 1, 2, 4, 5, 6, 7]


def test_a_gpu_comes_back_with_counters_at_zero() -> None:
    fleet = stepped(build(1, 8, 32, ["H100"], 7), 50)
    fault = fleet.add_fault("off_the_bus", "node-01", 3, 1.0)
    stepped(fleet, 30)
    fleet.clear_fault(fault.id)
    back = stepped(fleet, 1).readings("node-01")[3]
    assert back.xid_code == 0
    assert back.energy_millijoules is not None
    assert back.energy_millijoules < 200_000


def test_a_creeping_loss_shows_in_replays_first() -> None:
    fleet = build(1, 8, 32, ["H100"], 7)
    fleet.add_fault("off_the_bus", "node-01", 3, 1.0, "creeping", 60)
    warning = stepped(fleet, 50).readings("node-01")[3]
    assert warning.pcie_replay_count is not None
    assert warning.pcie_replay_count > 10
    assert warning.xid_code == 0
    assert stepped(fleet, 11).readings("node-01")[3].xid_code == 79


def test_a_crashed_node_interrupts_its_loads_and_takes_no_new_ones() -> None:
    fleet = build(2, 8, 32, ["H100"], 7)
    here, there = (fleet.add_load(node, [0], "training", 0.9) for node in fleet.nodes)
    fleet.add_fault("node_crash", "node-01", None, 1.0)
    stepped(fleet, 1)
    assert (here.state, here.reason) == ("interrupted", "node node-01 is down")
    assert there.state == "running"
    with pytest.raises(ConflictError, match="node 'node-01' is down"):
        fleet.add_load("node-01", [1], "matrix", 1.0)


def test_loads_of_one_job_on_two_nodes_are_one_job() -> None:
    fleet = build(2, 8, 32, ["H100"], 7)
    for node in fleet.nodes:
        fleet.add_load(node, range(8), "training", 0.95, "wide")
    fleet.add_fault("clock_stuck", "node-01", 0, 1.0)
    stepped(fleet, 200)
    tensor = fleet.matrix()[sensors.ROW["tensor_active_ratio"]]
    assert tensor[8:].max() < 0.5 * tensor[0]


def test_a_gpu_carries_one_load() -> None:
    fleet = build(1, 8, 32, ["H100"], 7)
    load = fleet.add_load("node-01", [0, 1], "matrix", 1.0)
    with pytest.raises(ConflictError, match=f"GPU 1 of node 'node-01' carries {load.id} already"):
        fleet.add_load("node-01", [2, 1], "matrix", 1.0)
    assert fleet.free("node-01") == [2, 3, 4, 5, 6, 7]
    fleet.remove_load(load.id)
    assert fleet.free("node-01") == list(range(8))


def test_what_does_not_exist_is_named() -> None:
    fleet = build(1, 8, 32, ["H100"], 7)
    with pytest.raises(NotFoundError, match="node 'node-01' has no GPU 8; it has 0 to 7"):
        fleet.add_fault("hang", "node-01", 8, 1.0)
    with pytest.raises(NotFoundError, match="there is no node 'node-77'"):
        fleet.add_load("node-77", [0], "matrix", 1.0)
