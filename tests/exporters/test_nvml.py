"""NVML through a library that behaves as pynvml does."""

import time

import httpx
import pytest

from exporters import service
from exporters.discovery import Place
from exporters.machine import MachineSource
from exporters.nvml import NoDriverError, Nvml
from tests.exporters.conftest import TOKEN, Serving, until
from tests.exporters.fake_nvml import FakeGpu, FakeNvml
from tests.exporters.series import samples, value

A100 = "NVIDIA A100-SXM4-80GB"


def pages(serving: Serving, library: FakeNvml, interval: float = 0.1) -> httpx.Client:
    source = MachineSource(Nvml(library), Place("host-a", "rack-7"), interval)
    client = serving(service.build(source, token=TOKEN, open_reads=True, title="nvml"))
    assert until(lambda: client.get("/readyz").status_code == 200)
    return client


def page(client: httpx.Client) -> str:
    return client.get("/nodes/host-a/metrics").text


def test_a_reading_has_everything_in_dcgm_units() -> None:
    opened = Nvml(FakeNvml(FakeGpu("GPU-a", minor=5)))
    opened.read({})
    reading = opened.read({0: 31})[0]
    assert reading.identity.pci_bus_id == "00000000:4C:00.0"
    assert reading.identity.minor == 5
    assert reading.sm_clock_megahertz == 1965
    assert reading.power_watts == 612.345
    assert reading.power_limit_watts == 700
    assert reading.memory_temperature_celsius == 66
    assert reading.framebuffer_used_mebibytes == 69986
    assert (reading.remapped_rows_correctable, reading.remapped_rows_uncorrectable) == (1, 2)
    assert (reading.power_violation_nanoseconds, reading.thermal_violation_nanoseconds) == (5000, 7000)
    assert (reading.ecc_corrected_count, reading.ecc_uncorrected_count) == (3, 0)
    assert reading.xid_code == 31
    assert (reading.graphics_active_ratio, reading.tensor_active_ratio) == (0.965, 0.5125)
    assert reading.dram_active_ratio is None
    assert reading.pcie_tx_bytes_per_second == 100 * 1024 * 1024


def test_the_first_look_has_no_rates_yet() -> None:
    reading = Nvml(FakeNvml(FakeGpu("GPU-a"))).read({})[0]
    assert reading.tensor_active_ratio is None
    assert reading.nvlink_megabytes_per_second == 0


def test_nvlink_is_growth_per_second() -> None:
    library = FakeNvml(FakeGpu("GPU-a"))
    opened = Nvml(library)
    opened.read({})
    began = time.monotonic()
    time.sleep(0.05)
    library.gpus[0].nvlink_kibibytes += 500_000
    rate = opened.read({})[0].nvlink_megabytes_per_second
    elapsed = time.monotonic() - began
    assert rate is not None
    assert 1000 / elapsed * 0.7 < rate <= 1000 / 0.05


def test_what_a_gpu_does_not_support_is_none_and_the_rest_is_there() -> None:
    unsupported = {"nvmlDeviceGetTotalEccErrors", "nvmlDeviceGetRemappedRows", "memory temperature"}
    opened = Nvml(FakeNvml(FakeGpu("GPU-a", name=A100, unsupported=unsupported)))
    opened.read({})
    reading = opened.read({})[0]
    assert reading.ecc_corrected_count is None
    assert reading.remapped_rows_correctable is None
    assert reading.row_remap_failure is None
    assert reading.memory_temperature_celsius is None
    assert reading.tensor_active_ratio is None
    assert reading.temperature_celsius == 61
    assert reading.power_watts == 612.345


def test_a_sensors_error_value_is_not_a_temperature() -> None:
    assert Nvml(FakeNvml(FakeGpu("GPU-a", temperature=255))).read({})[0].temperature_celsius is None


def test_no_driver_and_no_gpu_are_each_one_sentence() -> None:
    with pytest.raises(NoDriverError, match="NVML Shared Library Not Found"):
        Nvml(FakeNvml(driver=False))
    with pytest.raises(NoDriverError, match="it sees no GPU"):
        Nvml(FakeNvml())


def test_over_http_with_discovery(serving: Serving) -> None:
    client = pages(serving, FakeNvml(FakeGpu("GPU-a"), FakeGpu("GPU-b", name=A100, minor=1)))
    assert client.get("/discovery").json()[0]["labels"] == {
        "__metrics_path__": "/nodes/host-a/metrics",
        "node": "host-a",
        "rack": "rack-7",
    }
    text = page(client)
    found = samples(text, "DCGM_FI_DEV_GPU_TEMP")
    assert [(each.labels["UUID"], each.labels["Hostname"]) for each in found] == [
        ("GPU-a", "host-a"),
        ("GPU-b", "host-a"),
    ]
    assert value(text, "stethos_exporter_collector_success", collector="nvml") == 1


def test_a_lost_gpu_vanishes_but_its_xid_stays(serving: Serving) -> None:
    library = FakeNvml(FakeGpu("GPU-a"), FakeGpu("GPU-b"))
    client = pages(serving, library)
    assert until(lambda: len(library.registered) == 2)
    library.gpus[1].lost = True
    library.events.append((1, 79))
    assert until(lambda: value(page(client), "DCGM_FI_DEV_XID_ERRORS", gpu="1") == 79)
    assert until(lambda: value(page(client), "DCGM_FI_DEV_GPU_TEMP", gpu="1") is None)
    assert value(page(client), "DCGM_FI_DEV_GPU_TEMP", gpu="0") == 61


def test_xids_are_counted_by_code(serving: Serving) -> None:
    library = FakeNvml(FakeGpu("GPU-a"))
    client = pages(serving, library)
    library.events.extend([(0, 31), (0, 31), (0, 94)])

    def count(code: str) -> float | None:
        return value(page(client), "stethos_gpu_xid_errors_total", gpu="0", UUID="GPU-a", xid=code)

    assert until(lambda: count("94") == 1)
    assert count("31") == 2
    last = value(page(client), "stethos_gpu_xid_last_seen_timestamp_seconds", xid="94")
    assert last is not None
    assert abs(last - time.time()) < 30


def test_a_gpu_without_events_does_not_spoil_the_others() -> None:
    library = FakeNvml(FakeGpu("GPU-a", unsupported={"nvmlDeviceGetSupportedEventTypes"}), FakeGpu("GPU-b"))
    assert Nvml(library).watch_xids() == [1]


def test_a_hanging_driver_does_not_hold_up_a_scrape(serving: Serving) -> None:
    library = FakeNvml(FakeGpu("GPU-a"))
    client = pages(serving, library)
    library.hang = 0.4
    began = time.perf_counter()
    assert client.get("/nodes/host-a/metrics").status_code == 200
    assert time.perf_counter() - began < 0.3
    assert until(lambda: client.get("/readyz").status_code == 503)
    assert samples(page(client), "DCGM_FI_DEV_GPU_TEMP") == []
    library.hang = 0.0
    assert until(lambda: client.get("/readyz").status_code == 200)
