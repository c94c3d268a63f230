"""What one look at a GPU yields. Units are in the field names; `None` means the GPU does not report it."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class GpuIdentity:
    """Who a GPU is. A series is keyed by node and `gpu`; the UUID survives a change of slot.

    A MIG instance is its GPU with a profile and a number of its own. `island` is the NVLink domain beyond the node,
    `driver` and `vbios` are the versions of what runs on it.
    """

    gpu: int
    uuid: str
    pci_bus_id: str
    minor: int
    model: str
    mig_profile: str | None = None
    mig_id: int | None = None
    island: str = ""
    driver: str = ""
    vbios: str = ""


@dataclass(frozen=True, slots=True)
class GpuReading:
    """One look at one GPU, in the units NVML and DCGM use, so that nothing is converted twice.

    The order is that of dcgm-exporter's default counters, then its optional ones, then other DCGM fields.
    """

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
    encoder_percent: float | None = None
    decoder_percent: float | None = None
    xid_code: float | None = None
    framebuffer_free_mebibytes: float | None = None
    framebuffer_used_mebibytes: float | None = None
    framebuffer_reserved_mebibytes: float | None = None
    nvlink_megabytes_per_second: float | None = None
    vgpu_license_status: float | None = None
    remapped_rows_uncorrectable: float | None = None
    remapped_rows_correctable: float | None = None
    row_remap_failure: float | None = None
    graphics_active_ratio: float | None = None
    tensor_active_ratio: float | None = None
    dram_active_ratio: float | None = None
    pcie_tx_bytes_per_second: float | None = None
    pcie_rx_bytes_per_second: float | None = None
    # optional in dcgm-exporter
    power_limit_watts: float | None = None
    power_violation_nanoseconds: float | None = None
    thermal_violation_nanoseconds: float | None = None
    sync_boost_violation_nanoseconds: float | None = None
    board_limit_violation_nanoseconds: float | None = None
    low_utilization_violation_nanoseconds: float | None = None
    reliability_violation_nanoseconds: float | None = None
    ecc_corrected_count: float | None = None
    ecc_uncorrected_count: float | None = None
    ecc_corrected_lifetime_count: float | None = None
    ecc_uncorrected_lifetime_count: float | None = None
    retired_pages_corrected: float | None = None
    retired_pages_uncorrected: float | None = None
    retired_pages_pending: float | None = None
    nvlink_crc_flit_errors: float | None = None
    nvlink_crc_data_errors: float | None = None
    nvlink_replay_errors: float | None = None
    nvlink_recovery_errors: float | None = None
    nvlink_first_megabytes_per_second: float | None = None
    sm_active_ratio: float | None = None
    # other DCGM fields
    framebuffer_total_mebibytes: float | None = None
    row_remap_pending: float | None = None
    clocks_event_reasons: float | None = None
    temperature_margin_celsius: float | None = None
    slowdown_temperature_celsius: float | None = None
    shutdown_temperature_celsius: float | None = None
    performance_state: float | None = None
    fan_percent: float | None = None
    pcie_link_generation: float | None = None
    pcie_link_width: float | None = None
    pcie_link_generation_max: float | None = None
    pcie_link_width_max: float | None = None
    recovery_action: float | None = None
