"""This machine's GPUs through NVML. The only importer of `pynvml`; tests hand in a library that behaves like it."""

import ctypes
from collections.abc import Callable, Sequence
from typing import Any

from exporters.device import Device
from exporters.reading import GpuIdentity

_WAIT_MILLISECONDS = 500


class NoDriverError(Exception):
    """NVML cannot be used on this machine."""


def load() -> Any:
    """The real library (it ships no types)."""
    import pynvml

    return pynvml


class Nvml:
    """NVML, opened, with its GPUs."""

    def __init__(self, library: Any) -> None:
        self._library = library
        try:
            library.nvmlInit()
            count = library.nvmlDeviceGetCount()
            handles = [library.nvmlDeviceGetHandleByIndex(index) for index in range(count)]
        except library.NVMLError as error:
            raise NoDriverError(f"NVML cannot be used here: {error}") from error
        if not handles:
            raise NoDriverError("NVML works here, but it sees no GPU")
        self.devices = [Device(library, index, handle) for index, handle in enumerate(handles)]
        self._events: Any = None

    @property
    def identities(self) -> list[GpuIdentity]:
        """Who the GPUs are."""
        return [device.identity for device in self.devices]

    def watch_xids(self) -> Sequence[int]:
        """Registers for XID events; returns the GPUs that can report them."""
        library, watched = self._library, []
        self._events = self._tried(library.nvmlEventSetCreate)
        if self._events is None:
            return []
        wanted = library.nvmlEventTypeXidCriticalError
        for device in self.devices:
            # Registering an unsupported bit fails the whole call, so ask first.
            try:
                if library.nvmlDeviceGetSupportedEventTypes(device.handle) & wanted:
                    library.nvmlDeviceRegisterEvents(device.handle, wanted, self._events)
                    watched.append(device.identity.gpu)
            except library.NVMLError:
                continue
        return watched

    def next_xid(self) -> tuple[int, int] | None:
        """Waits half a second at most for (GPU, code). Raises the library's error when the wait itself fails."""
        try:
            event = self._library.nvmlEventSetWait_v2(self._events, _WAIT_MILLISECONDS)
        except self._library.NVMLError_Timeout:
            return None
        # A lost GPU no longer answers to its handle, but the pointer still tells which one it was.
        pointers = [_pointer(device.handle) for device in self.devices]
        pointer = _pointer(event.device)
        if not event.eventType & self._library.nvmlEventTypeXidCriticalError or pointer not in pointers:
            return None
        return self.devices[pointers.index(pointer)].identity.gpu, int(event.eventData)

    def close(self) -> None:
        """Lets go of NVML."""
        for device in self.devices:
            device.close()
        if self._events is not None:
            self._tried(lambda: self._library.nvmlEventSetFree(self._events))
        self._tried(self._library.nvmlShutdown)

    def _tried(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except self._library.NVMLError:
            return None


def _pointer(handle: Any) -> int | None:
    return ctypes.cast(handle, ctypes.c_void_p).value
