"""One GPU through NVML. Every value is asked for by itself: what fails is None, the rest is unaffected."""

import ctypes
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from exporters.gpm import Gpm
from exporters.reading import GpuIdentity, GpuReading
from exporters.watch import Watch

_ALL_LINKS = 0xFFFF_FFFF
_MEBIBYTE = 1 << 20
_HOTTEST_CELSIUS = 200  # DCGM drops what is above: a sensor's error value
_UNKNOWN_STATE = 32


@dataclass(frozen=True, slots=True)
class Process:
    """A process on a GPU and the memory it holds there."""

    pid: int
    bytes: int


class Device:
    """A GPU and, where it is split, its MIG instances."""

    def __init__(self, library: Any, index: int, handle: Any, watch: Watch) -> None:
        self.watch = watch
        self.handle = handle
        self._library = library
        self.identity = self._identity(index)
        support = self.watch.call("nvmlGpmQueryDeviceSupport", handle)
        has_gpm = support is not None and bool(support.isSupportedDevice)
        whole = self._sampler("nvmlGpmSampleGet", handle)
        self._gpm = Gpm(library, self.watch, whole if has_gpm else None)
        self._instances: dict[int, Gpm] = {}
        self._has_gpm = has_gpm
        self._traffic: dict[str, tuple[float, float]] = {}
        self._fields = self._wanted_fields()

    def read(self) -> list[GpuReading]:
        """One look: the GPU, then its MIG instances."""
        return [self._whole(), *self._mig()]

    def processes(self) -> list[Process]:
        """Who computes on the GPU; where the driver does not tell how much memory, nobody."""
        found = self.watch.call("nvmlDeviceGetComputeRunningProcesses_v3", self.handle) or []
        return [Process(each.pid, each.usedGpuMemory) for each in found if each.usedGpuMemory is not None]

    def close(self) -> None:
        """Lets go of what was allocated."""
        for gpm in (self._gpm, *self._instances.values()):
            gpm.close()

    def _sampler(self, name: str, *arguments: Any) -> Callable[[Any], Any]:
        return lambda sample: self.watch.call(name, *arguments, sample)

    def _identity(self, index: int) -> GpuIdentity:
        call, handle = self.watch.call, self.handle
        minor = call("nvmlDeviceGetMinorNumber", handle)
        info = call("nvmlDeviceGetPciInfo", handle)
        return GpuIdentity(
            gpu=index,
            uuid=_text(call("nvmlDeviceGetUUID", handle)),
            pci_bus_id=_text(info.busId) if info is not None else "",
            minor=index if minor is None else int(minor),
            model=_text(call("nvmlDeviceGetName", handle)),
            driver=_text(call("nvmlSystemGetDriverVersion")),
            vbios=_text(call("nvmlDeviceGetVbiosVersion", handle)),
        )

    def _whole(self) -> GpuReading:
        call, handle, library = self.watch.call, self.handle, self._library
        rates = call("nvmlDeviceGetUtilizationRates", handle)
        rows = call("nvmlDeviceGetRemappedRows", handle) or (None, None, None, None)
        encoder = call("nvmlDeviceGetEncoderUtilization", handle)
        decoder = call("nvmlDeviceGetDecoderUtilization", handle)
        state = call("nvmlDeviceGetPerformanceState", handle)
        return GpuReading(
            replace(self.identity, island=self._island()),
            sm_clock_megahertz=call("nvmlDeviceGetClockInfo", handle, library.NVML_CLOCK_SM),
            memory_clock_megahertz=call("nvmlDeviceGetClockInfo", handle, library.NVML_CLOCK_MEM),
            temperature_celsius=self._temperature(),
            power_watts=_watts(call("nvmlDeviceGetPowerUsage", handle)),
            energy_millijoules=call("nvmlDeviceGetTotalEnergyConsumption", handle),
            pcie_replay_count=call("nvmlDeviceGetPcieReplayCounter", handle),
            utilization_percent=None if rates is None else rates.gpu,
            memory_copy_percent=None if rates is None else rates.memory,
            encoder_percent=encoder[0] if encoder else None,
            decoder_percent=decoder[0] if decoder else None,
            vgpu_license_status=self._license(),
            remapped_rows_correctable=rows[0],
            remapped_rows_uncorrectable=rows[1],
            row_remap_pending=rows[2],
            row_remap_failure=rows[3],
            power_limit_watts=_watts(call("nvmlDeviceGetEnforcedPowerLimit", handle)),
            power_violation_nanoseconds=self._violation(library.NVML_PERF_POLICY_POWER),
            thermal_violation_nanoseconds=self._violation(library.NVML_PERF_POLICY_THERMAL),
            sync_boost_violation_nanoseconds=self._violation(library.NVML_PERF_POLICY_SYNC_BOOST),
            board_limit_violation_nanoseconds=self._violation(library.NVML_PERF_POLICY_BOARD_LIMIT),
            low_utilization_violation_nanoseconds=self._violation(library.NVML_PERF_POLICY_LOW_UTILIZATION),
            reliability_violation_nanoseconds=self._violation(library.NVML_PERF_POLICY_RELIABILITY),
            ecc_corrected_count=self._ecc("CORRECTED", library.NVML_VOLATILE_ECC),
            ecc_uncorrected_count=self._ecc("UNCORRECTED", library.NVML_VOLATILE_ECC),
            ecc_corrected_lifetime_count=self._ecc("CORRECTED", library.NVML_AGGREGATE_ECC),
            ecc_uncorrected_lifetime_count=self._ecc("UNCORRECTED", library.NVML_AGGREGATE_ECC),
            clocks_event_reasons=call("nvmlDeviceGetCurrentClocksEventReasons", handle),
            temperature_margin_celsius=call("nvmlDeviceGetMarginTemperature", handle),
            slowdown_temperature_celsius=self._threshold(library.NVML_TEMPERATURE_THRESHOLD_SLOWDOWN),
            shutdown_temperature_celsius=self._threshold(library.NVML_TEMPERATURE_THRESHOLD_SHUTDOWN),
            performance_state=None if state == _UNKNOWN_STATE else state,
            fan_percent=call("nvmlDeviceGetFanSpeed", handle),
            pcie_link_generation=call("nvmlDeviceGetCurrPcieLinkGeneration", handle),
            pcie_link_width=call("nvmlDeviceGetCurrPcieLinkWidth", handle),
            pcie_link_generation_max=call("nvmlDeviceGetMaxPcieLinkGeneration", handle),
            pcie_link_width_max=call("nvmlDeviceGetMaxPcieLinkWidth", handle),
            **self._memory(handle),
            **self._by_field(),
            **self._gpm.read(),
        )

    def _island(self) -> str:
        """As Kubernetes' device plugin writes it: the cluster's UUID, a point, the clique."""
        library = self._library
        found = library.c_nvmlGpuFabricInfoV_t()
        answer = self.watch.call("nvmlDeviceGetGpuFabricInfoV", self.handle, ctypes.byref(found))
        cluster = bytes(found.clusterUuid)
        # Where GPUs are joined within their node alone the UUID is zero.
        if answer is None or found.state != library.NVML_GPU_FABRIC_STATE_COMPLETED or not any(cluster):
            return ""
        return f"{uuid.UUID(bytes=cluster)}.{found.cliqueId}"

    def _mig(self) -> list[GpuReading]:
        call, library = self.watch.call, self._library
        mode = call("nvmlDeviceGetMigMode", self.handle)
        if not mode or mode[0] != library.NVML_DEVICE_MIG_ENABLE:
            return []
        readings = []
        for index in range(call("nvmlDeviceGetMaxMigDeviceCount", self.handle) or 0):
            # most places are empty, and say so by this error
            nothing = library.NVML_ERROR_NOT_FOUND
            handle = call("nvmlDeviceGetMigDeviceHandleByIndex", self.handle, index, expected=nothing)
            number = None if handle is None else call("nvmlDeviceGetGpuInstanceId", handle)
            if number is not None:
                _, _, profile = _text(call("nvmlDeviceGetName", handle)).rpartition("MIG ")
                instance = replace(self.identity, mig_profile=profile, mig_id=number)
                readings.append(GpuReading(instance, **self._memory(handle), **self._instance(number).read()))
        return readings

    def _instance(self, number: int) -> Gpm:
        if number not in self._instances:
            sample = self._sampler("nvmlGpmMigSampleGet", self.handle, number) if self._has_gpm else None
            self._instances[number] = Gpm(self._library, self.watch, sample)
        return self._instances[number]

    def _memory(self, handle: Any) -> dict[str, float]:
        memory = self.watch.call("nvmlDeviceGetMemoryInfo", handle, version=self._library.nvmlMemory_v2)
        if memory is None:
            return {}
        return {
            "framebuffer_free_mebibytes": memory.free // _MEBIBYTE,
            "framebuffer_used_mebibytes": memory.used // _MEBIBYTE,
            "framebuffer_reserved_mebibytes": memory.reserved // _MEBIBYTE,
            "framebuffer_total_mebibytes": memory.total // _MEBIBYTE,
        }

    def _temperature(self) -> float | None:
        name, sensor = "nvmlDeviceGetTemperatureV", self._library.NVML_TEMPERATURE_GPU
        celsius = self.watch.call(name, self.handle, sensor)
        if name in self.watch.unsupported:  # older drivers
            celsius = self.watch.call("nvmlDeviceGetTemperature", self.handle, sensor)
        return _cool(celsius)

    def _violation(self, policy: int) -> float | None:
        status = self.watch.call("nvmlDeviceGetViolationStatus", self.handle, policy)
        return None if status is None else float(status.violationTime)

    def _ecc(self, kind: str, counter: int) -> float | None:
        error = getattr(self._library, f"NVML_MEMORY_ERROR_TYPE_{kind}")
        count: float | None = self.watch.call("nvmlDeviceGetTotalEccErrors", self.handle, error, counter)
        return count

    def _threshold(self, which: int) -> float | None:
        celsius: float | None = self.watch.call("nvmlDeviceGetTemperatureThreshold", self.handle, which)
        return celsius

    def _license(self) -> float | None:
        features = self.watch.call("nvmlDeviceGetGridLicensableFeatures", self.handle)
        if features is None or not features.isGridLicenseSupported:
            return None
        return float(features.gridLicensableFeatures[0].featureState)

    def _wanted_fields(self) -> dict[str, int | tuple[int, int]]:
        library = self._library
        return {
            "memory_temperature_celsius": library.NVML_FI_DEV_MEMORY_TEMP,
            "sent": (library.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX, _ALL_LINKS),
            "received": (library.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX, _ALL_LINKS),
            "sent_on_first": (library.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX, 0),
            "received_on_first": (library.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX, 0),
            "nvlink_crc_flit_errors": library.NVML_FI_DEV_NVLINK_CRC_FLIT_ERROR_COUNT_TOTAL,
            "nvlink_crc_data_errors": library.NVML_FI_DEV_NVLINK_CRC_DATA_ERROR_COUNT_TOTAL,
            "nvlink_replay_errors": library.NVML_FI_DEV_NVLINK_REPLAY_ERROR_COUNT_TOTAL,
            "nvlink_recovery_errors": library.NVML_FI_DEV_NVLINK_RECOVERY_ERROR_COUNT_TOTAL,
            "retired_pages_corrected": library.NVML_FI_DEV_RETIRED_SBE,
            "retired_pages_uncorrected": library.NVML_FI_DEV_RETIRED_DBE,
            "retired_pages_pending": library.NVML_FI_DEV_RETIRED_PENDING,
            "recovery_action": library.NVML_FI_DEV_GET_GPU_RECOVERY_ACTION,
        }

    def _by_field(self) -> dict[str, float | None]:
        now = time.monotonic()
        answers = self.watch.call("nvmlDeviceGetFieldValues", self.handle, list(self._fields.values()))
        if answers is None:
            return {}
        values = {name: self._value(answer) for name, answer in zip(self._fields, answers, strict=True)}
        values["memory_temperature_celsius"] = _cool(values["memory_temperature_celsius"])
        for field, sent, received in (
            ("nvlink_megabytes_per_second", "sent", "received"),
            ("nvlink_first_megabytes_per_second", "sent_on_first", "received_on_first"),
        ):
            values[field] = self._nvlink(field, now, values.pop(sent), values.pop(received))
        return values

    def _value(self, answer: Any) -> float | None:
        library = self._library
        if answer.nvmlReturn != library.NVML_SUCCESS:
            return None
        member = {
            library.NVML_VALUE_TYPE_DOUBLE: "dVal",
            library.NVML_VALUE_TYPE_UNSIGNED_INT: "uiVal",
            library.NVML_VALUE_TYPE_UNSIGNED_LONG: "ulVal",
            library.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG: "ullVal",
            library.NVML_VALUE_TYPE_SIGNED_LONG_LONG: "sllVal",
            library.NVML_VALUE_TYPE_SIGNED_INT: "siVal",
        }.get(answer.valueType)
        return None if member is None else float(getattr(answer.value, member))

    def _nvlink(self, field: str, now: float, sent: float | None, received: float | None) -> float | None:
        # As DCGM: the counters are KiB; the rate is their growth per second / 1000, first 0.
        if sent is None or received is None:
            return None
        total = sent + received
        then, before = self._traffic.get(field, (now, total))
        self._traffic[field] = (now, total)
        return round((total - before) / (now - then) / 1000, 3) if now > then and total >= before else 0.0


def spoken(readings: Sequence[GpuReading]) -> list[GpuReading]:
    """A GPU that answers nothing is absent, but the XID it left with is worth showing."""
    kept = []
    for reading in readings:
        silent = replace(GpuReading(reading.identity), xid_code=reading.xid_code)
        if reading != silent or reading.xid_code:
            kept.append(reading)
    return kept


def _text(value: str | bytes | None) -> str:
    # Older bindings answer in bytes.
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""


def _watts(milliwatts: float | None) -> float | None:
    return None if milliwatts is None else round(milliwatts / 1000, 3)


def _cool(value: float | None) -> float | None:
    return None if value is None or value > _HOTTEST_CELSIUS else value
