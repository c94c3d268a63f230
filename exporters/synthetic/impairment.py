"""What the faults in force do to each GPU's physics, all together."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import numpy as np

from exporters.synthetic.arrays import Flags, Floats, Integers
from exporters.synthetic.faults import Fault

_LANES = ((0.34, 8.0), (0.67, 4.0), (1.0, 1.0))  # up to this strength, so many lanes are left
_UNCONTAINED = 0.5
_REMAP_FAILS = 0.8


@dataclass(slots=True)
class Impairment:
    """One value per GPU; `healthy(n)` does nothing."""

    contact: Floats  # factor on the resistance between die and cooler
    airflow: Floats  # share of the air that its fan still moves at a given speed; memory shares it
    inlet_kelvin: Floats  # on top of the rack's air
    limit: Floats  # factor on the power limit
    clock: Floats  # factor on the highest clock
    braked: Flags  # the clock is held down from outside, by the power supply
    pace: Floats  # factor on the work done per clock: the host does not keep up
    appetite: Floats  # factor on the power that work takes
    hung: Floats  # share of the GPU that spins without working
    flapping: Floats  # share of NVLink that comes and goes
    lanes: Floats  # PCIe lanes at most
    leak_mebibytes_per_second: Floats
    ecc_per_second: Floats
    double_bits: Floats  # expected per second once the first has come; 0 for none
    uncontained: Flags
    remaps_per_second: Floats
    remap_fails: Flags
    replays_per_second: Floats
    temperature_stuck: Flags
    power_stuck: Flags
    lost: Flags  # off the bus
    gone: Flags  # lost, or the whole node is


def healthy(count: int) -> Impairment:
    """No fault anywhere; only the background rates that every fleet has."""

    def ones() -> Floats:
        return np.ones(count)

    def zeros() -> Floats:
        return np.zeros(count)

    def no() -> Flags:
        return np.zeros(count, np.bool_)

    return Impairment(
        contact=ones(),
        airflow=ones(),
        inlet_kelvin=zeros(),
        limit=ones(),
        clock=ones(),
        braked=no(),
        pace=ones(),
        appetite=ones(),
        hung=zeros(),
        flapping=zeros(),
        lanes=np.full(count, 16.0),
        leak_mebibytes_per_second=zeros(),
        ecc_per_second=np.full(count, 2e-7),
        double_bits=zeros(),
        uncontained=no(),
        remaps_per_second=zeros(),
        remap_fails=no(),
        replays_per_second=np.full(count, 1e-6),
        temperature_stuck=no(),
        power_stuck=no(),
        lost=no(),
        gone=no(),
    )


def _thermal_paste(now: Impairment, gpus: Integers, strength: float, _: bool) -> None:
    now.contact[gpus] *= 1 + 1.5 * strength


def _fan_failure(now: Impairment, gpus: Integers, strength: float, _: bool) -> None:
    now.airflow[gpus] *= 1 - 0.85 * strength


def _hot_inlet(now: Impairment, gpus: Integers, strength: float, _: bool) -> None:
    now.inlet_kelvin[gpus] += 18 * strength


def _power_brake(now: Impairment, gpus: Integers, strength: float, _: bool) -> None:
    now.clock[gpus] *= 1 - 0.6 * strength
    now.braked[gpus] = True


def _power_cap(now: Impairment, gpus: Integers, strength: float, _: bool) -> None:
    now.limit[gpus] *= 1 - 0.65 * strength


def _clock_stuck(now: Impairment, gpus: Integers, strength: float, _: bool) -> None:
    now.clock[gpus] *= 1 - 0.75 * strength


def _straggler(now: Impairment, gpus: Integers, strength: float, _: bool) -> None:
    now.pace[gpus] *= 1 - 0.6 * strength


def _efficiency_loss(now: Impairment, gpus: Integers, strength: float, _: bool) -> None:
    now.appetite[gpus] *= 1 + 0.4 * strength


def _hang(now: Impairment, gpus: Integers, strength: float, _: bool) -> None:
    now.hung[gpus] = np.maximum(now.hung[gpus], strength)


def _ecc_creep(now: Impairment, gpus: Integers, strength: float, _: bool) -> None:
    now.ecc_per_second[gpus] += 0.5 * strength


def _ecc_uncorrectable(now: Impairment, gpus: Integers, strength: float, peaked: bool) -> None:
    now.ecc_per_second[gpus] += 0.1 * strength
    if peaked:
        now.double_bits[gpus] += strength / 600
        now.uncontained[gpus] |= strength >= _UNCONTAINED


def _row_remap(now: Impairment, gpus: Integers, strength: float, _: bool) -> None:
    now.ecc_per_second[gpus] += 0.05 * strength
    now.remaps_per_second[gpus] += strength / 60
    now.remap_fails[gpus] |= strength >= _REMAP_FAILS


def _nvlink_flap(now: Impairment, gpus: Integers, strength: float, _: bool) -> None:
    now.flapping[gpus] = np.maximum(now.flapping[gpus], strength)


def _pcie_width(now: Impairment, gpus: Integers, strength: float, _: bool) -> None:
    lanes = next(left for most, left in _LANES if strength <= most)
    now.lanes[gpus] = np.minimum(now.lanes[gpus], lanes)
    now.replays_per_second[gpus] += 0.05 * strength


def _memory_leak(now: Impairment, gpus: Integers, strength: float, _: bool) -> None:
    now.leak_mebibytes_per_second[gpus] += 25 * strength


def _sensor_stuck(now: Impairment, gpus: Integers, strength: float, peaked: bool) -> None:
    now.temperature_stuck[gpus] |= peaked
    now.power_stuck[gpus] |= peaked and strength >= 0.7


def _off_the_bus(now: Impairment, gpus: Integers, strength: float, peaked: bool) -> None:
    now.replays_per_second[gpus] += 2.0 * strength
    now.lost[gpus] |= peaked
    now.gone[gpus] |= peaked


def _node_crash(now: Impairment, gpus: Integers, _: float, peaked: bool) -> None:
    now.gone[gpus] |= peaked


def _exporter_hang(_now: Impairment, _gpus: Integers, _: float, __: bool) -> None:
    """Nothing happens to the GPUs; only their readings stop."""


Effect = Callable[[Impairment, Integers, float, bool], None]

EFFECTS: dict[str, Effect] = {
    "fan_failure": _fan_failure,
    "thermal_paste": _thermal_paste,
    "hot_inlet": _hot_inlet,
    "power_brake": _power_brake,
    "power_cap": _power_cap,
    "clock_stuck": _clock_stuck,
    "straggler": _straggler,
    "efficiency_loss": _efficiency_loss,
    "ecc_creep": _ecc_creep,
    "ecc_uncorrectable": _ecc_uncorrectable,
    "row_remap": _row_remap,
    "nvlink_flap": _nvlink_flap,
    "pcie_width": _pcie_width,
    "off_the_bus": _off_the_bus,
    "hang": _hang,
    "memory_leak": _memory_leak,
    "sensor_stuck": _sensor_stuck,
    "node_crash": _node_crash,
    "exporter_hang": _exporter_hang,
}


def impairment(
    faults: Iterable[Fault], rows: Callable[[Fault], Integers], count: int, now_seconds: float
) -> Impairment:
    """All faults in force, applied. `rows` says which GPUs a fault befalls."""
    result = healthy(count)
    for fault in faults:
        EFFECTS[fault.kind](result, rows(fault), fault.strength(now_seconds), fault.has_peaked(now_seconds))
    return result
