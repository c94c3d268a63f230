"""What the sensors make of the truth: noise, whole degrees and percents, 15 MHz steps, and silence."""

from dataclasses import fields

import numpy as np

from exporters.reading import GpuReading
from exporters.synthetic.arrays import Flags, Floats
from exporters.synthetic.physics import (
    REASON_BRAKE,
    REASON_IDLE,
    REASON_POWER_CAP,
    REASON_THERMAL,
    Cards,
    Moment,
    State,
    used_mebibytes,
)
from exporters.synthetic.workload import Demand

FIELDS = tuple(each.name for each in fields(GpuReading) if each.name != "identity")
ROW = {name: row for row, name in enumerate(FIELDS)}

# What NVIDIA's consumer cards do not report.
_DATA_CENTER_ROWS = [
    row
    for name, row in ROW.items()
    if name.endswith("_active_ratio")
    or name.startswith(("ecc_", "remapped_", "row_remap_", "recovery_", "temperature_margin"))
]
_LAST_WORDS_SECONDS = 15.0  # a lost GPU's XID is still reported for this long; nothing else is
_IDLE_LANE_GENERATION = 1.0  # boards without NVLink let their bus slow down when nothing runs
_RESET, _DRAIN_AND_RESET = 1.0, 4.0


def read(cards: Cards, state: State, demand: Demand, moment: Moment, rng: np.random.Generator) -> Floats:
    """A matrix [len(FIELDS), gpus] of readings; NaN is what a GPU does not report."""
    noise = rng.standard_normal((6, len(moment.clock)))
    values = (
        _board(cards, state, moment, noise)
        | _activity(cards, state, demand, moment, noise)
        | _memory(cards, state, demand)
        | _links(cards, state, demand, moment, noise)
    )
    matrix = np.full((len(FIELDS), len(moment.clock)), np.nan)
    for name, row in values.items():
        matrix[ROW[name]] = row
    matrix[np.ix_(_DATA_CENTER_ROWS, cards.data_center == 0)] = np.nan
    lost = state.gone_seconds > 0
    spoken = (state.xid > 0) & (state.gone_seconds <= _LAST_WORDS_SECONDS)
    xid = np.where(lost & ~spoken, np.nan, state.xid)
    matrix[:, lost] = np.nan
    matrix[ROW["xid_code"]] = xid
    return matrix


def _board(cards: Cards, state: State, moment: Moment, noise: Floats) -> dict[str, Floats]:
    clock = np.where(moment.idle, cards.idle_sm_clock_megahertz, cards.sm_clock_megahertz * moment.clock)
    temperature = np.rint(state.temperature_celsius + 0.25 * noise[1])
    temperature = np.where(np.isnan(state.stuck_celsius), temperature, np.rint(state.stuck_celsius))
    power = moment.power_watts * (1.0 + 0.006 * noise[2])
    return {
        "sm_clock_megahertz": np.floor(clock / 15.0) * 15.0,
        "memory_clock_megahertz": np.where(
            moment.idle, cards.idle_memory_clock_megahertz, cards.memory_clock_megahertz
        ),
        "memory_temperature_celsius": np.where(
            cards.reads_memory_temperature > 0,
            np.rint(state.memory_temperature_celsius + 0.3 * noise[0]),
            np.nan,
        ),
        "temperature_celsius": temperature,
        "temperature_margin_celsius": cards.slowdown_celsius - temperature,
        "power_watts": np.round(np.where(np.isnan(state.stuck_watts), power, state.stuck_watts), 3),
        "power_limit_watts": np.round(moment.limit_watts, 3),
        "energy_millijoules": state.energy_millijoules,
        "power_violation_nanoseconds": state.power_violation_nanoseconds,
        "thermal_violation_nanoseconds": state.thermal_violation_nanoseconds,
        # NVML tells the speed asked for, not the one reached.
        "fan_percent": np.where(cards.own_fans > 0, np.rint(state.fan * 100.0), np.nan),
        "performance_state": np.where(moment.idle & _sleeps(cards), 8.0, 0.0),
        "clocks_event_reasons": (
            REASON_IDLE * moment.idle
            + REASON_POWER_CAP * (moment.power_throttled > 0)
            + REASON_THERMAL * (moment.thermal_throttled > 0)
            + REASON_BRAKE * moment.braked
        ).astype(np.float64),
    }


def _activity(cards: Cards, state: State, demand: Demand, moment: Moment, noise: Floats) -> dict[str, Floats]:
    shown = np.where(moment.utilization > 0, 1.0, 0.0)
    working = moment.pace / moment.clock
    return {
        "utilization_percent": _percent(moment.utilization + 0.008 * noise[3] * shown),
        "memory_copy_percent": _percent(moment.dram * 0.9 + 0.006 * noise[4] * shown),
        "encoder_percent": np.zeros_like(shown),
        "decoder_percent": np.zeros_like(shown),
        "graphics_active_ratio": np.round(np.clip(moment.utilization + 0.004 * noise[3] * shown, 0, 1), 6),
        "tensor_active_ratio": np.round(np.clip(moment.tensor * (1.0 + 0.01 * noise[4]), 0, 1), 6),
        "dram_active_ratio": np.round(np.clip(moment.dram * (1.0 + 0.01 * noise[5]), 0, 1), 6),
        # a rank that waits keeps a few multiprocessors busy with asking
        "sm_active_ratio": np.round(np.clip(moment.utilization * (0.25 + 0.67 * working), 0, 1), 6),
    }


def _memory(cards: Cards, state: State, demand: Demand) -> dict[str, Floats]:
    used = used_mebibytes(cards, state, demand)
    uncontained = np.isin(state.xid, (48.0, 95.0))
    return {
        "framebuffer_free_mebibytes": cards.memory_mebibytes - cards.reserved_mebibytes - used,
        "framebuffer_used_mebibytes": used,
        "framebuffer_reserved_mebibytes": cards.reserved_mebibytes,
        "framebuffer_total_mebibytes": cards.memory_mebibytes,
        "remapped_rows_uncorrectable": state.remapped_uncorrectable,
        "remapped_rows_correctable": state.remapped_correctable,
        "row_remap_failure": state.remap_failure,
        "row_remap_pending": state.remap_pending,
        "ecc_corrected_count": state.ecc_corrected,
        "ecc_uncorrected_count": state.ecc_uncorrected,
        "ecc_corrected_lifetime_count": state.ecc_corrected_lifetime,
        "ecc_uncorrected_lifetime_count": state.ecc_uncorrected_lifetime,
        "recovery_action": np.where(uncontained, _RESET, _DRAIN_AND_RESET * (state.remap_pending > 0)),
    }


def _links(cards: Cards, state: State, demand: Demand, moment: Moment, noise: Floats) -> dict[str, Floats]:
    jitter = 1.0 + 0.02 * noise[5]
    linked = cards.nvlink_megabytes_per_second > 0
    traffic = np.rint(cards.nvlink_megabytes_per_second * demand.nvlink * moment.pace * moment.link * jitter)
    narrow = moment.lanes / 16.0 * 0.85
    return {
        "nvlink_megabytes_per_second": np.where(linked, traffic, np.nan),
        "nvlink_crc_flit_errors": np.where(linked, state.link_crc_errors, np.nan),
        "nvlink_replay_errors": np.where(linked, state.link_replays, np.nan),
        "nvlink_recovery_errors": np.where(linked, state.link_recoveries, np.nan),
        "pcie_tx_bytes_per_second": _traffic(cards, np.minimum(demand.pcie_tx * moment.pace, narrow), jitter),
        "pcie_rx_bytes_per_second": _traffic(
            cards, np.minimum(demand.pcie_rx * moment.pace, narrow), 1.0 + 0.02 * noise[4]
        ),
        "pcie_replay_count": state.pcie_replays,
        "pcie_link_generation": np.where(moment.idle & _sleeps(cards), _IDLE_LANE_GENERATION, cards.pcie_generation),
        "pcie_link_generation_max": cards.pcie_generation,
        "pcie_link_width": moment.lanes,
        "pcie_link_width_max": np.full(len(jitter), 16.0),
    }


def _sleeps(cards: Cards) -> Flags:
    without_link: Flags = cards.nvlink_megabytes_per_second == 0
    return without_link


def _percent(share: Floats) -> Floats:
    return np.clip(np.rint(share * 100.0), 0.0, 100.0)


def _traffic(cards: Cards, share: Floats, jitter: Floats) -> Floats:
    # Reading the sensors is itself some traffic, so the bus is never quite silent.
    return np.rint((cards.pcie_bytes_per_second * share + 4e5) * jitter)
