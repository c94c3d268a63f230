"""What one look at a GPU yields. Units are in the field names; `None` means the GPU does not report it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GpuIdentity:
    """Who a GPU is. A series is keyed by node and `gpu`; the UUID survives a change of slot."""

    gpu: int
    uuid: str
    pci_bus_id: str
    minor: int
    model: str


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One look at one GPU, in the units NVML and DCGM use, so that nothing is converted twice."""

    identity: GpuIdentity
    sm_clock_megahertz: float | None = None
    memory_clock_megahertz: float | None = None
    memory_temperature_celsius: float | None = None
    temperature_celsius: float | None = None
    power_watts: float | None = None
    energy_millijoules: float | None = None
    pcie_replay_count: float | None = None
    utilization_percent: float | None = None
    memory_copy_percent: float | None = None
    xid_code: float | None = None
    framebuffer_free_mebibytes: float | None = None
    framebuffer_used_mebibytes: float | None = None
    framebuffer_reserved_mebibytes: float | None = None
    nvlink_megabytes_per_second: float | None = None
    remapped_rows_uncorrectable: float | None = None
    remapped_rows_correctable: float | None = None
    row_remap_failure: float | None = None
    graphics_active_ratio: float | None = None
    tensor_active_ratio: float | None = None
    dram_active_ratio: float | None = None
    pcie_tx_bytes_per_second: float | None = None
    pcie_rx_bytes_per_second: float | None = None
    power_limit_watts: float | None = None
    power_violation_nanoseconds: float | None = None
    thermal_violation_nanoseconds: float | None = None
    ecc_corrected_count: float | None = None
    ecc_uncorrected_count: float | None = None
    clocks_event_reasons: float | None = None
