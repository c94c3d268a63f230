"""The causal model, all GPUs at once: demand → clock and power → temperature → clock.

Heat: one resistance and one capacity per GPU (first-order lag), solved exactly, so that any step length is stable.
Air: a fan follows the temperature (its own GPU's, or the hottest of the node's where GPUs have none), and what
convection carries away grows with the flow.
Power: idle + dynamic, the dynamic part rising with the clock to a power of the model's (f·V², V rising with f).
"""

from collections.abc import Sequence
from dataclasses import dataclass, fields

import numpy as np

from exporters.synthetic.arrays import Flags, Floats, Integers
from exporters.synthetic.impairment import Impairment
from exporters.synthetic.models import GpuModel
from exporters.synthetic.workload import Demand

_SPIN_SHARE = 0.10  # waiting ranks poll: they look busy and draw little
_HUNG_SHARE = 0.03
_IDLE_AFTER_SECONDS = 8.0
_THERMAL_BAND_KELVIN = 2.0
_LOWEST_CLOCK = 0.15

# The models' resistance holds at _RATED_FAN. Forced convection: heat carried away rises with flow to the 0.8 (turbulent
# flow, Dittus and Boelter 1930).
_RATED_FAN, _SLOWEST_FAN = 0.75, 0.5
_FAN_RISES_CELSIUS, _FAN_FULL_CELSIUS = 40.0, 80.0
_FAN_SECONDS = 15.0
_CONVECTION_SHARE, _FLOW_EXPONENT = 0.6, 0.8
# Stacked memory keeps its clock at rest and stays warm.
_MEMORY_KELVIN, _MEMORY_SHARE, _MEMORY_DRAM_KELVIN = 15.0, 0.5, 15.0

# A link that is down costs more than its share of the traffic: every rank waits for the slowest link.
_LINK_SHARE, _LINK_WAIT = 0.8, 0.5
_LANES = 16.0
_NARROW_WAIT = 0.2  # of the pace, when hardly a lane is left: copies to and from the host take longer
_STARVED_SHARE = 0.5  # of the lost pace shows as time without a kernel

REASON_IDLE, REASON_POWER_CAP, REASON_THERMAL, REASON_BRAKE = 0x1, 0x4, 0x20, 0x88


@dataclass(slots=True)
class Cards:
    """What never changes about a GPU: its model's figures and how this one came out of the factory."""

    memory_mebibytes: Floats
    reserved_mebibytes: Floats
    idle_watts: Floats
    limit_watts: Floats
    sm_clock_megahertz: Floats
    idle_sm_clock_megahertz: Floats
    memory_clock_megahertz: Floats
    idle_memory_clock_megahertz: Floats
    slowdown_celsius: Floats
    resistance_kelvin_per_watt: Floats
    capacity_joules_per_kelvin: Floats
    nvlink_megabytes_per_second: Floats
    pcie_bytes_per_second: Floats
    pcie_generation: Floats
    reads_memory_temperature: Floats
    sm_share: Floats
    tensor_share: Floats
    dram_share: Floats
    clock_exponent: Floats
    own_fans: Floats
    data_center: Floats
    power_spread: Floats
    pace_spread: Floats
    inlet_offset_celsius: Floats


@dataclass(slots=True)
class State:
    """What one moment leaves for the next: one value per GPU."""

    temperature_celsius: Floats
    memory_temperature_celsius: Floats
    fan: Floats  # speed asked for, as a share of the highest
    allowed_watts: Floats  # the power limit that somebody has set
    idle_seconds: Floats
    gone_seconds: Floats
    energy_millijoules: Floats
    power_violation_nanoseconds: Floats
    thermal_violation_nanoseconds: Floats
    ecc_corrected: Floats
    ecc_uncorrected: Floats
    ecc_corrected_lifetime: Floats
    ecc_uncorrected_lifetime: Floats
    double_bit: Floats  # 1 while a fault that brings double-bit errors is in force and its first one has come
    remapped_correctable: Floats
    remapped_uncorrectable: Floats
    remap_pending: Floats
    remap_failure: Floats
    pcie_replays: Floats
    link_down_seconds: Floats  # how long NVLink will still be down
    link_crc_errors: Floats
    link_replays: Floats
    link_recoveries: Floats
    leaked_mebibytes: Floats
    stuck_celsius: Floats  # what a stuck sensor says; NaN while it works
    stuck_watts: Floats
    xid: Floats  # the last code; 0 for none since the driver was loaded


@dataclass(slots=True)
class Moment:
    """What the GPUs do during one step: one value per GPU."""

    utilization: Floats
    tensor: Floats
    dram: Floats
    pace: Floats  # work done, as a share of what the job asks for
    link: Floats  # share of NVLink that is up
    clock: Floats
    idle: Flags
    power_watts: Floats
    limit_watts: Floats
    power_throttled: Floats
    thermal_throttled: Floats
    braked: Flags
    lanes: Floats


def manufacture(models: Sequence[GpuModel], rng: np.random.Generator) -> Cards:
    """Cards of these models, each a little different: ±3 % in power and cooling, ±1 K by place in the rack."""
    count = len(models)
    figures = {
        each.name: np.array([getattr(model, each.name) for model in models], np.float64)
        for each in fields(GpuModel)
        if each.name not in ("name", "nvlink_by_rack")
    }
    cards = Cards(
        **figures,
        power_spread=1 + np.clip(rng.normal(0, 0.015, count), -0.03, 0.03),
        pace_spread=1 + np.clip(rng.normal(0, 0.004, count), -0.01, 0.01),
        inlet_offset_celsius=np.clip(rng.normal(0, 0.5, count), -1, 1),
    )
    cards.resistance_kelvin_per_watt *= 1 + np.clip(rng.normal(0, 0.015, count), -0.03, 0.03)
    return cards


def at_rest(cards: Cards, inlet_celsius: Floats) -> State:
    """GPUs that have idled for long."""
    count = len(cards.idle_watts)
    air = inlet_celsius + cards.inlet_offset_celsius
    state = State(*(np.zeros(count) for _ in fields(State)))
    state.fan += _SLOWEST_FAN
    state.allowed_watts += cards.limit_watts
    rise = cards.idle_watts * cards.resistance_kelvin_per_watt
    cooling = _cooling(state, np.ones(count))
    state.temperature_celsius = air + rise * cooling
    state.memory_temperature_celsius = air + (_MEMORY_KELVIN + _MEMORY_SHARE * rise) * cooling
    state.idle_seconds += 60.0
    state.stuck_celsius, state.stuck_watts = np.full(count, np.nan), np.full(count, np.nan)
    return state


def advance(
    cards: Cards,
    state: State,
    demand: Demand,
    faults: Impairment,
    inlet_celsius: Floats,
    node: Integers,
    seconds: float,
) -> Moment:
    """One step of `seconds`: changes `state`, returns what was seen on the way. `node`: each GPU's, counted up."""
    air = inlet_celsius + cards.inlet_offset_celsius + faults.inlet_kelvin
    cooling = _cooling(state, faults.airflow)
    resistance = cards.resistance_kelvin_per_watt * (faults.contact + cooling - 1.0)
    moment = _moment(cards, state, demand, faults, air, resistance)
    _heat(cards, state, moment, cooling, air, resistance, seconds)
    _blow(cards, state, node, seconds)
    _count(state, moment, faults, seconds)
    return moment


def _moment(cards: Cards, state: State, demand: Demand, faults: Impairment, air: Floats, resistance: Floats) -> Moment:
    working = 1.0 - faults.hung
    dynamic = (
        cards.limit_watts
        * cards.power_spread
        * faults.appetite
        * (cards.sm_share * demand.utilization + cards.tensor_share * demand.tensor + cards.dram_share * demand.dram)
    )
    leak = cards.idle_watts * cards.power_spread * (1 + 0.004 * (state.temperature_celsius - 30.0))
    limit = np.minimum(cards.limit_watts * faults.limit, state.allowed_watts)

    # Near the slowdown temperature the GPU holds the power it can get rid of, not the power it may draw.
    bearable = np.maximum((cards.slowdown_celsius - air) / resistance, leak)
    room = np.clip((cards.slowdown_celsius - state.temperature_celsius) / _THERMAL_BAND_KELVIN, 0.0, 1.0)
    thermal = np.where(bearable < limit, bearable + (limit - bearable) * room, limit)
    by_power = _clock_within(limit - leak, dynamic * working, cards.clock_exponent)
    by_heat = _clock_within(thermal - leak, dynamic * working, cards.clock_exponent)
    clock = np.minimum(np.minimum(by_power, by_heat), faults.clock)

    link = np.where(state.link_down_seconds > 0, 1.0 - _LINK_SHARE * faults.flapping, 1.0)
    held = faults.pace * np.where(demand.nvlink > 0, 1.0 - _LINK_WAIT * (1.0 - link), 1.0)
    held = held * (1.0 - _NARROW_WAIT * (1.0 - faults.lanes / _LANES))
    waiting = _waiting(demand, clock * working * held * cards.pace_spread)
    waiting = 1.0 - (1.0 - waiting) * demand.intensity
    work = working * (1.0 - waiting) * held
    idle = state.idle_seconds >= _IDLE_AFTER_SECONDS
    spinning = cards.limit_watts * (_SPIN_SHARE * demand.utilization * waiting * working + _HUNG_SHARE * faults.hung)
    return Moment(
        utilization=np.maximum(demand.utilization * (1.0 - _STARVED_SHARE * (1.0 - faults.pace)), faults.hung),
        tensor=demand.tensor * work,
        dram=demand.dram * work * clock,
        pace=work * clock,
        link=link,
        clock=clock,
        idle=idle,
        power_watts=leak + (dynamic * work + spinning) * clock**cards.clock_exponent,
        limit_watts=limit,
        power_throttled=np.clip((1.0 - by_power) * 12.0, 0.0, 1.0) * (by_power <= by_heat),
        thermal_throttled=np.clip((1.0 - by_heat) * 12.0, 0.0, 1.0) * (by_heat < by_power),
        braked=faults.braked,
        lanes=faults.lanes,
    )


def _clock_within(budget_watts: Floats, dynamic_watts: Floats, exponent: Floats) -> Floats:
    share = np.maximum(budget_watts, 1.0) / np.maximum(dynamic_watts, 1.0)
    within: Floats = np.clip(share, _LOWEST_CLOCK**exponent, 1.0) ** (1 / exponent)
    return within


def _waiting(demand: Demand, pace: Floats) -> Floats:
    # Ranks of a synchronous job finish a step together: the faster ones poll for the slowest one.
    slowest = np.full(demand.slot.max(initial=0) + 1, np.inf)
    np.minimum.at(slowest, demand.slot, pace)
    return np.where(demand.synchronous > 0, 1.0 - slowest[demand.slot] / np.maximum(pace, 1e-6), 0.0)


def _heat(
    cards: Cards,
    state: State,
    moment: Moment,
    cooling: Floats,
    air: Floats,
    resistance: Floats,
    seconds: float,
) -> None:
    approach = 1.0 - np.exp(-seconds / (resistance * cards.capacity_joules_per_kelvin))
    goal = air + moment.power_watts * resistance
    state.temperature_celsius += (goal - state.temperature_celsius) * approach
    shared = _MEMORY_SHARE * moment.power_watts * cards.resistance_kelvin_per_watt
    memory_goal = air + (_MEMORY_KELVIN + shared + _MEMORY_DRAM_KELVIN * moment.dram) * cooling
    state.memory_temperature_celsius += (memory_goal - state.memory_temperature_celsius) * approach


def _cooling(state: State, airflow: Floats) -> Floats:
    # Factor on the resistance to the air: more when less of it flows.
    flow = state.fan / _RATED_FAN * airflow
    factor: Floats = 1.0 + _CONVECTION_SHARE * (flow**-_FLOW_EXPONENT - 1.0)
    return factor


def _blow(cards: Cards, state: State, node: Integers, seconds: float) -> None:
    hottest = np.full(node.max(initial=0) + 1, -np.inf)
    np.maximum.at(hottest, node, state.temperature_celsius)
    heeded = np.where(cards.own_fans > 0, state.temperature_celsius, hottest[node])
    share = np.clip((heeded - _FAN_RISES_CELSIUS) / (_FAN_FULL_CELSIUS - _FAN_RISES_CELSIUS), 0.0, 1.0)
    goal = _SLOWEST_FAN + (1.0 - _SLOWEST_FAN) * share
    state.fan += (goal - state.fan) * (1.0 - np.exp(-seconds / _FAN_SECONDS))


def _count(state: State, moment: Moment, faults: Impairment, seconds: float) -> None:
    state.idle_seconds = np.where(moment.utilization > 0, 0.0, state.idle_seconds + seconds)
    state.gone_seconds = np.where(faults.gone, state.gone_seconds + seconds, 0.0)
    state.energy_millijoules += np.rint(moment.power_watts * seconds * 1e3)
    state.power_violation_nanoseconds += np.rint(moment.power_throttled * seconds * 1e9)
    state.thermal_violation_nanoseconds += np.rint(moment.thermal_throttled * seconds * 1e9)
    state.stuck_celsius = _stuck(faults.temperature_stuck, state.stuck_celsius, state.temperature_celsius)
    state.stuck_watts = _stuck(faults.power_stuck, state.stuck_watts, moment.power_watts)


def used_mebibytes(cards: Cards, state: State, demand: Demand) -> Floats:
    """What the driver, the job and its leaks hold."""
    capacity = cards.memory_mebibytes - cards.reserved_mebibytes
    used: Floats = np.rint(capacity * (0.006 + 0.985 * demand.memory) + state.leaked_mebibytes)
    return np.minimum(used, capacity)


def _stuck(now: Flags, value: Floats, true: Floats) -> Floats:
    return np.where(now, np.where(np.isnan(value), true, value), np.nan)
