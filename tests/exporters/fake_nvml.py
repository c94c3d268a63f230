"""A library that behaves as pynvml does, without a driver: its own constants, structs and errors, our GPUs.

A GPU answers from a device tree (`trees/*.json`): calls by name and arguments, field values by id, GPM metrics by id.
What a tree does not have, the GPU does not support.
"""

# ruff: noqa: N802 (the names are NVML's)

import ctypes
import json
import time
from collections import deque
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pynvml

TREES = Path(__file__).with_name("trees")
ALL_LINKS = 0xFFFF_FFFF


@dataclass
class Instance:
    """A MIG instance."""

    number: int
    profile: str
    gpm: dict[str, float] = field(default_factory=dict)


@dataclass
class FakeGpu:
    """One card. What is in `unsupported` raises; a lost card raises for everything; `hang` delays every call."""

    uuid: str
    tree: str = "h100"
    minor: int = 0
    unsupported: set[str] = field(default_factory=set)
    lost: bool = False
    hang: float = 0.0
    calls: dict[str, Any] = field(default_factory=dict)  # instead of the tree's
    fields: dict[str, float] = field(default_factory=dict)
    instances: list[Instance] = field(default_factory=list)

    def __post_init__(self) -> None:
        tree = json.loads((TREES / f"{self.tree}.json").read_text())
        self.calls = (
            tree["calls"] | {"nvmlDeviceGetUUID": self.uuid, "nvmlDeviceGetMinorNumber": self.minor} | self.calls
        )
        self.fields = tree["fields"] | self.fields
        self.gpm = tree["gpm"]
        if self.instances:
            self.calls |= {"nvmlDeviceGetMigMode": [1, 1], "nvmlDeviceGetMaxMigDeviceCount": 7}


class FakeNvml:
    """Constants, error classes and C structs are the real module's."""

    def __init__(self, *gpus: FakeGpu, driver: bool = True, start_seconds: float = 0.0) -> None:
        self.gpus = gpus
        self.driver = driver
        self.start_seconds = start_seconds
        self.events: deque[tuple[int, int]] = deque()
        self.registered: list[int] = []
        self.samples: dict[int, dict[str, float]] = {}
        self.shut_down = False

    def __getattr__(self, name: str) -> Any:
        if name.startswith("nvmlDeviceGet"):
            return partial(self._answer, name)
        if name.startswith("nvml") and callable(getattr(pynvml, name)) and not name[4:].startswith("Event"):
            raise AssertionError(f"the fake does not know {name}")
        return getattr(pynvml, name)

    def nvmlInit(self) -> None:
        time.sleep(self.start_seconds)
        if not self.driver:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_LIBRARY_NOT_FOUND)

    def nvmlSystemGetDriverVersion(self) -> str:
        return "550.90.07"

    def nvmlShutdown(self) -> None:
        self.shut_down = True

    def nvmlDeviceGetCount(self) -> int:
        return len(self.gpus)

    def nvmlDeviceGetHandleByIndex(self, index: int) -> Any:
        handle = _handle(0x1000 + 0x100 * index)
        self._gpu(handle, "nvmlDeviceGetHandleByIndex")
        return handle

    def _gpu(self, handle: Any, call: str) -> FakeGpu:
        gpu = self.gpus[((_pointer(handle)) - 0x1000) // 0x100]
        end = time.monotonic() + gpu.hang
        while gpu.hang and time.monotonic() < end:  # until the test lets go of it
            time.sleep(0.02)
        if gpu.lost:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_GPU_IS_LOST)
        if call in gpu.unsupported:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return gpu

    def _answer(self, name: str, handle: Any, *arguments: int, **more: int) -> Any:
        gpu = self._gpu(handle, name)
        if name == "nvmlDeviceGetMemoryInfo":
            assert more == {"version": pynvml.nvmlMemory_v2}
        place = _pointer(handle) & 0xFF
        if place:  # a MIG instance
            instance = gpu.instances[place - 1]
            own: dict[str, int | str] = {
                "nvmlDeviceGetGpuInstanceId": instance.number,
                "nvmlDeviceGetName": f"{gpu.calls['nvmlDeviceGetName']} MIG {instance.profile}",
            }
            if name in own:
                return own[name]
        key = " ".join([name, *map(str, arguments)])
        if key not in gpu.calls:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        return _struct(gpu.calls[key])

    def nvmlDeviceGetMigDeviceHandleByIndex(self, handle: Any, index: int) -> Any:
        gpu = self._gpu(handle, "nvmlDeviceGetMigDeviceHandleByIndex")
        if index >= len(gpu.instances):
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_FOUND)
        return _handle(_pointer(handle) + index + 1)

    def nvmlDeviceGetGpuFabricInfoV(self, handle: Any, found: Any) -> int:
        gpu = self._gpu(handle, name := "nvmlDeviceGetGpuFabricInfoV")
        if name not in gpu.calls:
            raise pynvml.NVMLError(pynvml.NVML_ERROR_NOT_SUPPORTED)
        for field_name, value in gpu.calls[name].items():
            setattr(found._obj, field_name, value)
        return int(pynvml.NVML_SUCCESS)

    def nvmlDeviceGetFieldValues(self, handle: Any, fields: list[Any]) -> Any:
        gpu = self._gpu(handle, "nvmlDeviceGetFieldValues")
        answers = (pynvml.c_nvmlFieldValue_t * len(fields))()
        for answer, wanted in zip(answers, fields, strict=True):
            number, link = (wanted, ALL_LINKS) if isinstance(wanted, int) else wanted
            key = str(number) if link == ALL_LINKS else f"{number} {link}"
            answer.fieldId = number
            if key not in gpu.fields or f"field {number}" in gpu.unsupported:
                answer.nvmlReturn = pynvml.NVML_ERROR_NOT_SUPPORTED
            else:
                answer.valueType = pynvml.NVML_VALUE_TYPE_UNSIGNED_LONG_LONG
                answer.value.ullVal = int(gpu.fields[key])
        return answers

    def nvmlGpmQueryDeviceSupport(self, handle: Any) -> Any:
        gpu = self._gpu(handle, "nvmlGpmQueryDeviceSupport")
        return SimpleNamespace(isSupportedDevice=int(gpu.gpm is not None))

    def nvmlGpmSampleAlloc(self) -> Any:
        sample = pynvml.c_nvmlGpmSample_t()
        ctypes.cast(ctypes.pointer(sample), ctypes.POINTER(ctypes.c_void_p))[0] = 0x9000 + len(self.samples)
        self.samples[_pointer(sample)] = {}
        return sample

    def nvmlGpmSampleFree(self, sample: Any) -> None:
        del self.samples[_pointer(sample)]

    def nvmlGpmSampleGet(self, handle: Any, sample: Any) -> Any:
        self.samples[_pointer(sample)] = self._gpu(handle, "nvmlGpmSampleGet").gpm
        return sample

    def nvmlGpmMigSampleGet(self, handle: Any, number: int, sample: Any) -> Any:
        gpu = self._gpu(handle, "nvmlGpmMigSampleGet")
        self.samples[_pointer(sample)] = next(each.gpm for each in gpu.instances if each.number == number)
        return sample

    def nvmlGpmMetricsGet(self, request: Any) -> Any:
        assert request.version == pynvml.NVML_GPM_METRICS_GET_VERSION
        values = self.samples[_pointer(request.sample2)]
        for metric in request.metrics[: request.numMetrics]:
            known = str(metric.metricId) in values
            metric.nvmlReturn = pynvml.NVML_SUCCESS if known else pynvml.NVML_ERROR_NOT_SUPPORTED
            metric.value = values.get(str(metric.metricId), 0.0)
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
        event.device = _handle(0x1000 + 0x100 * index)
        event.eventType, event.eventData = pynvml.nvmlEventTypeXidCriticalError, code
        return event


def _struct(value: Any) -> Any:
    if isinstance(value, dict):
        return SimpleNamespace(**{name: _struct(each) for name, each in value.items()})
    return [_struct(each) for each in value] if isinstance(value, list) else value


def _handle(pointer: int) -> Any:
    return ctypes.cast(ctypes.c_void_p(pointer), pynvml.c_nvmlDevice_t)


def _pointer(handle: Any) -> int:
    return ctypes.cast(handle, ctypes.c_void_p).value or 0
