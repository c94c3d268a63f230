"""What the sensors make of the truth: noise, whole degrees and percents, 15 MHz steps, and silence."""

from dataclasses import fields

import numpy as np

from exporters.reading import GpuReading
from exporters.synthetic.arrays import Flags, Floats
from exporters.synthetic.physics import (
    REASON_IDLE,
    REASON_POWER_CAP,
    REASON_THERMAL,
    Cards,
    Moment,
    State,
)
from exporters.synthetic.workload import Demand

FIELDS = tuple(each.name for each in fields(GpuReading) if each.name != "identity")
ROW = {name: row for row, name in enumerate(FIELDS)}

XID_OFF_THE_BUS = 79
_LAST_WORDS_SECONDS = 15.0  # a lost GPU's XID is still reported for this long; nothing else is


def read(
    cards: Cards, state: State, demand: Demand, moment: Moment, node_down: Flags, rng: np.random.Generator
) -> Floats:
    """A matrix [len(FIELDS), gpus] of readings; NaN is what a GPU does not report."""
    noise = rng.standard_normal((6, len(moment.clock)))
    capacity = cards.memory_mebibytes - cards.reserved_mebibytes
    used = np.rint(capacity * (0.006 + 0.985 * demand.memory))
    busy = moment.utilization > 0
    shown = np.where(busy, 1.0, 0.0)
    jitter = 1.0 + 0.02 * noise[5]
    clock = np.where(moment.idle, cards.idle_sm_clock_megahertz, cards.sm_clock_megahertz * moment.clock)
    memory_clock = np.where(moment.idle, cards.idle_memory_clock_megahertz, cards.memory_clock_megahertz)
    values = {
        "sm_clock_megahertz": np.floor(clock / 15.0) * 15.0,
        "memory_clock_megahertz": memory_clock,
        "memory_temperature_celsius": np.where(
            cards.reads_memory_temperature > 0,
            np.rint(state.memory_temperature_celsius + 0.3 * noise[0]),
            np.nan,
        ),
        "temperature_celsius": np.rint(state.temperature_celsius + 0.25 * noise[1]),
        "power_watts": np.round(moment.power_watts * (1.0 + 0.006 * noise[2]), 3),
        "energy_millijoules": state.energy_millijoules,
        "pcie_replay_count": state.pcie_replays,
        "utilization_percent": _percent(moment.utilization + 0.008 * noise[3] * shown),
        "memory_copy_percent": _percent(moment.dram * 0.9 + 0.006 * noise[4] * shown),
        "xid_code": np.where(state.gone_seconds > 0, XID_OFF_THE_BUS, 0.0),
        "framebuffer_free_mebibytes": capacity - used,
        "framebuffer_used_mebibytes": used,
        "framebuffer_reserved_mebibytes": cards.reserved_mebibytes,
        "nvlink_megabytes_per_second": np.where(
            cards.nvlink_megabytes_per_second > 0,
            np.rint(cards.nvlink_megabytes_per_second * demand.nvlink * moment.pace * jitter),
            np.nan,
        ),
        "remapped_rows_uncorrectable": np.zeros(len(clock)),
        "remapped_rows_correctable": state.remapped_rows,
        "row_remap_failure": np.zeros(len(clock)),
        "graphics_active_ratio": np.round(np.clip(moment.utilization + 0.004 * noise[3] * shown, 0, 1), 6),
        "tensor_active_ratio": np.round(np.clip(moment.tensor * (1.0 + 0.01 * noise[4]), 0, 1), 6),
        "dram_active_ratio": np.round(np.clip(moment.dram * (1.0 + 0.01 * noise[5]), 0, 1), 6),
        "pcie_tx_bytes_per_second": _traffic(cards, demand.pcie_tx * moment.pace, jitter),
        "pcie_rx_bytes_per_second": _traffic(cards, demand.pcie_rx * moment.pace, 1.0 + 0.02 * noise[4]),
        "power_limit_watts": np.round(moment.limit_watts, 3),
        "power_violation_nanoseconds": state.power_violation_nanoseconds,
        "thermal_violation_nanoseconds": state.thermal_violation_nanoseconds,
        "ecc_corrected_count": state.ecc_corrected,
        "ecc_uncorrected_count": np.zeros(len(clock)),
        "clocks_event_reasons": (
            REASON_IDLE * moment.idle
            + REASON_POWER_CAP * (moment.power_throttled > 0)
            + REASON_THERMAL * (moment.thermal_throttled > 0)
        ).astype(np.float64),
    }
    matrix = np.full((len(FIELDS), len(clock)), np.nan)
    for name, row in values.items():
        matrix[ROW[name]] = row
    lost = state.gone_seconds > 0
    spoken = lost & (state.gone_seconds <= _LAST_WORDS_SECONDS)
    xid = np.where(lost & ~spoken, np.nan, matrix[ROW["xid_code"]])
    matrix[:, lost] = np.nan
    matrix[ROW["xid_code"]] = xid
    matrix[:, node_down] = np.nan
    return matrix


def _percent(share: Floats) -> Floats:
    return np.clip(np.rint(share * 100.0), 0.0, 100.0)


def _traffic(cards: Cards, share: Floats, jitter: Floats) -> Floats:
    # Reading the sensors is itself some traffic, so the bus is never quite silent.
    return np.rint((cards.pcie_bytes_per_second * share + 4e5) * jitter)
