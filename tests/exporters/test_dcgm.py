"""The wire contract: DCGM's names, types, units and labels."""

from dataclasses import fields, replace

import pytest
from prometheus_client.parser import text_string_to_metric_families

from exporters import dcgm
from exporters.families import FAMILIES
from exporters.reading import GpuIdentity, GpuReading
from tests.exporters.series import samples, value

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
    encoder_percent=0,
    decoder_percent=0,
    vgpu_license_status=0,
    sync_boost_violation_nanoseconds=0,
    board_limit_violation_nanoseconds=0,
    low_utilization_violation_nanoseconds=21000000,
    reliability_violation_nanoseconds=0,
    ecc_corrected_lifetime_count=5,
    ecc_uncorrected_lifetime_count=0,
    retired_pages_corrected=0,
    retired_pages_uncorrected=0,
    retired_pages_pending=0,
    nvlink_crc_flit_errors=0,
    nvlink_crc_data_errors=0,
    nvlink_replay_errors=3,
    nvlink_recovery_errors=0,
    nvlink_first_megabytes_per_second=10123,
    sm_active_ratio=0.91,
    framebuffer_total_mebibytes=81559,
    row_remap_pending=0,
    temperature_margin_celsius=21,
    slowdown_temperature_celsius=87,
    shutdown_temperature_celsius=92,
    performance_state=0,
    fan_percent=35,
    pcie_link_generation=5,
    pcie_link_width=16,
    pcie_link_generation_max=5,
    pcie_link_width_max=16,
    recovery_action=0,
)


def test_every_field_of_a_reading_has_a_family() -> None:
    assert list(FAMILIES) == [each.name for each in fields(GpuReading) if each.name != "identity"]


def test_the_text_parses_back_to_the_same_values() -> None:
    text = dcgm.expose([H100], "node-01")
    for field, family in FAMILIES.items():
        assert value(text, family.name, gpu="3") == getattr(H100, field)
        assert f"# TYPE {family.name} {family.kind}\n" in text


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


def test_new_names_carry_their_units() -> None:
    text = dcgm.expose([H100], "node-01", "dcgm47")
    for name, expected in {
        "DCGM_FI_DEV_SM_CLOCK_HERTZ": 1_980_000_000,
        "DCGM_FI_DEV_GPU_ENERGY_JOULES_TOTAL": 123456789.012,
        "DCGM_FI_DEV_GPU_UTIL_RATIO": 0.98,
        "DCGM_FI_DEV_FB_CAPACITY_BYTES": 81559 * 1024 * 1024,
        "DCGM_FI_PROF_TENSOR_UTIL_RATIO": 0.512345,
    }.items():
        assert value(text, name) == expected


@pytest.mark.parametrize("name", ["MEM_COPY_UTIL", "FB_USED", "NVLINK_BANDWIDTH_TOTAL"])
def test_without_a_confirmed_new_name_the_old_one_stays_and_comes_once(name: str) -> None:
    for names in dcgm.NAMES:
        assert len(samples(dcgm.expose([H100], "node-01", names), f"DCGM_FI_DEV_{name}")) == 1


@pytest.mark.parametrize(
    ("names", "families", "hosts"),
    [
        ("legacy", {"DCGM_FI_DEV_GPU_TEMP"}, ["Hostname"]),
        ("dcgm47", {"DCGM_FI_DEV_GPU_TEMP_CELSIUS"}, ["hostname"]),
        ("both", {"DCGM_FI_DEV_GPU_TEMP", "DCGM_FI_DEV_GPU_TEMP_CELSIUS"}, ["Hostname", "hostname"]),
    ],
)
def test_each_mode_has_its_names_and_its_host_label(names: dcgm.Names, families: set[str], hosts: list[str]) -> None:
    text = dcgm.expose([GpuReading(IDENTITY, temperature_celsius=40)], "node-01", names)
    parsed = list(text_string_to_metric_families(text))
    assert {family.name for family in parsed} == families
    assert all(list(sample.labels)[5:] == hosts for family in parsed for sample in family.samples)


@pytest.mark.parametrize(("code", "said"), [(0, "No Error"), (79, "GPU has fallen off the bus"), (999, "Unknown XID")])
def test_an_xid_comes_with_its_code_and_meaning(code: int, said: str) -> None:
    sample = samples(dcgm.expose([GpuReading(IDENTITY, xid_code=code)], "n"), "DCGM_FI_DEV_XID_ERRORS")[0]
    assert (sample.value, sample.labels["err_code"], sample.labels["err_msg"]) == (code, str(code), said)
    assert list(sample.labels)[-2:] == ["err_code", "err_msg"]


def test_a_gpu_with_two_jobs_has_each_series_twice() -> None:
    text = dcgm.expose([GpuReading(IDENTITY, temperature_celsius=40)], "n", jobs={(3, None): ["17", "18"]})
    assert [each.labels["hpc_job"] for each in samples(text, "DCGM_FI_DEV_GPU_TEMP")] == ["17", "18"]


def test_a_mig_instance_has_its_labels_before_the_host() -> None:
    instance = replace(IDENTITY, mig_profile="1g.10gb", mig_id=7)
    sample = samples(dcgm.expose([GpuReading(instance, sm_active_ratio=0.5)], "n"), "DCGM_FI_PROF_SM_ACTIVE")[0]
    assert list(sample.labels)[5:] == ["GPU_I_PROFILE", "GPU_I_ID", "Hostname"]
    assert sample.labels["GPU_I_ID"] == "7"
