"""The signals of a recording (base units) ↔ the fields of a reading (NVML's units)."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Signal:
    """`field` of a reading = column × `factor`."""

    field: str
    factor: float


# The recording's columns that are one field of a reading each.
DIRECT: dict[str, Signal] = {
    "utilization_ratio": Signal("utilization_percent", 100.0),
    "memory_copy_ratio": Signal("memory_copy_percent", 100.0),
    "tensor_active_ratio": Signal("tensor_active_ratio", 1.0),
    "dram_active_ratio": Signal("dram_active_ratio", 1.0),
    "temperature_celsius": Signal("temperature_celsius", 1.0),
    "memory_temperature_celsius": Signal("memory_temperature_celsius", 1.0),
    "power_watts": Signal("power_watts", 1.0),
    "power_limit_watts": Signal("power_limit_watts", 1.0),
    "sm_clock_hertz": Signal("sm_clock_megahertz", 1e-6),
    "memory_clock_hertz": Signal("memory_clock_megahertz", 1e-6),
    "pcie_tx_bytes_per_second": Signal("pcie_tx_bytes_per_second", 1.0),
    "pcie_rx_bytes_per_second": Signal("pcie_rx_bytes_per_second", 1.0),
    "nvlink_bytes_per_second": Signal("nvlink_megabytes_per_second", 1e-6),
    "ecc_corrected_total": Signal("ecc_corrected_count", 1.0),
    "ecc_uncorrected_total": Signal("ecc_uncorrected_count", 1.0),
    "pcie_replay_total": Signal("pcie_replay_count", 1.0),
    "xid": Signal("xid_code", 1.0),
    "row_remap_pending": Signal("row_remap_pending", 1.0),
}
# Used share of all memory, used, free and reserved.
MEMORY = "memory_used_ratio"
# Shares of time in a recording, nanoseconds that add up in a reading.
VIOLATIONS: dict[str, str] = {
    "throttle_thermal_ratio": "thermal_violation_nanoseconds",
    "throttle_power_ratio": "power_violation_nanoseconds",
}
# Lanes in use of those possible.
PCIE_WIDTH = "pcie_width_ratio"
# All that NVLink counts, together.
NVLINK_ERRORS = "nvlink_errors_total"
NVLINK_ERROR_FIELDS = ("nvlink_crc_flit_errors", "nvlink_replay_errors", "nvlink_recovery_errors")
# What `record` writes, in the order of the columns.
RECORDED = (*DIRECT, MEMORY, *VIOLATIONS, PCIE_WIDTH, NVLINK_ERRORS)
KNOWN = frozenset(RECORDED)
