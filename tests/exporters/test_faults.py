"""Each kind of fault leaves the traces that its counterpart in a real fleet leaves, and grows with its severity."""

from functools import cache

import numpy as np
import pytest

from exporters.synthetic import sensors
from exporters.synthetic.faults import KINDS
from exporters.synthetic.fleet import Fleet, build
from exporters.synthetic.impairment import EFFECTS
from exporters.synthetic.parts import ConflictError, Load

GPU = 3
SECONDS = 200


def broken(kind: str | None, severity: float = 0.8, model: str = "H100", seconds: int = SECONDS) -> Fleet:
    """Two nodes in two racks, each training; the fault befalls GPU 3 of the first, or that node, or its rack."""
    fleet = build(2, 8, 8, [model], seed=7)
    for node in fleet.nodes:
        fleet.add_load(node, range(8), "training", 0.95, f"job-{node}")
    advance(fleet, 120, 5)
    if kind is not None:
        part = KINDS[kind].part
        fleet.add_fault(
            kind,
            None if part == "rack" else "node-01",
            GPU if part == "gpu" else None,
            severity,
            rack="rack-1" if part == "rack" else None,
        )
    return advance(fleet, seconds)


def advance(fleet: Fleet, seconds: int, step: int = 2) -> Fleet:
    for _ in range(seconds // step):
        fleet.step(step)
    return fleet


@cache
def healthy() -> Fleet:
    return broken(None)


def value(fleet: Fleet, name: str, gpu: int = GPU) -> float:
    return float(fleet.matrix()[sensors.ROW[name], gpu])


def load(fleet: Fleet) -> Load:
    return next(iter(fleet.loads.values()))


def codes(fleet: Fleet, gpu: int = GPU) -> set[int]:
    return {code for place, code in fleet.xids.get("node-01", {}) if place == gpu}


def test_every_kind_has_an_effect() -> None:
    assert set(KINDS) == set(EFFECTS)
    assert len(KINDS) == 19


def test_a_hot_inlet_heats_the_rack_and_no_other() -> None:
    fleet = broken("hot_inlet", 1.0)
    for gpu in range(8):
        assert value(fleet, "temperature_celsius", gpu) > value(healthy(), "temperature_celsius", gpu) + 8
    assert value(fleet, "temperature_celsius", 8) == pytest.approx(value(healthy(), "temperature_celsius", 8), abs=2)


def test_a_power_brake_slows_the_node_and_says_so() -> None:
    fleet = broken("power_brake", 0.8)
    for gpu in range(8):
        assert int(value(fleet, "clocks_event_reasons", gpu)) & 0x88 == 0x88
        assert value(fleet, "sm_clock_megahertz", gpu) < 1100
    assert int(value(fleet, "clocks_event_reasons", 8)) & 0x88 == 0


def test_a_straggler_starves_while_its_peers_wait_at_high_utilization() -> None:
    fleet = broken("straggler", 0.8)
    assert value(fleet, "utilization_percent") < value(fleet, "utilization_percent", 0) - 10
    assert value(fleet, "power_watts", 0) < value(healthy(), "power_watts", 0) - 60
    assert value(fleet, "sm_clock_megahertz") == value(healthy(), "sm_clock_megahertz")
    assert value(fleet, "tensor_active_ratio", 0) < 0.7 * value(healthy(), "tensor_active_ratio", 0)


def test_lost_efficiency_is_power_for_nothing() -> None:
    fleet = broken("efficiency_loss", 0.6)
    assert value(fleet, "power_watts") > value(healthy(), "power_watts") + 40
    assert value(fleet, "tensor_active_ratio") == pytest.approx(value(healthy(), "tensor_active_ratio"), rel=0.1)


@pytest.mark.parametrize(("severity", "expected"), [(0.3, {63, 94}), (0.9, {48, 63, 95})])
def test_a_double_bit_error_ends_the_job_and_leaves_its_xids(severity: float, expected: set[int]) -> None:
    fleet = broken("ecc_uncorrectable", severity, seconds=4)
    assert codes(fleet) == expected
    assert value(fleet, "ecc_uncorrected_count") == 1
    assert value(fleet, "row_remap_pending") == 1
    assert value(fleet, "xid_code") == max(expected)
    assert value(fleet, "recovery_action") == (1 if severity >= 0.5 else 4)
    assert load(fleet).state == "interrupted"
    assert f"XID {max(expected)}" in (load(fleet).reason or "")


def test_repair_clears_the_last_xid_but_not_the_count() -> None:
    fleet = broken("ecc_uncorrectable", 0.9, seconds=4)
    fleet.clear_fault("fault-1")
    advance(fleet, 4)
    assert value(fleet, "xid_code") == 0
    assert value(fleet, "row_remap_pending") == 0
    assert value(fleet, "ecc_uncorrected_lifetime_count") == 1
    assert codes(fleet) == {48, 63, 95}


def test_rows_are_remapped_until_there_are_none_left() -> None:
    fleet = advance(broken("row_remap", 1.0, seconds=10), 1200, 10)
    assert value(fleet, "remapped_rows_correctable") >= 8
    assert value(fleet, "row_remap_failure") == 1
    assert codes(fleet) == {63, 64}
    mild = advance(broken("row_remap", 0.5, seconds=10), 1200, 10)
    assert value(mild, "row_remap_failure") == 0
    assert value(mild, "row_remap_pending") == 1


def test_a_flapping_link_comes_and_goes_and_counts_errors() -> None:
    fleet = broken("nvlink_flap", 1.0)
    assert value(fleet, "nvlink_recovery_errors") >= 2
    assert value(fleet, "nvlink_crc_flit_errors") > 100
    assert value(fleet, "nvlink_crc_flit_errors", 0) == 0
    assert codes(fleet) == {74}
    traffic = []
    for _ in range(100):
        advance(fleet, 2)
        traffic.append([value(fleet, "nvlink_megabytes_per_second", gpu) for gpu in (0, GPU)])
    peer, own = np.array(traffic).T
    share = own[peer > 0] / peer[peer > 0]
    assert share.min() < 0.4
    assert share.max() > 0.8


def test_a_gpu_without_nvlink_cannot_flap() -> None:
    fleet = build(1, 2, 8, ["L40S"], 7)
    with pytest.raises(ConflictError, match="has no NVLink"):
        fleet.add_fault("nvlink_flap", "node-01", 0, 0.5)
    assert fleet.faults == {}
    assert fleet.history == []


@pytest.mark.parametrize(("severity", "lanes"), [(0.2, 8), (0.5, 4), (1.0, 1)])
def test_a_narrow_bus_has_fewer_lanes(severity: float, lanes: int) -> None:
    fleet = broken("pcie_width", severity, seconds=60)
    assert value(fleet, "pcie_link_width") == lanes
    assert value(fleet, "pcie_link_width_max") == 16
    assert value(fleet, "pcie_rx_bytes_per_second") < 64e9 * lanes / 16


def test_a_leak_fills_the_memory_and_then_ends_the_job() -> None:
    fleet = broken("memory_leak", 1.0, seconds=60)
    grown = value(fleet, "framebuffer_used_mebibytes") - value(fleet, "framebuffer_used_mebibytes", 0)
    assert grown == pytest.approx(60 * 25, abs=120)
    advance(fleet, 3000, 10)
    assert load(fleet).reason == "out of memory on GPU 3 of node node-01"
    assert value(fleet, "framebuffer_used_mebibytes") < 1000


def test_a_stuck_sensor_says_the_same_whatever_happens() -> None:
    fleet = broken("sensor_stuck", 0.9, seconds=4)
    said = value(fleet, "temperature_celsius"), value(fleet, "power_watts")
    fleet.remove_load("load-1")
    advance(fleet, 300)
    assert (value(fleet, "temperature_celsius"), value(fleet, "power_watts")) == said
    assert value(fleet, "temperature_celsius", 0) < 40
    fleet.clear_fault("fault-1")
    assert value(advance(fleet, 4), "temperature_celsius") < 40


def test_a_hanging_exporter_freezes_readings_or_silences_them() -> None:
    frozen, mute = broken("exporter_hang", 0.3, seconds=2), broken("exporter_hang", 0.9, seconds=2)
    before = frozen.matrix()[:, :8].copy()
    advance(frozen, 60)
    assert np.array_equal(frozen.matrix()[:, :8], before, equal_nan=True)
    assert frozen.age_seconds("node-01") >= 60
    assert not np.isnan(frozen.matrix()[:, 8:]).all()
    assert np.isnan(mute.matrix()[:, :8]).all()
    assert not mute.hears("node-01")
    assert load(mute).state == "running"


def test_a_fault_on_a_node_that_is_down_is_refused() -> None:
    fleet = broken("node_crash", 1.0, seconds=2)
    with pytest.raises(ConflictError, match="node 'node-01' is down"):
        fleet.add_fault("hang", "node-01", 1, 1.0)
    fleet.pause("node-02", "reboot", 60)
    with pytest.raises(ConflictError, match="node 'node-02' is down"):
        fleet.add_fault("node_crash", "node-02", None, 1.0)
    assert len(fleet.history) == 1


def test_removing_the_last_node_of_a_rack_ends_the_racks_fault() -> None:
    fleet = broken("hot_inlet", 1.0, seconds=2)
    fleet.remove_node("node-01")
    assert fleet.faults == {}
    advance(fleet, 2)
