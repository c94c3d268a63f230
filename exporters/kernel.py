"""The kernel's log as a second source of XIDs: NVML's events miss what came before somebody listened."""

import errno
import os
import re
import time
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path

from exporters.reading import GpuIdentity

# On a GPU that is split, its instances stand after the bus: (PCI:0000:4c:00 GPU-I:05). Old drivers leave out "PCI:".
_XID = re.compile(rb"NVRM: Xid \((PCI:)?(?P<bus>[0-9a-fA-F:.]+)( [^)]*)?\): (?P<code>[0-9]{1,9})\b")
_CHUNK = 8192


def parse(line: bytes, identities: Sequence[GpuIdentity]) -> tuple[int, int] | None:
    """(GPU, XID) of a line of the log; None when it is about something else."""
    found = _XID.search(line)
    if found is None:
        return None
    code, bus = int(found["code"]), _slot(found["bus"].decode())
    gpus = [identity.gpu for identity in identities if _slot(identity.pci_bus_id) == bus]
    return (gpus[0], code) if gpus else None


def _slot(bus_id: str) -> tuple[int, ...]:
    # The kernel writes 0000:4c:00, NVML 00000000:4C:00.0.
    try:
        return tuple(int(part, 16) for part in bus_id.split(".")[0].split(":"))
    except ValueError:
        return ()


class KernelLog:
    """The log from now on. Raises `OSError` when this user may not read it."""

    def __init__(self, path: Path = Path("/dev/kmsg")) -> None:
        self._file = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
        os.lseek(self._file, 0, os.SEEK_END)
        self._rest = b""

    def lines(self) -> Iterator[bytes]:
        """What has come since the last call."""
        for chunk in self._chunks():
            *whole, self._rest = (self._rest + chunk).split(b"\n")
            yield from whole

    def close(self) -> None:
        """Closes it."""
        os.close(self._file)

    def _chunks(self) -> Iterable[bytes]:
        while True:
            try:
                chunk = os.read(self._file, _CHUNK)
            except BlockingIOError:
                return
            except OSError as error:
                if error.errno == errno.EPIPE:  # the ring has overtaken us: some lines are lost, the rest is there
                    continue
                raise
            if not chunk:
                return
            yield chunk


class Twice:
    """Two sources tell of the same event: what one has told, the other does not tell again within `seconds`."""

    def __init__(self, seconds: float = 10.0) -> None:
        self._seconds = seconds
        self._open: dict[tuple[int, int], list[tuple[str, float]]] = {}

    def is_new(self, source: str, gpu: int, code: int, now: float | None = None) -> bool:
        """Whether the event has not been told by the other source."""
        now = time.monotonic() if now is None else now
        waiting = [each for each in self._open.get((gpu, code), []) if now - each[1] <= self._seconds]
        other = next((each for each in waiting if each[0] != source), None)
        if other is not None:
            waiting.remove(other)
        else:
            waiting.append((source, now))
        self._open[gpu, code] = waiting
        return other is None
