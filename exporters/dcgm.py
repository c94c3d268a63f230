"""Readings → the families of dcgm-exporter: its names, types, HELP, units and label order (3.x to 4.8)."""

from collections.abc import Sequence
from typing import Literal

from exporters import exposition
from exporters.reading import GpuIdentity, GpuReading

GAUGE: Literal["gauge"] = "gauge"
COUNTER: Literal["counter"] = "counter"

# field of GpuReading → (family, type, HELP). NVLINK_BANDWIDTH_TOTAL is a rate and so a gauge, as since 4.8.3;
# violations are nanoseconds, whatever older HELP texts said.
FAMILIES: dict[str, tuple[str, Literal["gauge", "counter"], str]] = {
    "sm_clock_megahertz": ("DCGM_FI_DEV_SM_CLOCK", GAUGE, "SM clock frequency (in MHz)."),
    "memory_clock_megahertz": ("DCGM_FI_DEV_MEM_CLOCK", GAUGE, "Memory clock frequency (in MHz)."),
    "memory_temperature_celsius": ("DCGM_FI_DEV_MEMORY_TEMP", GAUGE, "Memory temperature (in C)."),
    "temperature_celsius": ("DCGM_FI_DEV_GPU_TEMP", GAUGE, "GPU temperature (in C)."),
    "power_watts": ("DCGM_FI_DEV_POWER_USAGE", GAUGE, "Power draw (in W)."),
    "energy_millijoules": (
        "DCGM_FI_DEV_TOTAL_ENERGY_CONSUMPTION",
        COUNTER,
        "Total energy consumption since boot (in mJ).",
    ),
    "pcie_replay_count": ("DCGM_FI_DEV_PCIE_REPLAY_COUNTER", COUNTER, "Total number of PCIe retries."),
    "utilization_percent": ("DCGM_FI_DEV_GPU_UTIL", GAUGE, "GPU utilization (in %)."),
    "memory_copy_percent": ("DCGM_FI_DEV_MEM_COPY_UTIL", GAUGE, "Memory utilization (in %)."),
    "xid_code": ("DCGM_FI_DEV_XID_ERRORS", GAUGE, "Value of the last XID error encountered."),
    "framebuffer_free_mebibytes": ("DCGM_FI_DEV_FB_FREE", GAUGE, "Framebuffer memory free (in MiB)."),
    "framebuffer_used_mebibytes": ("DCGM_FI_DEV_FB_USED", GAUGE, "Framebuffer memory used (in MiB)."),
    "framebuffer_reserved_mebibytes": (
        "DCGM_FI_DEV_FB_RESERVED",
        GAUGE,
        "Framebuffer memory reserved (in MiB).",
    ),
    "nvlink_megabytes_per_second": (
        "DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL",
        GAUGE,
        "Total number of NVLink bandwidth counters for all lanes.",
    ),
    "remapped_rows_uncorrectable": (
        "DCGM_FI_DEV_UNCORRECTABLE_REMAPPED_ROWS",
        COUNTER,
        "Number of remapped rows for uncorrectable errors",
    ),
    "remapped_rows_correctable": (
        "DCGM_FI_DEV_CORRECTABLE_REMAPPED_ROWS",
        COUNTER,
        "Number of remapped rows for correctable errors",
    ),
    "row_remap_failure": ("DCGM_FI_DEV_ROW_REMAP_FAILURE", GAUGE, "Whether remapping of rows has failed"),
    "graphics_active_ratio": (
        "DCGM_FI_PROF_GR_ENGINE_ACTIVE",
        GAUGE,
        "Ratio of time the graphics engine is active.",
    ),
    "tensor_active_ratio": (
        "DCGM_FI_PROF_PIPE_TENSOR_ACTIVE",
        GAUGE,
        "Ratio of cycles the tensor (HMMA) pipe is active.",
    ),
    "dram_active_ratio": (
        "DCGM_FI_PROF_DRAM_ACTIVE",
        GAUGE,
        "Ratio of cycles the device memory interface is active sending or receiving data.",
    ),
    "pcie_tx_bytes_per_second": (
        "DCGM_FI_PROF_PCIE_TX_BYTES",
        GAUGE,
        "The rate of data transmitted over the PCIe bus - including both protocol headers and data payloads"
        " - in bytes per second.",
    ),
    "pcie_rx_bytes_per_second": (
        "DCGM_FI_PROF_PCIE_RX_BYTES",
        GAUGE,
        "The rate of data received over the PCIe bus - including both protocol headers and data payloads"
        " - in bytes per second.",
    ),
    "power_limit_watts": ("DCGM_FI_DEV_ENFORCED_POWER_LIMIT", GAUGE, "Enforced power limit (in W)."),
    "power_violation_nanoseconds": (
        "DCGM_FI_DEV_POWER_VIOLATION",
        COUNTER,
        "Throttling duration due to power constraints (in ns).",
    ),
    "thermal_violation_nanoseconds": (
        "DCGM_FI_DEV_THERMAL_VIOLATION",
        COUNTER,
        "Throttling duration due to thermal constraints (in ns).",
    ),
    "ecc_corrected_count": (
        "DCGM_FI_DEV_ECC_SBE_VOL_TOTAL",
        COUNTER,
        "Total number of single-bit volatile ECC errors.",
    ),
    "ecc_uncorrected_count": (
        "DCGM_FI_DEV_ECC_DBE_VOL_TOTAL",
        COUNTER,
        "Total number of double-bit volatile ECC errors.",
    ),
    "clocks_event_reasons": (
        "DCGM_FI_DEV_CLOCKS_EVENT_REASONS",
        GAUGE,
        "Reasons for the current clocks (bitmask).",
    ),
}


def expose(readings: Sequence[GpuReading], hostname: str) -> str:
    """The text of all families; a field that is `None` has no sample, a family without samples no header."""
    tagged = [(_labels(reading.identity, hostname), reading) for reading in readings]
    return "".join(
        exposition.family(
            name,
            kind,
            explanation,
            [(tags, value) for tags, reading in tagged if (value := getattr(reading, field)) is not None],
        )
        for field, (name, kind, explanation) in FAMILIES.items()
    )


def _labels(identity: GpuIdentity, hostname: str) -> str:
    return exposition.labels(
        {
            "gpu": str(identity.gpu),
            "UUID": identity.uuid,
            "pci_bus_id": identity.pci_bus_id,
            "device": f"nvidia{identity.minor}",
            "modelName": identity.model,
            "Hostname": hostname,
        }
    )
