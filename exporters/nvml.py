"""This machine's GPUs through NVML. The only importer of `pynvml`; tests hand in a library that behaves like it."""

import ctypes
import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from exporters.device import Device
from exporters.reading import GpuIdentity
from exporters.watch import Watch

_WAIT_MILLISECONDS = 500
_START_SECONDS = 30.0


class NoDriverError(Exception):
    """NVML cannot be used on this machine."""


def load() -> Any:
    """The real library (it ships no types)."""
    import pynvml

    return pynvml


class Nvml:
    """NVML, opened, with those of its GPUs that answer; `watches` also has those that do not.

    Raises `NoDriverError` when none does, or NVML itself does not within `start_seconds`.
    """

    def __init__(self, library: Any, start_seconds: float = _START_SECONDS) -> None:
        self._library = library
        self._found: dict[int, Device] = {}
        self._events: Any = None
        self.watches: dict[int, Watch] = {}
        self.events_watch = Watch(library)
        said: list[str | None] = []
        _within(start_seconds, [lambda: said.append(self._start())])
        if failure := said[0] if said else f"it has not answered for {start_seconds:g} s":
            raise NoDriverError(f"NVML cannot be used here: {failure}")
        if not self.watches:
            raise NoDriverError("NVML works here, but it sees no GPU")
        _within(start_seconds, [partial(self._open, index) for index in self.watches])
        self.devices = [self._found[index] for index in sorted(self._found.copy())]
        if not self.devices:
            raise NoDriverError(f"NVML works here, but none of {len(self.watches)} GPUs answers")

    def _start(self) -> str | None:
        try:
            self._library.nvmlInit()
            self.watches = {index: Watch(self._library) for index in range(self._library.nvmlDeviceGetCount())}
        except self._library.NVMLError as error:
            return str(error)
        return None

    def _open(self, index: int) -> None:
        watch = self.watches[index]
        handle = watch.call("nvmlDeviceGetHandleByIndex", index)
        if handle is not None:
            self._found[index] = Device(self._library, index, handle, watch)

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
                with self.events_watch.under_way("nvmlDeviceRegisterEvents"):
                    if library.nvmlDeviceGetSupportedEventTypes(device.handle) & wanted:
                        library.nvmlDeviceRegisterEvents(device.handle, wanted, self._events)
                        watched.append(device.identity.gpu)
            except library.NVMLError:
                continue
        return watched

    def next_xid(self) -> tuple[int, int] | None:
        """Waits half a second at most for (GPU, code). Raises the library's error when the wait itself fails."""
        try:
            with self.events_watch.under_way("nvmlEventSetWait_v2"):
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


def _within(seconds: float, calls: Sequence[Callable[[], None]]) -> None:
    # Each in a thread of its own. One that has not come back by then stays behind and holds up nobody else.
    threads = [threading.Thread(target=call, daemon=True) for call in calls]
    for thread in threads:
        thread.start()
    end = time.monotonic() + seconds
    for thread in threads:
        thread.join(max(end - time.monotonic(), 0.0))


def _pointer(handle: Any) -> int | None:
    return ctypes.cast(handle, ctypes.c_void_p).value
