"""This machine as a source: threads ask NVML, a scrape only reads what they found."""

import asyncio
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import replace

import structlog

from exporters import dcgm, exposition, guard
from exporters.discovery import Place
from exporters.nvml import Nvml
from exporters.reading import GpuReading
from exporters.service import UnknownNodeError

log = structlog.get_logger()

_STALE_INTERVALS = 5
_RETRY_SECONDS = 5.0


class MachineSource:
    """One node, read every `interval_seconds`. Old readings vanish rather than look calm."""

    def __init__(
        self,
        nvml: Nvml,
        place: Place,
        interval_seconds: float,
        names: dcgm.Names = "legacy",
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._nvml = nvml
        self._place = place
        self._interval = interval_seconds
        self._names = names
        self._monotonic = monotonic
        self._stop = threading.Event()
        self._lock = threading.Lock()
        self._readings: list[GpuReading] = []
        self._read_at: float | None = None
        self._xids: dict[tuple[int, int], tuple[int, float]] = {}  # (GPU, code) → (count, last seen)
        self._last_xid: dict[int, int] = {}

    async def run(self) -> None:
        """Runs the threads until cancelled, then closes NVML unless it hangs."""
        threads = [
            threading.Thread(target=loop, name=name, daemon=True)
            for name, loop in (("nvml-read", self._read_loop), ("nvml-xid", self._xid_loop))
        ]
        for thread in threads:
            thread.start()
        try:
            await asyncio.Event().wait()
        finally:
            self._stop.set()
            for thread in threads:
                thread.join(2.0)
            if not any(thread.is_alive() for thread in threads):
                self._nvml.close()

    def places(self) -> Sequence[Place]:
        return [self._place]

    def page(self, node: str) -> str:
        if node != self._place.node:
            raise UnknownNodeError(node)
        return guard.collect({"nvml": self._gpus, "xid": self._xid_counters, "age": self._ages})

    def about(self) -> str:
        return exposition.family("stethos_exporter_nodes", "gauge", "Nodes this exporter speaks for.", [("", 1.0)])

    def unready(self) -> str | None:
        age = self._age()
        if age is None:
            return "NVML has not been read yet"
        return f"NVML was last read {age:.0f} s ago" if age > _STALE_INTERVALS * self._interval else None

    def record_xid(self, gpu: int, code: int, now: float) -> None:
        """Counts an XID; the gauge of the last one follows with the next reading."""
        with self._lock:
            count, _ = self._xids.get((gpu, code), (0, 0.0))
            self._xids[gpu, code] = (count + 1, now)
            self._last_xid[gpu] = code

    def look(self) -> None:
        """One reading of all GPUs."""
        with self._lock:
            last = dict(self._last_xid)
        readings = self._nvml.read(last)
        with self._lock:
            self._readings = [kept for each in readings if (kept := _spoken(each)) is not None]
            self._read_at = self._monotonic()

    def _read_loop(self) -> None:
        while not self._stop.is_set():
            began = self._monotonic()
            try:
                self.look()
            except Exception as error:  # whatever it is, the next look may succeed, and the age tells meanwhile
                log.error("reading failed", error=repr(error))
            self._stop.wait(max(self._interval - (self._monotonic() - began), 0.05))

    def _xid_loop(self) -> None:
        watched = self._nvml.watch_xids()
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
                gpu, code = event
                log.warning("XID", gpu=gpu, xid=code)
                self.record_xid(gpu, code, time.time())

    def _age(self) -> float | None:
        return None if self._read_at is None else self._monotonic() - self._read_at

    def _fresh(self) -> list[GpuReading]:
        age = self._age()
        with self._lock:
            return [] if age is None or age > _STALE_INTERVALS * self._interval else list(self._readings)

    def _gpus(self) -> str:
        return dcgm.expose(self._fresh(), self._place.node, self._names)

    def _ages(self) -> str:
        age = self._age()
        return "" if age is None else guard.ages({each.identity.gpu: age for each in self._readings})

    def _xid_counters(self) -> str:
        uuids = {identity.gpu: identity.uuid for identity in self._nvml.identities}
        with self._lock:
            seen = [
                (exposition.labels({"gpu": str(gpu), "UUID": uuids[gpu], "xid": str(code)}), count, last)
                for (gpu, code), (count, last) in sorted(self._xids.items())
            ]
        return exposition.family(
            "stethos_gpu_xid_errors_total",
            "counter",
            "XID errors since the exporter started, by code.",
            [(tags, float(count)) for tags, count, _ in seen],
        ) + exposition.family(
            "stethos_gpu_xid_last_seen_timestamp_seconds",
            "gauge",
            "When the XID was last seen.",
            [(tags, round(last, 3)) for tags, _, last in seen],
        )


def _spoken(reading: GpuReading) -> GpuReading | None:
    # A GPU that answers nothing is absent, but the XID it left with is worth showing.
    silent = replace(GpuReading(reading.identity), xid_code=reading.xid_code)
    if reading != silent:
        return reading
    return silent if reading.xid_code else None
