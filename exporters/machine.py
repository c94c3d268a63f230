"""This machine as a source: a thread for each GPU asks NVML, a scrape only reads what they found."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

import structlog

from exporters import dcgm, events, exposition, guard, health, info, kernel, mapping
from exporters.device import Device, Process, spoken
from exporters.discovery import Place
from exporters.events import Seen
from exporters.nvml import Nvml
from exporters.reading import GpuReading
from exporters.service import UnknownNodeError

log = structlog.get_logger()

_STALE_INTERVALS = 3
_RETRY_SECONDS = 5.0
_LOG_SECONDS = 0.5


@dataclass(frozen=True, slots=True)
class Options:
    """What is exposed beside the GPUs' own readings."""

    names: dcgm.Names = "legacy"
    processes: bool = False
    jobs: Path | None = None
    kernel_log: Path | None = Path("/dev/kmsg")


@dataclass(slots=True)
class _Look:
    readings: list[GpuReading] = field(default_factory=list)
    processes: list[Process] = field(default_factory=list)
    at: float | None = None


class MachineSource:
    """One node, each GPU read every `interval_seconds`. A GPU that hangs holds up nobody else, and its old readings
    vanish rather than look calm."""

    def __init__(
        self,
        nvml: Nvml,
        place: Place,
        interval_seconds: float,
        options: Options | None = None,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._nvml = nvml
        self._place = place
        self._interval = interval_seconds
        self._options = options or Options()
        self._monotonic = monotonic
        self._began = monotonic()
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._looks = {identity.gpu: _Look() for identity in nvml.identities}
        self._jobs: dcgm.Jobs = {}
        self._heard: set[int] = set()  # GPUs whose XIDs reach us
        self._xids: dict[tuple[int, int], Seen] = {}
        self._last_xid: dict[int, int] = {}
        self._twice = kernel.Twice()

    async def run(self) -> None:
        """Runs the threads until cancelled, then closes NVML unless it hangs."""
        loops: dict[str, Callable[[], None]] = {"nvml-xid": self._xid_loop}
        for device in self._nvml.devices:
            loops[f"nvml-read-{device.identity.gpu}"] = self._reader(device)
        if self._options.kernel_log is not None:
            loops["kernel-log"] = self._log_loop
        threads = [threading.Thread(target=loop, name=name, daemon=True) for name, loop in loops.items()]
        for thread in threads:
            thread.start()
        try:
            await asyncio.Event().wait()
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(1.0)
            if not any(thread.is_alive() for thread in threads):
                self._nvml.close()

    def places(self) -> Sequence[Place]:
        return [self._place]

    def page(self, node: str) -> str:
        if node != self._place.node:
            raise UnknownNodeError(node)
        collectors: dict[str, Callable[[], str]] = {"jobs": self._read_jobs} if self._options.jobs else {}
        collectors |= {
            "nvml": self._gpus,
            "events": self._events,
            "info": self._info,
            "age": self._ages,
            "calls": self._calls,
        }
        if self._options.processes:
            collectors["processes"] = self._processes
        return guard.collect(collectors)

    def about(self) -> str:
        return exposition.family("stethos_exporter_nodes", "gauge", "Nodes this exporter speaks for.", [("", 1.0)])

    def unready(self) -> str | None:
        for gpu, watch in self._nvml.watches.items():
            look, pending = self._looks.get(gpu), watch.pending()
            call = f"; {pending[0]} has not returned for {pending[1]:.0f} s" if pending else ""
            if look is None:  # it did not answer at the start: it is lost, unless it still hangs
                if pending:
                    return f"GPU {gpu} could not be opened{call}"
            elif look.at is None and self._monotonic() - self._began <= _STALE_INTERVALS * self._interval:
                return f"GPU {gpu} has not been read yet"
            elif not self._is_fresh(look):
                return f"GPU {gpu} was last read {self._age(look):.1f} s ago{call}"
        return None

    def record_xid(self, source: str, gpu: int, code: int, now: float) -> None:
        """Counts an XID once, whichever source tells it first; the gauge of the last one follows."""
        with self._lock:
            if not self._twice.is_new(source, gpu, code):
                return
            before = self._xids.get((gpu, code))
            self._xids[gpu, code] = Seen(1 + (before.count if before else 0), now)
            self._last_xid[gpu] = code
            self._heard.add(gpu)
        log.warning("XID", gpu=gpu, xid=code, source=source)

    def look(self, device: Device) -> None:
        """One reading of one GPU."""
        gpu = device.identity.gpu
        readings = device.read()
        processes = device.processes() if self._options.processes else []
        self._looks[gpu] = _Look(readings, processes, self._monotonic())

    def _reader(self, device: Device) -> Callable[[], None]:
        def loop() -> None:
            while not self._stop.is_set():
                began = self._monotonic()
                try:
                    self.look(device)
                except Exception as error:  # whatever it is, the next look may succeed, and the age tells meanwhile
                    log.error("reading failed", gpu=device.identity.gpu, error=repr(error))
                self._stop.wait(max(self._interval - (self._monotonic() - began), 0.05))

        return loop

    def _xid_loop(self) -> None:
        watched = self._nvml.watch_xids()
        self._heard.update(watched)
        if not watched:
            log.warning("XID events are not available from this driver")
            return
        while not self._stop.is_set():
            try:
                event = self._nvml.next_xid()
            except Exception as error:
                log.error("waiting for XID events failed", error=repr(error))
                self._stop.wait(_RETRY_SECONDS)
                continue
            if event is not None:
                self.record_xid("nvml", *event, time.time())

    def _log_loop(self) -> None:
        assert self._options.kernel_log is not None
        try:
            messages = kernel.KernelLog(self._options.kernel_log)
        except OSError as error:
            log.info("the kernel's log cannot be read; XIDs come from NVML alone", error=error.strerror)
            return
        self._heard.update(self._looks)
        try:
            while not self._stop.wait(_LOG_SECONDS):
                for line in messages.lines():
                    if (event := kernel.parse(line, self._nvml.identities)) is not None:
                        self.record_xid("kernel", *event, time.time())
        except OSError as error:
            log.error("the kernel's log can no longer be read", error=error.strerror)
        finally:
            messages.close()

    def _age(self, look: _Look) -> float:
        return self._monotonic() - (self._began if look.at is None else look.at)

    def _is_fresh(self, look: _Look) -> bool:
        return look.at is not None and self._age(look) <= _STALE_INTERVALS * self._interval

    def _readings(self) -> list[GpuReading]:
        """What was read in time, with the last XID; of a GPU that does not answer, that XID alone."""
        readings = []
        for identity in self._nvml.identities:
            look = self._looks[identity.gpu]
            whole, *instances = look.readings if self._is_fresh(look) else [GpuReading(identity)]
            xid = self._last_xid.get(identity.gpu, 0) if identity.gpu in self._heard else None
            readings += [replace(whole, xid_code=xid), *instances]
        return spoken(readings)

    def _read_jobs(self) -> str:
        self._jobs = {}  # a folder that is gone costs the GPUs their jobs, not their series
        self._jobs = mapping.read(self._options.jobs) if self._options.jobs else {}
        return ""

    def _gpus(self) -> str:
        return dcgm.expose(self._readings(), self._place.node, self._options.names, self._jobs)

    def _events(self) -> str:
        with self._lock:
            seen = dict(self._xids)
        heard = [each for each in self._nvml.identities if each.gpu in self._heard]
        return events.clocks(self._readings()) + events.xids(heard, seen)

    def _info(self) -> str:
        return info.expose(self._readings())

    def _ages(self) -> str:
        return guard.ages({gpu: self._age(look) for gpu, look in self._looks.items()})

    def _calls(self) -> str:
        watches = {str(gpu): watch for gpu, watch in self._nvml.watches.items()}
        return health.calls(watches | {"": self._nvml.events_watch})

    def _processes(self) -> str:
        uuids = {identity.gpu: identity.uuid for identity in self._nvml.identities}
        found = {gpu: look.processes for gpu, look in self._looks.items() if self._is_fresh(look)}
        return health.processes(found, uuids)
