"""The wire contract: DCGM's names, types, units and labels."""

from dataclasses import fields
from pathlib import Path

from prometheus_client.parser import text_string_to_metric_families

from exporters import dcgm
from exporters.reading import GpuIdentity, GpuReading
from tests.exporters.series import samples, value

GOLDEN = Path(__file__).with_name("h100.prom")

IDENTITY = GpuIdentity(
    gpu=3,
    uuid="GPU-4a1d6b1c-0b6e-5c0e-9a2e-0d8f5f9d7a11",
    pci_bus_id="00000000:4C:00.0",
    minor=3,
    model="NVIDIA H100 80GB HBM3",
)
H100 = GpuReading(
    IDENTITY,
    sm_clock_megahertz=1980,
    memory_clock_megahertz=2619,
    memory_temperature_celsius=70,
    temperature_celsius=66,
    power_watts=655.125,
    energy_millijoules=123456789012,
    pcie_replay_count=0,
    utilization_percent=98,
    memory_copy_percent=34,
    xid_code=0,
    framebuffer_free_mebibytes=11022,
    framebuffer_used_mebibytes=69986,
    framebuffer_reserved_mebibytes=551,
    nvlink_megabytes_per_second=181234,
    remapped_rows_uncorrectable=0,
    remapped_rows_correctable=1,
    row_remap_failure=0,
    graphics_active_ratio=0.981234,
    tensor_active_ratio=0.512345,
    dram_active_ratio=0.4,
    pcie_tx_bytes_per_second=1234567890,
    pcie_rx_bytes_per_second=2345678901,
    power_limit_watts=700,
    power_violation_nanoseconds=1500000000,
    thermal_violation_nanoseconds=0,
    ecc_corrected_count=2,
    ecc_uncorrected_count=0,
    clocks_event_reasons=4,
)


def test_an_h100_is_exposed_exactly_as_the_golden_file_says() -> None:
    assert dcgm.expose([H100], "node-01") == GOLDEN.read_text()


def test_every_field_of_a_reading_has_a_family() -> None:
    assert list(dcgm.FAMILIES) == [each.name for each in fields(GpuReading) if each.name != "identity"]


def test_the_text_parses_back_to_the_same_values() -> None:
    text = dcgm.expose([H100], "node-01")
    for field, (name, kind, _) in dcgm.FAMILIES.items():
        assert value(text, name, gpu="3") == getattr(H100, field)
        assert f"# TYPE {name} {kind}\n" in text


def test_labels_come_in_the_order_of_dcgm_exporter() -> None:
    sample = samples(dcgm.expose([H100], "node-01"), "DCGM_FI_DEV_GPU_TEMP")[0]
    assert list(sample.labels) == ["gpu", "UUID", "pci_bus_id", "device", "modelName", "Hostname"]
    assert sample.labels["device"] == "nvidia3"


def test_unsupported_is_omitted_and_never_zero() -> None:
    text = dcgm.expose([GpuReading(IDENTITY, temperature_celsius=40)], "node-01")
    assert [family.name for family in text_string_to_metric_families(text)] == ["DCGM_FI_DEV_GPU_TEMP"]


def test_help_and_type_stand_once_per_family() -> None:
    text = dcgm.expose([H100, GpuReading(GpuIdentity(4, "GPU-x", "", 4, "m"), temperature_celsius=1)], "n")
    assert text.count("# HELP DCGM_FI_DEV_GPU_TEMP ") == 1
    assert text.count("# TYPE DCGM_FI_DEV_GPU_TEMP ") == 1
    assert len(samples(text, "DCGM_FI_DEV_GPU_TEMP")) == 2


def test_awkward_label_values_survive() -> None:
    text = dcgm.expose([GpuReading(IDENTITY, temperature_celsius=1)], 'a"b\\c\nd')
    assert samples(text, "DCGM_FI_DEV_GPU_TEMP")[0].labels["Hostname"] == 'a"b\\c\nd'
