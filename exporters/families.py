"""DCGM's families: what each field of a reading is called, in both generations of names.

Up to dcgm-exporter 4.8 names carry no unit; 4.9 (DCGM 4.7) renames 23 and changes the units of some. `renamed` holds
only those new names that DCGM's published sources confirm. Not confirmed, and so the same in every mode:
MEM_COPY_UTIL, ENC_UTIL, DEC_UTIL, FB_FREE, FB_USED, FB_RESERVED, NVLINK_BANDWIDTH_TOTAL.
"""

from dataclasses import dataclass
from typing import Literal

Kind = Literal["gauge", "counter"]


@dataclass(frozen=True, slots=True)
class Renamed:
    """The name from 4.9 on; value = `factor` × the old value. No HELP: the old one still says it."""

    name: str
    factor: float = 1.0
    explanation: str | None = None


@dataclass(frozen=True, slots=True)
class Family:
    """One family under its name up to 4.8."""

    name: str
    kind: Kind
    explanation: str
    renamed: Renamed | None = None


def _gauge(name: str, explanation: str, renamed: Renamed | None = None) -> Family:
    return Family(name, "gauge", explanation, renamed)


def _counter(name: str, explanation: str, renamed: Renamed | None = None) -> Family:
    return Family(name, "counter", explanation, renamed)


def _violation(cause: str, words: str) -> Family:
    # Nanoseconds, whatever older HELP texts said.
    return _counter(f"DCGM_FI_DEV_{cause}_VIOLATION", f"Throttling duration due to {words} (in ns).")


def _nvlink(error: str, words: str) -> Family:
    return _counter(f"DCGM_FI_DEV_NVLINK_{error}_ERROR_COUNT_TOTAL", f"Total number of NVLink {words}.")


def _pcie(direction: str, words: str) -> Family:
    return _gauge(
        f"DCGM_FI_PROF_PCIE_{direction}_BYTES",
        f"The rate of data {words} over the PCIe bus - including both protocol headers and data payloads"
        " - in bytes per second.",
    )


# field of GpuReading → family. NVLINK_BANDWIDTH_* are rates and so gauges, as since 4.8.3; their HELP is DCGM's.
FAMILIES: dict[str, Family] = {
    "sm_clock_megahertz": _gauge(
        "DCGM_FI_DEV_SM_CLOCK",
        "SM clock frequency (in MHz).",
        Renamed("DCGM_FI_DEV_SM_CLOCK_HERTZ", 1e6, "SM clock frequency (in Hz)."),
    ),
    "memory_clock_megahertz": _gauge(
        "DCGM_FI_DEV_MEM_CLOCK",
        "Memory clock frequency (in MHz).",
        Renamed("DCGM_FI_DEV_MEMORY_CLOCK_HERTZ", 1e6, "Memory clock frequency (in Hz)."),
    ),
    "memory_temperature_celsius": _gauge(
        "DCGM_FI_DEV_MEMORY_TEMP", "Memory temperature (in C).", Renamed("DCGM_FI_DEV_MEMORY_TEMP_CELSIUS")
    ),
    "temperature_celsius": _gauge(
        "DCGM_FI_DEV_GPU_TEMP", "GPU temperature (in C).", Renamed("DCGM_FI_DEV_GPU_TEMP_CELSIUS")
    ),
    "power_watts": _gauge("DCGM_FI_DEV_POWER_USAGE", "Power draw (in W).", Renamed("DCGM_FI_DEV_BOARD_POWER_WATTS")),
    "energy_millijoules": _counter(
        "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
        "Total energy consumption since boot (in mJ).",
        Renamed("DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL", 1e-3, "Total energy consumption since boot (in J)."),
    ),
    "pcie_replay_count": _counter(
        "DCGM_FI_DEV_PCIE_REPLAY_COUNTER", "Total number of PCIe retries.", Renamed("DCGM_FI_DEV_PCIE_REPLAY_TOTAL")
    ),
    "utilization_percent": _gauge(
        "DCGM_FI_DEV_GPU_UTIL",
        "GPU utilization (in %).",
        Renamed("DCGM_FI_DEV_GPU_UTIL_RATIO", 1e-2, "GPU utilization (0 to 1)."),
    ),
    "memory_copy_percent": _gauge("DCGM_FI_DEV_MEM_COPY_UTIL", "Memory utilization (in %)."),
    "encoder_percent": _gauge("DCGM_FI_DEV_ENC_UTIL", "Encoder utilization (in %)."),
    "decoder_percent": _gauge("DCGM_FI_DEV_DEC_UTIL", "Decoder utilization (in %)."),
    "xid_code": _gauge(
        "DCGM_FI_DEV_XID_ERRORS", "Value of the last XID error encountered.", Renamed("DCGM_FI_DEV_XID_ERROR")
    ),
    "framebuffer_free_mebibytes": _gauge("DCGM_FI_DEV_FB_FREE", "Framebuffer memory free (in MiB)."),
    "framebuffer_used_mebibytes": _gauge("DCGM_FI_DEV_FB_USED", "Framebuffer memory used (in MiB)."),
    "framebuffer_reserved_mebibytes": _gauge("DCGM_FI_DEV_FB_RESERVED", "Framebuffer memory reserved (in MiB)."),
    "nvlink_megabytes_per_second": _gauge(
        "DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL", "Total number of NVLink bandwidth counters for all lanes."
    ),
    "vgpu_license_status": _gauge("DCGM_FI_DEV_VGPU_LICENSE_STATUS", "vGPU License status"),
    "remapped_rows_uncorrectable": _counter(
        "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS",
        "Number of remapped rows for uncorrectable errors",
        Renamed("DCGM_FI_DEV_ROW_REMAP_UNCORRECTABLE_TOTAL"),
    ),
    "remapped_rows_correctable": _counter(
        "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS",
        "Number of remapped rows for correctable errors",
        Renamed("DCGM_FI_DEV_ROW_REMAP_CORRECTABLE_TOTAL"),
    ),
    "row_remap_failure": _gauge(
        "DCGM_FI_DEV_ROW_REMAP_FAILURE",
        "Whether remapping of rows has failed",
        Renamed("DCGM_FI_DEV_ROW_REMAP_FAILED"),
    ),
    "graphics_active_ratio": _gauge(
        "DCGM_FI_PROF_GR_ENGINE_ACTIVE",
        "Ratio of time the graphics engine is active.",
        Renamed("DCGM_FI_PROF_GR_ENGINE_UTIL_RATIO"),
    ),
    "tensor_active_ratio": _gauge(
        "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE",
        "Ratio of cycles the tensor (HMMA) pipe is active.",
        Renamed("DCGM_FI_PROF_TENSOR_UTIL_RATIO"),
    ),
    "dram_active_ratio": _gauge(
        "DCGM_FI_PROF_DRAM_ACTIVE",
        "Ratio of cycles the device memory interface is active sending or receiving data.",
        Renamed("DCGM_FI_PROF_DRAM_UTIL_RATIO"),
    ),
    "pcie_tx_bytes_per_second": _pcie("TX", "transmitted"),
    "pcie_rx_bytes_per_second": _pcie("RX", "received"),
    "power_limit_watts": _gauge("DCGM_FI_DEV_ENFORCED_POWER_LIMIT", "Enforced power limit (in W)."),
    "power_violation_nanoseconds": _violation("POWER", "power constraints"),
    "thermal_violation_nanoseconds": _violation("THERMAL", "thermal constraints"),
    "sync_boost_violation_nanoseconds": _violation("SYNC_BOOST", "sync-boost constraints"),
    "board_limit_violation_nanoseconds": _violation("BOARD_LIMIT", "board limit constraints"),
    "low_utilization_violation_nanoseconds": _violation("LOW_UTIL", "low utilization"),
    "reliability_violation_nanoseconds": _violation("RELIABILITY", "reliability constraints"),
    "ecc_corrected_count": _counter("DCGM_FI_DEV_ECC_SBE_VOL_TOTAL", "Total number of single-bit volatile ECC errors."),
    "ecc_uncorrected_count": _counter(
        "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL", "Total number of double-bit volatile ECC errors."
    ),
    "ecc_corrected_lifetime_count": _counter(
        "DCGM_FI_DEV_ECC_SBE_AGG_TOTAL", "Total number of single-bit persistent ECC errors."
    ),
    "ecc_uncorrected_lifetime_count": _counter(
        "DCGM_FI_DEV_ECC_DBE_AGG_TOTAL", "Total number of double-bit persistent ECC errors."
    ),
    "retired_pages_corrected": _counter(
        "DCGM_FI_DEV_RETIRED_SBE", "Total number of retired pages due to single-bit errors."
    ),
    "retired_pages_uncorrected": _counter(
        "DCGM_FI_DEV_RETIRED_DBE", "Total number of retired pages due to double-bit errors."
    ),
    "retired_pages_pending": _counter("DCGM_FI_DEV_RETIRED_PENDING", "Total number of pages pending retirement."),
    "nvlink_crc_flit_errors": _nvlink("CRC_FLIT", "flow-control CRC errors"),
    "nvlink_crc_data_errors": _nvlink("CRC_DATA", "data CRC errors"),
    "nvlink_replay_errors": _nvlink("REPLAY", "retries"),
    "nvlink_recovery_errors": _nvlink("RECOVERY", "recovery errors"),
    "nvlink_first_megabytes_per_second": _gauge(
        "DCGM_FI_DEV_NVLINK_BANDWIDTH_L0",
        "The number of bytes of active NVLink rx or tx data including both header and payload.",
    ),
    "sm_active_ratio": _gauge("DCGM_FI_PROF_SM_ACTIVE", "The ratio of cycles an SM has at least 1 warp assigned."),
    "framebuffer_total_mebibytes": _gauge(
        "DCGM_FI_DEV_FB_TOTAL",
        "Framebuffer memory in total (in MiB).",
        Renamed("DCGM_FI_DEV_FB_CAPACITY_BYTES", 2.0**20, "Framebuffer memory in total (in bytes)."),
    ),
    "row_remap_pending": _gauge("DCGM_FI_DEV_ROW_REMAP_PENDING", "Whether a remapping of rows awaits a reset"),
    "clocks_event_reasons": _gauge("DCGM_FI_DEV_CLOCKS_EVENT_REASONS", "Reasons for the current clocks (bitmask)."),
    "temperature_margin_celsius": _gauge(
        "DCGM_FI_DEV_GPU_TEMP_LIMIT", "Margin between the GPU temperature and its slowdown (in C)."
    ),
    "slowdown_temperature_celsius": _gauge("DCGM_FI_DEV_SLOWDOWN_TEMP", "Slowdown temperature (in C)."),
    "shutdown_temperature_celsius": _gauge("DCGM_FI_DEV_SHUTDOWN_TEMP", "Shutdown temperature (in C)."),
    "performance_state": _gauge("DCGM_FI_DEV_PSTATE", "Performance state, 0 the fastest."),
    "fan_percent": _gauge("DCGM_FI_DEV_FAN_SPEED", "Fan speed (in %)."),
    "pcie_link_generation": _gauge("DCGM_FI_DEV_PCIE_LINK_GEN", "Current PCIe generation."),
    "pcie_link_width": _gauge("DCGM_FI_DEV_PCIE_LINK_WIDTH", "Current number of PCIe lanes."),
    "pcie_link_generation_max": _gauge("DCGM_FI_DEV_PCIE_MAX_LINK_GEN", "Highest PCIe generation possible."),
    "pcie_link_width_max": _gauge("DCGM_FI_DEV_PCIE_MAX_LINK_WIDTH", "Highest number of PCIe lanes possible."),
    "recovery_action": _gauge(
        "DCGM_FI_DEV_GPU_RECOVERY_ACTION",
        "What the driver asks for: 0 nothing, 1 GPU reset, 2 node reboot, 3 drain P2P, 4 drain and reset,"
        " 5 recover IMEX, 6 bus reset, 7 system reboot.",
    ),
}
