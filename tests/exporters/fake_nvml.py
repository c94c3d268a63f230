"""A library that behaves as pynvml does, without a driver: its own constants, structs and errors, our GPUs."""

# ruff: noqa: N802 (the names are NVML's)

import ctypes
import time
from collections import deque
from dataclasses import dataclass, field
from typing import Any

import pynvml


@dataclass
class FakeGpu:
    """One card. What is in `unsupported` raises; a lost card raises for everything."""

    uuid: str
    name: str = "NVIDIA H100 80GB HBM3"
    minor: int = 0
    unsupported: set[str] = field(default_factory=set)
    lost: bool = False
    temperature: int = 61
    nvlink_kibibytes: int = 1_000_000


class FakeNvml:
    """Everything that is not below comes from the real module: constants, error classes and C structs."""

    def __init__(self, *gpus: FakeGpu, driver: bool = True) -> None:
        self.gpus = gpus
        self.driver = driver
        self.events: deque[tuple[int, int]] = deque()
        self.registered: list[int] = []
        self.hang = 0.0
        self.shut_down = False

    def __getattr__(self, name: str) -> Any:
        if name.startswith("nvml") and callable(getattr(pynvml, name)) and not name[4:].startswith("Event"):
            raise AssertionError(f"the fake does not know {name}")
        return getattr(pynvml, name)

    def nvmlInit(self) -> None:
        if not self.driver:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    def nvmlShutdown(self) -> None:
        self.shut_down = True

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:
        return ctypes.cast(ctypes.c_void_p(0x1000 + index), pynvml.c_nvmlDevice_t)

    def _gpu(self, handle: Any, call: str) -> FakeGpu:
        gpu = self.gpus[(ctypes.cast(handle, ctypes.c_void_p).value or 0) - 0x1000]
        if self.hang:
            time.sleep(self.hang)
        if gpu.lost:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        if call in gpu.unsupported:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return gpu

    def nvmlDeviceGetMinorNumber(self, handle: Any) -> int:
        gpu = self._gpu(handle, "nvmlDeviceGetMinorNumber")
        return gpu.minor

    def nvmlDeviceGetUUID(self, handle: Any) -> str:
        gpu = self._gpu(handle, "nvmlDeviceGetUUID")
        return gpu.uuid

    def nvmlDeviceGetName(self, handle: Any) -> str:
        gpu = self._gpu(handle, "nvmlDeviceGetName")
        return gpu.name

    def nvmlDeviceGetPowerUsage(self, handle: Any) -> int:
        self._gpu(handle, "nvmlDeviceGetPowerUsage")
        return 612345

    def nvmlDeviceGetEnforcedPowerLimit(self, handle: Any) -> int:
        self._gpu(handle, "nvmlDeviceGetEnforcedPowerLimit")
        return 700000

    def nvmlDeviceGetTotalEnergyConsumption(self, handle: Any) -> int:
        self._gpu(handle, "nvmlDeviceGetTotalEnergyConsumption")
        return 9876543210

    def nvmlDeviceGetPcieReplayCounter(self, handle: Any) -> int:
        self._gpu(handle, "nvmlDeviceGetPcieReplayCounter")
        return 1

    def nvmlDeviceGetCurrentClocksEventReasons(self, handle: Any) -> int:
        self._gpu(handle, "nvmlDeviceGetCurrentClocksEventReasons")
        return 4

    def nvmlDeviceGetRemappedRows(self, handle: Any) -> tuple[int, int, int, int]:
        self._gpu(handle, "nvmlDeviceGetRemappedRows")
        return (1, 2, 0, 0)

    def nvmlDeviceGetSupportedEventTypes(self, handle: Any) -> int:
        self._gpu(handle, "nvmlDeviceGetSupportedEventTypes")
        return int(pynvml.nvmlEventTypeXidCriticalError | pynvml.nvmlEventTypeClock)

    def nvmlDeviceGetPciInfo(self, handle: Any) -> Any:
        self._gpu(handle, "nvmlDeviceGetPciInfo")
        info = pynvml.nvmlPciInfo_t()
        info.busId = b"00000000:4C:00.0"
        return info

    def nvmlDeviceGetClockInfo(self, handle: Any, kind: int) -> int:
        self._gpu(handle, "nvmlDeviceGetClockInfo")
        return {pynvml.NVML_CLOCK_SM: 1965, pynvml.NVML_CLOCK_MEM: 2619}[kind]

    def nvmlDeviceGetTemperatureV(self, handle: Any, sensor: int) -> int:
        assert sensor == pynvml.NVML_TEMPERATURE_GPU
        return self._gpu(handle, "nvmlDeviceGetTemperatureV").temperature

    def nvmlDeviceGetUtilizationRates(self, handle: Any) -> Any:
        self._gpu(handle, "nvmlDeviceGetUtilizationRates")
        rates = pynvml.c_nvmlUtilization_t()
        rates.gpu, rates.memory = 97, 33
        return rates

    def nvmlDeviceGetMemoryInfo(self, handle: Any, version: int) -> Any:
        assert version == pynvml.nvmlMemory_v2
        self._gpu(handle, "nvmlDeviceGetMemoryInfo")
        memory = pynvml.c_nvmlMemory_v2_t()
        memory.free, memory.used, memory.reserved = 11022 << 20, 69986 << 20, 551 << 20
        return memory

    def nvmlDeviceGetViolationStatus(self, handle: Any, policy: int) -> Any:
        self._gpu(handle, "nvmlDeviceGetViolationStatus")
        status = pynvml.c_nvmlViolationTime_t()
        status.violationTime = {pynvml.NVML_PERF_POLICY_POWER: 5_000, pynvml.NVML_PERF_POLICY_THERMAL: 7_000}[policy]
        return status

    def nvmlDeviceGetTotalEccErrors(self, handle: Any, kind: int, counter: int) -> int:
        assert counter == pynvml.NVML_VOLATILE_ECC
        self._gpu(handle, "nvmlDeviceGetTotalEccErrors")
        return 3 if kind == pynvml.NVML_MEMORY_ERROR_TYPE_CORRECTED else 0

    def nvmlDeviceGetFieldValues(self, handle: Any, fields: list[Any]) -> Any:
        gpu = self._gpu(handle, "nvmlDeviceGetFieldValues")
        answer = (pynvml.c_nvmlFieldValue_t * 1)()
        wanted = fields[0] if isinstance(fields[0], int) else fields[0][0]
        answer[0].fieldId = wanted
        if wanted == pynvml.NVML_FI_DEV_MEMORY_TEMP:
            if "memory temperature" in gpu.unsupported:
                answer[0].nvmlReturn = pynvml.NVML_ERROR_NOT_SUPPORTED
            answer[0].valueType, answer[0].value.uiVal = pynvml.NVML_VALUE_TYPE_UNSIGNED_INT, 66
        else:
            answer[0].valueType = pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG
            answer[0].value.ullVal = gpu.nvlink_kibibytes
        return answer

    def nvmlGpmQueryDeviceSupport(self, handle: Any) -> Any:
        gpu = self._gpu(handle, "nvmlGpmQueryDeviceSupport")
        support = pynvml.c_nvmlGpmSupport_t()
        support.isSupportedDevice = int("H100" in gpu.name)
        return support

    def nvmlGpmSampleAlloc(self) -> Any:
        return pynvml.c_nvmlGpmSample_t()

    def nvmlGpmSampleFree(self, sample: Any) -> None:
        assert isinstance(sample, pynvml.c_nvmlGpmSample_t)

    def nvmlGpmSampleGet(self, handle: Any, sample: Any) -> Any:
        self._gpu(handle, "nvmlGpmSampleGet")
        return sample

    def nvmlGpmMetricsGet(self, request: Any) -> Any:
        assert request.version == pynvml.NVML_GPM_METRICS_GET_VERSION
        values = {
            pynvml.NVML_GPM_METRIC_GRAPHICS_UTIL: 96.5,
            pynvml.NVML_GPM_METRIC_ANY_TENSOR_UTIL: 51.25,
            pynvml.NVML_GPM_METRIC_PCIE_TX_PER_SEC: 100.0,
            pynvml.NVML_GPM_METRIC_PCIE_RX_PER_SEC: 200.0,
        }
        for metric in request.metrics[: request.numMetrics]:
            known = metric.metricId in values
            metric.nvmlReturn = pynvml.NVML_SUCCESS if known else pynvml.NVML_ERROR_NOT_SUPPORTED
            metric.value = values.get(metric.metricId, 0.0)
        return request

    def nvmlEventSetCreate(self) -> Any:
        return pynvml.c_nvmlEventSet_t()

    def nvmlEventSetFree(self, events: Any) -> None:
        assert isinstance(events, pynvml.c_nvmlEventSet_t)

    def nvmlDeviceRegisterEvents(self, handle: Any, kinds: int, _: Any) -> None:
        gpu = self._gpu(handle, "nvmlDeviceRegisterEvents")
        assert kinds == pynvml.nvmlEventTypeXidCriticalError
        self.registered.append(self.gpus.index(gpu))

    def nvmlEventSetWait_v2(self, _: Any, milliseconds: int) -> Any:
        if not self.events:
            time.sleep(min(milliseconds, 20) / 1000)
            raise pynvml.NVMLError(pynvml.NVML_ERROR_TIMEOUT)
        index, code = self.events.popleft()
        event = pynvml.c_nvmlEventData_t()
        event.device = self.nvmlDeviceGetHandleByIndex(index)
        event.eventType, event.eventData = pynvml.nvmlEventTypeXidCriticalError, code
        return event
