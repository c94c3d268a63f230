"""NVML through a library that behaves as pynvml does."""

import os
import re
import time
from pathlib import Path

import httpx
import pytest

from exporters import dcgm, info, kernel, service
from exporters.discovery import Place
from exporters.kernel import Twice
from exporters.machine import MachineSource, Options
from exporters.nvml import NoDriverError, Nvml
from exporters.reading import GpuReading
from tests.exporters.conftest import TOKEN, Serving, until
from tests.exporters.fake_nvml import FakeGpu, FakeNvml, Instance
from tests.exporters.series import samples, value

QUIET = Options(kernel_log=None)


def read(library: FakeNvml) -> list[GpuReading]:
    """The second look at the first GPU, so that rates are there."""
    device = Nvml(library).devices[0]
    device.read()
    return device.read()


def pages(serving: Serving, library: FakeNvml, options: Options = QUIET) -> httpx.Client:
    source = MachineSource(Nvml(library), Place("host-a", "rack-7"), 0.5, options)
    client = serving(service.build(source, token=TOKEN, open_reads=True, title="nvml"))
    assert until(lambda: client.get("/readyz").status_code == 200)
    return client


def page(client: httpx.Client) -> str:
    return client.get("/nodes/host-a/metrics").text


def test_a_reading_has_everything_in_dcgm_units() -> None:
    device = Nvml(FakeNvml(FakeGpu("GPU-a", minor=5))).devices[0]
    device.read()
    reading = device.read()[0]
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
    assert (reading.graphics_active_ratio, reading.tensor_active_ratio) == (0.965, 0.5125)
    assert reading.dram_active_ratio is None
    assert reading.pcie_tx_bytes_per_second == 100 * 1024 * 1024


def test_the_first_look_has_no_rates_yet() -> None:
    reading = Nvml(FakeNvml(FakeGpu("GPU-a"))).devices[0].read()[0]
    assert reading.tensor_active_ratio is None
    assert reading.nvlink_megabytes_per_second == 0
    assert reading.nvlink_first_megabytes_per_second == 0


def test_nvlink_is_growth_per_second() -> None:
    library = FakeNvml(FakeGpu("GPU-a"))
    device = Nvml(library).devices[0]
    device.read()
    began = time.monotonic()
    time.sleep(0.05)
    library.gpus[0].fields["138"] += 1_000_000
    library.gpus[0].fields["139 0"] += 100_000
    reading = device.read()[0]
    elapsed = time.monotonic() - began
    rate, first = reading.nvlink_megabytes_per_second, reading.nvlink_first_megabytes_per_second
    assert rate is not None
    assert 1000 / elapsed * 0.7 < rate <= 1000 / 0.05
    assert first == pytest.approx(rate / 10, abs=0.002)


def test_what_a_gpu_does_not_support_is_none_and_the_rest_is_there() -> None:
    unsupported = {"nvmlDeviceGetTotalEccErrors", "nvmlDeviceGetRemappedRows", "field 82"}
    reading = read(FakeNvml(FakeGpu("GPU-a", tree="a100", unsupported=unsupported)))[0]
    assert reading.ecc_corrected_count is None
    assert reading.remapped_rows_correctable is None
    assert reading.row_remap_failure is None
    assert reading.memory_temperature_celsius is None
    assert reading.tensor_active_ratio is None
    assert reading.temperature_celsius == 54
    assert reading.power_watts == 331.2


def test_a_sensors_error_value_is_not_a_temperature() -> None:
    assert read(FakeNvml(FakeGpu("GPU-a", calls={"nvmlDeviceGetTemperatureV 0": 255})))[0].temperature_celsius is None


def test_a_driver_that_lacks_the_newer_call_is_asked_the_older_one() -> None:
    calls = {"nvmlDeviceGetTemperature 0": 57}
    older = FakeGpu("GPU-a", calls=calls, unsupported={"nvmlDeviceGetTemperatureV"})
    assert read(FakeNvml(older))[0].temperature_celsius == 57
    assert read(FakeNvml(FakeGpu("GPU-b", calls=calls)))[0].temperature_celsius == 61


def test_what_is_no_number_is_absent() -> None:
    gpu = FakeGpu("GPU-a")
    gpu.gpm = dict.fromkeys(gpu.gpm, float("nan"))
    reading = read(FakeNvml(gpu))[0]
    assert (reading.tensor_active_ratio, reading.temperature_celsius) == (None, 61)


def test_a_gpu_that_is_lost_at_the_start_does_not_cost_the_others(serving: Serving) -> None:
    client = pages(serving, FakeNvml(FakeGpu("GPU-a", lost=True), FakeGpu("GPU-b")))
    assert until(lambda: [each.labels["gpu"] for each in samples(page(client), "DCGM_FI_DEV_GPU_TEMP")] == ["1"])
    lost = {"gpu": "0", "call": "nvmlDeviceGetHandleByIndex", "error": "GpuIsLost"}
    assert value(page(client), "stethos_exporter_call_errors_total", **lost) == 1
    with pytest.raises(NoDriverError, match="none of 1 GPUs answers"):
        Nvml(FakeNvml(FakeGpu("GPU-a", lost=True)))


def test_a_gpu_that_hangs_at_the_start_is_left_out_and_named(serving: Serving) -> None:
    library = FakeNvml(FakeGpu("GPU-a", hang=60), FakeGpu("GPU-b"))
    source = MachineSource(Nvml(library, start_seconds=2.0), Place("host-a"), 0.5, QUIET)
    client = serving(service.build(source, token=TOKEN, open_reads=True, title="nvml"))
    assert until(lambda: value(page(client), "DCGM_FI_DEV_GPU_TEMP", gpu="1") == 61)
    assert value(page(client), "DCGM_FI_DEV_GPU_TEMP", gpu="0") is None
    assert (value(page(client), "stethos_exporter_call_pending_seconds", gpu="0") or 0) >= 0.5
    reason = client.get("/readyz").json()["detail"]
    assert reason.startswith("GPU 0 could not be opened; nvmlDeviceGetHandleByIndex has not returned for")
    library.gpus[0].hang = 0.0


def test_a_driver_that_does_not_answer_is_one_sentence() -> None:
    with pytest.raises(NoDriverError, match=r"it has not answered for 0\.1 s"):
        Nvml(FakeNvml(FakeGpu("GPU-a"), start_seconds=5), start_seconds=0.1)


def test_no_driver_and_no_gpu_are_each_one_sentence() -> None:
    with pytest.raises(NoDriverError, match="NVML Shared Library Not Found"):
        Nvml(FakeNvml(driver=False))
    with pytest.raises(NoDriverError, match="it sees no GPU"):
        Nvml(FakeNvml())


def test_over_http_with_discovery(serving: Serving) -> None:
    client = pages(serving, FakeNvml(FakeGpu("GPU-a"), FakeGpu("GPU-b", tree="a100", minor=1)))
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


def test_the_xid_of_a_gpu_that_hangs_is_shown(serving: Serving) -> None:
    library = FakeNvml(FakeGpu("GPU-a"), FakeGpu("GPU-b"))
    client = pages(serving, library)
    assert until(lambda: len(library.registered) == 2)
    library.gpus[1].hang = 60.0
    assert until(lambda: value(page(client), "DCGM_FI_DEV_GPU_TEMP", gpu="1") is None)
    library.events.append((1, 119))
    assert until(lambda: value(page(client), "DCGM_FI_DEV_XID_ERRORS", gpu="1") == 119)
    assert value(page(client), "stethos_gpu_xid_errors_total", gpu="1", xid="119") == 1
    library.gpus[1].hang = 0.0


def test_where_no_source_tells_of_xids_there_are_none_rather_than_zero(serving: Serving, tmp_path: Path) -> None:
    def gpus() -> tuple[FakeGpu, FakeGpu]:
        return FakeGpu("GPU-a", unsupported={"nvmlDeviceGetSupportedEventTypes"}), FakeGpu("GPU-b")

    def told(client: httpx.Client, name: str) -> set[str]:
        return {each.labels["gpu"] for each in samples(page(client), name)}

    by_events = pages(serving, FakeNvml(*gpus()))
    messages = tmp_path / "kmsg"
    messages.touch()
    by_both = pages(serving, FakeNvml(*gpus()), Options(kernel_log=messages))
    names = ("DCGM_FI_DEV_XID_ERRORS", "stethos_gpu_xid_errors_total")
    assert until(lambda: all(told(by_events, name) == {"1"} for name in names))
    assert until(lambda: all(told(by_both, name) == {"0", "1"} for name in names))


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


def test_a_hanging_gpu_holds_up_neither_a_scrape_nor_the_other_gpu(serving: Serving) -> None:
    library = FakeNvml(FakeGpu("GPU-a"), FakeGpu("GPU-b"))
    client = pages(serving, library)
    library.gpus[1].hang = 60.0
    assert client.get("/nodes/host-a/metrics").status_code == 200  # the client would not wait for so long
    assert until(lambda: client.get("/readyz").status_code == 503)
    reason = client.get("/readyz").json()["detail"]
    assert re.match(r"GPU 1 was last read \d+\.\d s ago; nvmlDeviceGet\w+ has not returned for \d+ s", reason)
    assert until(lambda: value(page(client), "DCGM_FI_DEV_GPU_TEMP", gpu="0") == 61)
    text = page(client)
    assert value(text, "DCGM_FI_DEV_GPU_TEMP", gpu="1") is None
    assert (value(text, "stethos_exporter_reading_age_seconds", gpu="1") or 0) > 0.3
    assert until(lambda: (value(page(client), "stethos_exporter_call_pending_seconds", gpu="1") or 0) > 0.1)
    library.gpus[1].hang = 0.0
    assert until(lambda: client.get("/readyz").status_code == 200)


def test_failed_calls_are_counted_and_unsupported_ones_named(serving: Serving) -> None:
    library = FakeNvml(FakeGpu("GPU-a", tree="l40s"))
    client = pages(serving, library)
    unsupported = "stethos_exporter_call_unsupported"
    assert value(page(client), unsupported, gpu="0", call="nvmlDeviceGetFanSpeed") == 1
    assert samples(page(client), "stethos_exporter_call_errors_total") == []
    library.gpus[0].lost = True
    tags = {"gpu": "0", "call": "nvmlDeviceGetPowerUsage", "error": "GpuIsLost"}
    assert until(lambda: (value(page(client), "stethos_exporter_call_errors_total", **tags) or 0) >= 1)


def test_mig_instances_have_memory_and_activity_of_their_own() -> None:
    instances = [Instance(7, "1g.10gb", {"1": 40.0, "2": 30.0}), Instance(9, "3g.40gb", {"1": 90.0})]
    library = FakeNvml(FakeGpu("GPU-a", instances=instances))
    whole, small, large = read(library)
    assert (whole.identity.mig_id, whole.temperature_celsius) == (None, 61)
    assert (small.identity.mig_profile, small.identity.mig_id) == ("1g.10gb", 7)
    assert (small.sm_active_ratio, large.graphics_active_ratio, large.sm_active_ratio) == (0.3, 0.9, None)
    assert small.framebuffer_used_mebibytes == 69986
    assert small.temperature_celsius is None
    text = dcgm.expose([whole, small, large], "h")
    assert [each.labels.get("GPU_I_ID") for each in samples(text, "DCGM_FI_DEV_FB_USED")] == [None, "7", "9"]


def test_processes_only_when_asked_for(serving: Serving) -> None:
    silent = pages(serving, FakeNvml(FakeGpu("GPU-a")))
    assert "pid=" not in page(silent)
    library = FakeNvml(
        FakeGpu(
            "GPU-a",
            calls={
                "nvmlDeviceGetComputeRunningProcesses_v3": [
                    {"pid": os.getpid(), "usedGpuMemory": 5 << 30},
                    {"pid": 2, "usedGpuMemory": None},
                ]
            },
        )
    )
    found = samples(page(pages(serving, library, Options(processes=True, kernel_log=None))), MEMORY)
    assert [(each.labels["pid"], each.value) for each in found] == [(str(os.getpid()), 5 << 30)]
    assert found[0].labels["process"] == Path("/proc/self/comm").read_text().strip()


MEMORY = "stethos_gpu_process_memory_bytes"


def test_jobs_come_from_the_mapping_folder(serving: Serving, tmp_path: Path) -> None:
    (tmp_path / "0").write_text("1234\n\n1235\n")
    (tmp_path / "README").write_text("not a GPU")
    client = pages(serving, FakeNvml(FakeGpu("GPU-a"), FakeGpu("GPU-b")), Options(jobs=tmp_path, kernel_log=None))

    def jobs(gpu: str) -> list[str | None]:
        found = samples(page(client), "DCGM_FI_DEV_GPU_UTIL")
        return [each.labels.get("hpc_job") for each in found if each.labels["gpu"] == gpu]

    assert (jobs("0"), jobs("1")) == (["1234", "1235"], [None])
    (tmp_path / "0").unlink()
    (tmp_path / "1").write_text("77")
    assert (jobs("0"), jobs("1")) == ([None], ["77"])


def test_a_hostile_mapping_folder_costs_no_series_and_no_time(serving: Serving, tmp_path: Path) -> None:
    folder = tmp_path / "jobs"
    folder.mkdir()
    (folder / "0").write_bytes(b'7"\\\xff\r\n 8\t\n8\n\x00\n')
    os.mkfifo(folder / "1")
    (folder / "2").mkdir()
    (folder / "3").write_text("9\n" * 100_000)
    (folder / "\u0663").write_text("10")
    (folder / "4").symlink_to("/dev/zero")
    cards = [FakeGpu(f"GPU-{index}") for index in range(5)]
    client = pages(serving, FakeNvml(*cards), Options(jobs=folder, kernel_log=None))

    def jobs() -> list[tuple[str, str | None]]:
        found = samples(page(client), "DCGM_FI_DEV_GPU_UTIL")
        return [(each.labels["gpu"], each.labels.get("hpc_job")) for each in found]

    plain = [(str(gpu), None) for gpu in range(1, 5)]
    assert until(lambda: jobs() == [("0", '7"\\\ufffd'), ("0", "8"), ("0", "\x00"), *plain])
    folder.rename(tmp_path / "elsewhere")
    assert until(lambda: jobs() == [("0", None), *plain])
    assert value(page(client), "stethos_exporter_collector_success", collector="jobs") == 0


@pytest.mark.parametrize(
    ("line", "told"),
    [
        (b"NVRM: Xid (PCI:0000:4c:00): 79, GPU has fallen off the bus.", (0, 79)),
        (b"NVRM: Xid (PCI:0000:4c:00 GPU-I:05): 94, pid=7194, Contained", (0, 94)),
        (b"NVRM: Xid (0000:4C:00): 13, Graphics Exception", (0, 13)),
        (b"NVRM: Xid (PCI:0000:4d:00): 79, another GPU", None),
        (b"NVRM: Xid (PCI:0000:4c:00): " + b"9" * 5000, None),
        (b"NVRM: Xid (PCI::::): 79", None),
        (b"\xff\x00 Xid", None),
    ],
)
def test_lines_of_the_kernels_log(line: bytes, told: tuple[int, int] | None) -> None:
    assert kernel.parse(line, Nvml(FakeNvml(FakeGpu("GPU-a"))).identities) == told


def test_the_kernels_log_tells_xids_that_nvml_missed_and_none_twice(serving: Serving, tmp_path: Path) -> None:
    messages = tmp_path / "kmsg"
    messages.write_text("4,1,1,-;NVRM: Xid (PCI:0000:4c:00): 48, before we listened\n")
    library = FakeNvml(FakeGpu("GPU-a"))
    client = pages(serving, library, Options(kernel_log=messages))

    def count(code: str) -> float | None:
        return value(page(client), "stethos_gpu_xid_errors_total", xid=code)

    assert until(lambda: len(library.registered) == 1)
    time.sleep(0.2)
    with messages.open("a") as file:
        file.write("4,2,2,-;NVRM: Xid (PCI:0000:4c:00): 79, pid=1, GPU has fallen off the bus.\n")
        file.write("4,3,3,-;NVRM: Xid (PCI:0000:99:00): 62, another machine's GPU\n4,4,4,-;usb 1-1: new device\n")
    library.events.append((0, 79))
    library.events.append((0, 94))
    assert until(lambda: count("79") == 1 and count("94") == 1)
    time.sleep(0.7)
    assert (count("79"), count("48"), count("62")) == (1, 0, 0)
    assert value(page(client), "DCGM_FI_DEV_XID_ERRORS", gpu="0") in (79, 94)


def test_a_log_that_cannot_be_read_is_done_without(serving: Serving, tmp_path: Path) -> None:
    client = pages(serving, FakeNvml(FakeGpu("GPU-a")), Options(kernel_log=tmp_path / "none"))
    assert value(page(client), "DCGM_FI_DEV_GPU_TEMP", gpu="0") == 61


def test_two_sources_of_one_event_are_one_and_two_events_of_one_source_are_two() -> None:
    twice = Twice(seconds=10)
    assert twice.is_new("nvml", 0, 79, 0.0)
    assert not twice.is_new("kernel", 0, 79, 1.0)
    assert twice.is_new("nvml", 0, 79, 2.0)
    assert twice.is_new("nvml", 0, 79, 3.0)
    assert not twice.is_new("kernel", 0, 79, 4.0)
    assert not twice.is_new("kernel", 0, 79, 4.0)
    assert twice.is_new("kernel", 0, 79, 30.0)
    assert twice.is_new("nvml", 1, 79, 30.0)


@pytest.mark.parametrize(
    ("told", "island"),
    [
        ({"clusterUuid": (7,) * 16, "cliqueId": 2, "state": 3}, "07070707-0707-0707-0707-070707070707.2"),
        ({"clusterUuid": (0,) * 16, "cliqueId": 0, "state": 3}, ""),
        ({"clusterUuid": (7,) * 16, "cliqueId": 0, "state": 2}, ""),
        (None, ""),
    ],
)
def test_a_gpu_says_what_runs_on_it_and_which_nvlink_domain_it_has_joined(
    told: dict[str, object] | None, island: str
) -> None:
    calls: dict[str, object] = {"nvmlDeviceGetVbiosVersion": "96.00.74.00.01"}
    calls |= {} if told is None else {"nvmlDeviceGetGpuFabricInfoV": told}
    readings = read(FakeNvml(FakeGpu("GPU-a", calls=calls)))
    assert readings[0].identity.island == island
    versions = 'driver="550.90.07",vbios="96.00.74.00.01"'
    assert f'stethos_gpu_software_info{{gpu="0",UUID="GPU-a",{versions}}} 1' in info.expose(readings)
    assert (f'stethos_nvlink_island_info{{gpu="0",UUID="GPU-a",island="{island}"}} 1' in info.expose(readings)) == bool(
        island
    )
