"""This machine's GPUs through NVML. The only importer of `pynvml`; tests hand in a library that behaves like it."""

import ctypes
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from exporters.gpm import Gpm
from exporters.reading import GpuIdentity, GpuReading

_ALL_LINKS = 0xFFFF_FFFF
_MEBIBYTE = 1 << 20
_HOTTEST_CELSIUS = 200  # DCGM drops what is above: a sensor's error value
_WAIT_MILLISECONDS = 500


class NoDriverError(Exception):
    """NVML cannot be used on this machine."""


def load() -> Any:
    """The real library (it ships no types)."""
    import pynvml

    return pynvml


class Nvml:
    """NVML, opened. Every read is by itself: what fails is None, the rest is unaffected."""

    def __init__(self, library: Any) -> None:
        self._library = library
        self._unavailable: type[Exception] = library.NVMLError
        try:
            library.nvmlInit()
            count = library.nvmlDeviceGetCount()
            self._handles = [library.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
        except self._unavailable as error:
            raise NoDriverError(f"NVML cannot be used here: {error}") from error
        if not self._handles:
            raise NoDriverError("NVML works here, but it sees no GPU")
        self.identities = [self._identity(index, handle) for index, handle in enumerate(self._handles)]
        self._gpm = [Gpm(library, handle) for handle in self._handles]
        self._traffic: dict[int, tuple[float, float]] = {}
        self._events: Any = None

    def read(self, xids: Mapping[int, int]) -> list[GpuReading]:
        """One look at every GPU. `xids`: the last XID seen, per GPU; the rest have seen none."""
        return [
            self._read(index, handle, xids.get(identity.gpu, 0))
            for index, (identity, handle) in enumerate(zip(self.identities, self._handles, strict=True))
        ]

    def watch_xids(self) -> Sequence[int]:
        """Registers for XID events; returns the GPUs that can report them."""
        library, watched = self._library, []
        self._events = self._tried(library.nvmlEventSetCreate)
        if self._events is None:
            return []
        wanted = library.nvmlEventTypeXidCriticalError
        for identity, handle in zip(self.identities, self._handles, strict=True):
            # Registering an unsupported bit fails the whole call, so ask first.
            try:
                if library.nvmlDeviceGetSupportedEventTypes(handle) & wanted:
                    library.nvmlDeviceRegisterEvents(handle, wanted, self._events)
                    watched.append(identity.gpu)
            except self._unavailable:
                continue
        return watched

    def next_xid(self) -> tuple[int, int] | None:
        """Waits half a second at most for (GPU, code). Raises the library's error when the wait itself fails."""
        try:
            event = self._library.nvmlEventSetWait_v2(self._events, _WAIT_MILLISECONDS)
        except self._library.NVMLError_Timeout:
            return None
        # A lost GPU no longer answers to its handle, but the pointer still tells which one it was.
        pointers = [_pointer(handle) for handle in self._handles]
        device = _pointer(event.device)
        if not event.eventType & self._library.nvmlEventTypeXidCriticalError or device not in pointers:
            return None
        return self.identities[pointers.index(device)].gpu, int(event.eventData)

    def close(self) -> None:
        """Lets go of NVML."""
        for gpm in self._gpm:
            gpm.close()
        if self._events is not None:
            self._tried(lambda: self._library.nvmlEventSetFree(self._events))
        self._tried(self._library.nvmlShutdown)

    def _tried(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except self._unavailable:
            return None

    def _identity(self, index: int, handle: Any) -> GpuIdentity:
        library = self._library
        minor = self._tried(lambda: library.nvmlDeviceGetMinorNumber(handle))
        info = self._tried(lambda: library.nvmlDeviceGetPciInfo(handle))
        return GpuIdentity(
            gpu=index,
            uuid=_text(self._tried(lambda: library.nvmlDeviceGetUUID(handle))),
            pci_bus_id=_text(info.busId) if info is not None else "",
            minor=index if minor is None else int(minor),
            model=_text(self._tried(lambda: library.nvmlDeviceGetName(handle))),
        )

    def _read(self, index: int, handle: Any, xid: int) -> GpuReading:
        library, tried = self._library, self._tried
        rates = tried(lambda: library.nvmlDeviceGetUtilizationRates(handle))
        memory = tried(lambda: library.nvmlDeviceGetMemoryInfo(handle, version=library.nvmlMemory_v2))
        rows = tried(lambda: library.nvmlDeviceGetRemappedRows(handle))
        profile = self._gpm[index].read()
        return GpuReading(
            self.identities[index],
            sm_clock_megahertz=tried(lambda: library.nvmlDeviceGetClockInfo(handle, library.NVML_CLOCK_SM)),
            memory_clock_megahertz=tried(lambda: library.nvmlDeviceGetClockInfo(handle, library.NVML_CLOCK_MEM)),
            memory_temperature_celsius=_cool(self._field(handle, library.NVML_FI_DEV_MEMORY_TEMP)),
            temperature_celsius=_cool(
                tried(lambda: library.nvmlDeviceGetTemperatureV(handle, library.NVML_TEMPERATURE_GPU))
            ),
            power_watts=_scaled(tried(lambda: library.nvmlDeviceGetPowerUsage(handle)), 1e-3),
            energy_millijoules=tried(lambda: library.nvmlDeviceGetTotalEnergyConsumption(handle)),
            pcie_replay_count=tried(lambda: library.nvmlDeviceGetPcieReplayCounter(handle)),
            utilization_percent=None if rates is None else rates.gpu,
            memory_copy_percent=None if rates is None else rates.memory,
            xid_code=xid,
            framebuffer_free_mebibytes=None if memory is None else memory.free // _MEBIBYTE,
            framebuffer_used_mebibytes=None if memory is None else memory.used // _MEBIBYTE,
            framebuffer_reserved_mebibytes=None if memory is None else memory.reserved // _MEBIBYTE,
            nvlink_megabytes_per_second=self._nvlink(index, handle),
            remapped_rows_uncorrectable=None if rows is None else rows[1],
            remapped_rows_correctable=None if rows is None else rows[0],
            row_remap_failure=None if rows is None else rows[3],
            graphics_active_ratio=profile.graphics_active_ratio,
            tensor_active_ratio=profile.tensor_active_ratio,
            dram_active_ratio=profile.dram_active_ratio,
            pcie_tx_bytes_per_second=profile.pcie_tx_bytes_per_second,
            pcie_rx_bytes_per_second=profile.pcie_rx_bytes_per_second,
            power_limit_watts=_scaled(tried(lambda: library.nvmlDeviceGetEnforcedPowerLimit(handle)), 1e-3),
            power_violation_nanoseconds=self._violation(handle, library.NVML_PERF_POLICY_POWER),
            thermal_violation_nanoseconds=self._violation(handle, library.NVML_PERF_POLICY_THERMAL),
            ecc_corrected_count=self._ecc(handle, library.NVML_MEMORY_ERROR_TYPE_CORRECTED),
            ecc_uncorrected_count=self._ecc(handle, library.NVML_MEMORY_ERROR_TYPE_UNCORRECTED),
            clocks_event_reasons=tried(lambda: library.nvmlDeviceGetCurrentClocksEventReasons(handle)),
        )

    def _violation(self, handle: Any, policy: int) -> float | None:
        status = self._tried(lambda: self._library.nvmlDeviceGetViolationStatus(handle, policy))
        return None if status is None else float(status.violationTime)

    def _ecc(self, handle: Any, kind: int) -> float | None:
        library = self._library
        count = self._tried(lambda: library.nvmlDeviceGetTotalEccErrors(handle, kind, library.NVML_VOLATILE_ECC))
        return None if count is None else float(count)

    def _field(self, handle: Any, field: int | tuple[int, int]) -> float | None:
        library = self._library
        answers = self._tried(lambda: library.nvmlDeviceGetFieldValues(handle, [field]))
        if answers is None or answers[0].nvmlReturn != library.NVML_SUCCESS:
            return None
        member = {
            library.NVML_VALUE_TYPE_DOUBLE: "dVal",
            library.NVML_VALUE_TYPE_UNSIGNED_INT: "uiVal",
            library.NVML_VALUE_TYPE_UNSIGNED_LONG: "ulVal",
            library.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG: "ullVal",
            library.NVML_VALUE_TYPE_SIGNED_LONG_LONG: "sllVal",
            library.NVML_VALUE_TYPE_SIGNED_INT: "siVal",
        }.get(answers[0].valueType)
        return None if member is None else float(getattr(answers[0].value, member))

    def _nvlink(self, index: int, handle: Any) -> float | None:
        # As DCGM: the counters are KiB over all links; the rate is their growth per second / 1000, first 0.
        library = self._library
        sent = self._field(handle, (library.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_TX, _ALL_LINKS))
        received = self._field(handle, (library.NVML_FI_DEV_NVLINK_THROUGHPUT_DATA_RX, _ALL_LINKS))
        if sent is None or received is None:
            return None
        now, total = time.monotonic(), sent + received
        then, before = self._traffic.get(index, (now, total))
        self._traffic[index] = (now, total)
        return round((total - before) / (now - then) / 1000, 3) if now > then and total >= before else 0.0


def _pointer(handle: Any) -> int | None:
    return ctypes.cast(handle, ctypes.c_void_p).value


def _text(value: str | bytes | None) -> str:
    # Older bindings answer in bytes.
    return value.decode(errors="replace") if isinstance(value, bytes) else value or ""


def _scaled(value: float | None, factor: float) -> float | None:
    return None if value is None else round(value * factor, 3)


def _cool(value: float | None) -> float | None:
    return None if value is None or value > _HOTTEST_CELSIUS else value
