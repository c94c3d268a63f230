"""The causal model does what hardware does: load heats, faults heat more, and the more severe the more."""

from functools import cache

import numpy as np
import pytest

from exporters.synthetic import sensors
from exporters.synthetic.fleet import Fleet, build

ALL = list(range(8))


@cache
def settled(
    kind: str | None = None,
    fault: str | None = None,
    severity: float = 0.8,
    model: str = "H100",
    seconds: int = 420,
) -> Fleet:
    """One node after a while under load, with a fault on GPU 3."""
    fleet = build(1, 8, 32, [model], seed=7)
    if kind is not None:
        fleet.add_load("node-01", ALL, kind, 0.95)
    if fault is not None:
        fleet.add_fault(fault, "node-01", 3, severity)
    step = 1 if seconds < 60 else 3
    for _ in range(seconds // step):
        fleet.step(step)
    return fleet


def field(fleet: Fleet, name: str, gpu: int = 3) -> float:
    return float(fleet.matrix()[sensors.ROW[name], gpu])


def test_an_idle_h100_is_cool_and_slow() -> None:
    fleet = settled()
    assert 24 <= field(fleet, "temperature_celsius") <= 34
    assert 60 <= field(fleet, "power_watts") <= 80
    assert field(fleet, "utilization_percent") == 0
    assert field(fleet, "sm_clock_megahertz") == 345


def test_load_heats() -> None:
    idle, busy = settled(), settled("matrix")
    assert field(busy, "power_watts") > 580
    assert 60 <= field(busy, "temperature_celsius") <= 72
    assert field(busy, "temperature_celsius") > field(idle, "temperature_celsius") + 30
    assert field(busy, "sm_clock_megahertz") > 1900


def test_warming_up_takes_its_time() -> None:
    fleet = settled("matrix", seconds=5)
    early = field(fleet, "temperature_celsius")
    for _ in range(25):
        fleet.step(1.0)
    later = field(fleet, "temperature_celsius")
    assert early < 42 < later < 65


@pytest.mark.parametrize("load", [None, "matrix"])
def test_bad_paste_heats_more_idle_and_loaded(load: str | None) -> None:
    assert field(settled(load, "thermal_paste"), "temperature_celsius") >= (
        field(settled(load), "temperature_celsius") + 3
    )


def test_heat_grows_with_severity_until_the_clock_gives_way() -> None:
    temperatures, clocks = [], []
    for severity in (0.1, 0.2, 0.6, 1.0):
        fleet = settled("matrix", "thermal_paste", severity)
        temperatures.append(field(fleet, "temperature_celsius"))
        clocks.append(field(fleet, "sm_clock_megahertz"))
    assert temperatures[0] < temperatures[1] < temperatures[2]
    assert clocks[0] == clocks[1] > clocks[2] > clocks[3]
    assert max(temperatures) <= 89


def test_overheating_throttles_for_heat_and_a_lowered_limit_for_power() -> None:
    hot, capped = settled("matrix", "thermal_paste"), settled("matrix", "power_cap")
    assert field(hot, "thermal_violation_nanoseconds") > 60e9
    assert field(hot, "power_violation_nanoseconds") == 0
    assert int(field(hot, "clocks_event_reasons")) & 0x20
    assert field(capped, "power_violation_nanoseconds") > 60e9
    assert field(capped, "thermal_violation_nanoseconds") == 0
    assert int(field(capped, "clocks_event_reasons")) & 0x4
    assert field(capped, "power_limit_watts") == pytest.approx(336)
    assert field(capped, "power_watts") < 345


def test_a_failed_fan_heats_the_memory_too_but_bad_paste_does_not() -> None:
    healthy, fan, paste = settled("matrix"), settled("matrix", "fan_failure"), settled("matrix", "thermal_paste")
    assert field(fan, "memory_temperature_celsius") > field(healthy, "memory_temperature_celsius") + 10
    assert field(paste, "memory_temperature_celsius") <= field(healthy, "memory_temperature_celsius") + 1


def test_a_card_with_fans_turns_them_up_under_load_and_says_so() -> None:
    idle, busy = (settled(kind, model="RTX4090", seconds=180) for kind in (None, "matrix"))
    assert field(idle, "fan_percent") == 50
    assert 60 < field(busy, "fan_percent") < 100
    assert np.isnan(field(settled("matrix"), "fan_percent"))  # the node's fans cool an H100


def test_a_failed_fan_is_answered_by_more_speed() -> None:
    healthy, failed = (settled("matrix", fault, model="RTX4090") for fault in (None, "fan_failure"))
    assert field(failed, "fan_percent") > field(healthy, "fan_percent") + 10
    assert field(failed, "temperature_celsius") > field(healthy, "temperature_celsius") + 5
    assert field(failed, "fan_percent", gpu=0) == pytest.approx(field(healthy, "fan_percent", gpu=0), abs=2)


def test_a_nodes_fans_follow_its_hottest_gpu_and_cool_the_others_more() -> None:
    healthy, failed = settled("matrix"), settled("matrix", "fan_failure")
    assert field(failed, "temperature_celsius") > field(healthy, "temperature_celsius") + 8
    assert field(failed, "temperature_celsius", gpu=0) < field(healthy, "temperature_celsius", gpu=0)


def test_a_badly_fed_job_is_busy_at_low_power() -> None:
    fleet = build(1, 8, 32, ["A100"], seed=7)
    fleet.add_load("node-01", range(4), "training", 1.0, "fed", 1.0)
    fleet.add_load("node-01", range(4, 8), "training", 1.0, "starved", 0.05)
    for _ in range(150):
        fleet.step(1.0)
    assert field(fleet, "utilization_percent", 5) > 85
    assert field(fleet, "power_watts", 5) < 0.4 * field(fleet, "power_watts", 2)
    assert field(fleet, "tensor_active_ratio", 5) < 0.1 * field(fleet, "tensor_active_ratio", 2)


def test_stacked_memory_stays_warm_at_rest() -> None:
    resting = settled()
    assert field(resting, "memory_temperature_celsius") > field(resting, "temperature_celsius") + 8


def test_a_hung_gpu_looks_busy_and_draws_little() -> None:
    fleet = settled(None, "hang", 1.0)
    assert field(fleet, "utilization_percent") >= 98
    assert field(fleet, "power_watts") < 110


def test_a_stuck_clock_holds_up_the_whole_job() -> None:
    fleet, healthy = settled("training", "clock_stuck"), settled("training")
    assert field(fleet, "sm_clock_megahertz") == 780
    assert field(fleet, "tensor_active_ratio", gpu=0) < 0.6 * field(healthy, "tensor_active_ratio", gpu=0)
    assert field(fleet, "utilization_percent", gpu=0) >= 85


def test_ranks_of_a_job_move_together() -> None:
    fleet = settled("training", seconds=120)
    history = []
    for _ in range(300):
        fleet.step(1.0)
        history.append(fleet.matrix()[sensors.ROW["utilization_percent"], :2].copy())
    first, second = np.array(history).T
    assert np.corrcoef(first, second).ravel()[1] > 0.8


def test_ecc_errors_creep_and_healthy_gpus_have_none() -> None:
    fleet = settled("training", "ecc_creep")
    assert 80 < field(fleet, "ecc_corrected_count") < 260
    assert field(fleet, "ecc_corrected_count", gpu=0) == 0


def test_energy_is_the_integral_of_power() -> None:
    fleet = build(1, 8, 32, ["H100"], seed=7)
    watts = []
    for _ in range(200):
        fleet.step(1.0)
        watts.append(field(fleet, "power_watts"))
    assert field(fleet, "energy_millijoules") / 1000 == pytest.approx(sum(watts), rel=0.01)


def test_a_creeping_fault_grows_and_a_cleared_one_goes() -> None:
    fleet = build(1, 8, 32, ["H100"], seed=7)
    fleet.add_load("node-01", ALL, "matrix", 0.95)
    for _ in range(300):
        fleet.step(1.0)
    healthy = field(fleet, "temperature_celsius")
    fault = fleet.add_fault("thermal_paste", "node-01", 3, 0.3, "creeping", 600)
    for _ in range(200):
        fleet.step(1.0)
    third = field(fleet, "temperature_celsius")
    for _ in range(600):
        fleet.step(1.0)
    full = field(fleet, "temperature_celsius")
    assert healthy + 2 < third < full - 4
    fleet.clear_fault(fault.id)
    for _ in range(300):
        fleet.step(1.0)
    assert field(fleet, "temperature_celsius") == pytest.approx(healthy, abs=2)


def test_sensors_are_as_coarse_as_real_ones() -> None:
    fleet = settled("training")
    for gpu in ALL:
        assert field(fleet, "temperature_celsius", gpu).is_integer()
        assert field(fleet, "utilization_percent", gpu).is_integer()
        assert field(fleet, "sm_clock_megahertz", gpu) % 15 == 0
        power = field(fleet, "power_watts", gpu)
        assert power == round(power, 3)


def test_what_an_l40s_lacks_is_silent() -> None:
    fleet = settled("training", model="L40S", seconds=30)
    assert np.isnan(field(fleet, "memory_temperature_celsius"))
    assert np.isnan(field(fleet, "nvlink_megabytes_per_second"))
    assert field(fleet, "power_limit_watts") == 350


@pytest.mark.parametrize(("model", "idle", "limit"), [("H100", 70, 700), ("A100", 60, 400), ("L40S", 35, 350)])
def test_each_model_has_its_own_power_curve(model: str, idle: float, limit: float) -> None:
    resting, matrix, compute = (
        field(settled(kind, model=model, seconds=120), "power_watts") for kind in (None, "matrix", "compute")
    )
    assert resting == pytest.approx(idle, rel=0.08)
    assert 0.8 * limit < matrix <= 1.02 * limit
    assert resting + 0.25 * limit < compute < 0.8 * matrix


def test_vector_work_costs_a_board_without_stacked_memory_more_of_its_limit() -> None:
    shares = {
        model: field(settled("compute", model=model, seconds=120), "power_watts") / limit
        for model, limit in (("H100", 700), ("A100", 400), ("L40S", 350))
    }
    assert shares["L40S"] > shares["H100"] + 0.05


def test_the_step_length_does_not_matter_much() -> None:
    fine, coarse = settled("matrix", "thermal_paste", 0.3), build(1, 8, 32, ["H100"], seed=7)
    coarse.add_load("node-01", ALL, "matrix", 0.95)
    coarse.add_fault("thermal_paste", "node-01", 3, 0.3)
    for _ in range(42):
        coarse.step(10.0)
    assert field(coarse, "temperature_celsius") == pytest.approx(field(fine, "temperature_celsius"), abs=3)
