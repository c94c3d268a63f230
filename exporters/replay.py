"""A recording as a live source: what was measured then is measured again, at real or chosen speed."""

import asyncio
import time
import uuid
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import structlog

from exporters import dcgm, exposition, guard, info, signals
from exporters.discovery import Place
from exporters.reading import GpuIdentity, GpuReading
from exporters.recording import Recording
from exporters.service import UnknownNodeError

log = structlog.get_logger()

_NAMESPACE = uuid.UUID("0f2b6a0e-63a5-5f0e-8a3c-6c1f1f4f7b11")
_STALE_STEPS = 2.5
# A recording has shares, of memory and of lanes, not sizes; the shares are what comes back.
_NOMINAL_MEBIBYTES = 81_920.0
_NOMINAL_LANES = 16.0
_TICK_SECONDS = 0.2


class ReplaySource:
    """Plays a recording; position 0 is its first row. Ends, or begins again."""

    def __init__(
        self,
        recording: Recording,
        speed: float = 1.0,
        loop: bool = True,
        names: dcgm.Names = "legacy",
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.recording = recording
        self.speed = speed
        self.loop = loop
        self.names = names
        self.ended = False
        self._monotonic = monotonic
        self._began = monotonic()
        self._laps = 0
        self._row = 0
        self._latest = np.full(len(recording.sources), -1)
        self._position = 0.0
        self._step = _step_seconds(recording)
        self._length = float(recording.microseconds[-1] - recording.microseconds[0]) / 1e6 + self._step
        self._violations = np.zeros((len(signals.VIOLATIONS), len(recording.sources)))
        self._nodes: dict[str, list[int]] = {}
        for index, source in enumerate(recording.sources):
            self._nodes.setdefault(source.node, []).append(index)
        self._identities = [_identity(recording, index) for index in range(len(recording.sources))]
        self._foreign = [(row, name) for row, name in enumerate(recording.signals) if name not in signals.KNOWN]
        self.advance()

    def advance(self) -> None:
        """Moves to where the clock says."""
        played = (self._monotonic() - self._began) * self.speed
        lap, position = divmod(played, self._length)
        if lap > self._laps and not self.loop:
            if not self.ended:
                log.info("the recording is over; its series are gone", seconds=round(self._length, 3))
            self.ended = True
            self._latest[:] = -1
            return
        if lap > self._laps:
            self._laps, self._row = int(lap), 0
            self._latest[:] = -1
        self._position = position
        micros = self.recording.microseconds
        until = int(np.searchsorted(micros, micros[0] + int(position * 1e6), side="right"))
        rows = np.arange(self._row, until)
        self._latest[self.recording.series[rows]] = rows  # of several rows of a source the last one stays
        self._add_violations(rows)
        self._row = until

    async def run(self) -> None:
        """Plays until cancelled."""
        while True:
            await asyncio.sleep(_TICK_SECONDS)
            self.advance()

    def places(self) -> Sequence[Place]:
        sources = self.recording.sources
        return [Place(node, sources[indices[0]].rack) for node, indices in self._nodes.items()]

    def page(self, node: str) -> str:
        if node not in self._nodes:
            raise UnknownNodeError(node)
        live = self._live(node)
        collectors: dict[str, Callable[[], str]] = {
            "dcgm": lambda: dcgm.expose([self._reading(index) for index in live], node, self.names),
            "foreign": lambda: self._foreign_signals(live),
            "jobs": lambda: self._jobs(live),
            "info": lambda: info.expose([self._reading(index) for index in live]),
            "age": lambda: self._ages(live),
        }
        return guard.collect(collectors)

    def about(self) -> str:
        return exposition.family(
            "stethos_exporter_replay_position_seconds",
            "gauge",
            "How far into the recording we are.",
            [("", round(self._position, 3))],
        ) + exposition.family(
            "stethos_exporter_replay_length_seconds",
            "gauge",
            "How long the recording is.",
            [("", self._length)],
        )

    def unready(self) -> str | None:
        return None

    def _live(self, node: str) -> list[int]:
        # A source that fell silent in the recording falls silent here.
        oldest = self._position - _STALE_STEPS * self._step
        return [
            index
            for index in self._nodes[node]
            if self._latest[index] >= 0
            and self._at(index) >= oldest
            and not np.isnan(self.recording.values[:, self._latest[index]]).all()
        ]

    def _at(self, index: int) -> float:
        micros = self.recording.microseconds
        return float(micros[self._latest[index]] - micros[0]) / 1e6

    def _value(self, name: str, index: int) -> float | None:
        if name not in self.recording.signals:
            return None
        value = self.recording.values[self.recording.signals.index(name), self._latest[index]]
        # float32 holds seven digits; more would be noise of the conversion.
        return None if np.isnan(value) else float(f"{value:.7g}")

    def _reading(self, index: int) -> GpuReading:
        fields: dict[str, float] = {}
        for name, signal in signals.DIRECT.items():
            if (value := self._value(name, index)) is not None:
                fields[signal.field] = float(f"{value * signal.factor:.9g}")
        if (share := self._value(signals.MEMORY, index)) is not None:
            used = round(share * _NOMINAL_MEBIBYTES)
            fields["framebuffer_used_mebibytes"] = float(used)
            fields["framebuffer_free_mebibytes"] = _NOMINAL_MEBIBYTES - used
        if (width := self._value(signals.PCIE_WIDTH, index)) is not None:
            fields["pcie_link_width"] = float(f"{width * _NOMINAL_LANES:.7g}")
            fields["pcie_link_width_max"] = _NOMINAL_LANES
        if (errors := self._value(signals.NVLINK_ERRORS, index)) is not None:
            # recorded as their sum, which is all that anybody reads
            fields |= dict.fromkeys(signals.NVLINK_ERROR_FIELDS, 0.0) | {signals.NVLINK_ERROR_FIELDS[0]: errors}
        for row, (name, field) in enumerate(signals.VIOLATIONS.items()):
            if self._value(name, index) is not None:
                fields[field] = float(np.rint(self._violations[row, index]))
        return GpuReading(self._identity(index), **fields)

    def _identity(self, index: int) -> GpuIdentity:
        release = self.recording.release
        code = -1 if release is None else int(release[self._latest[index]])
        if code < 0:
            return self._identities[index]
        driver, vbios = self.recording.releases[code]
        return replace(self._identities[index], driver=driver, vbios=vbios)

    def _add_violations(self, rows: np.ndarray[tuple[int], np.dtype[np.int64]]) -> None:
        for row, name in enumerate(signals.VIOLATIONS):
            if name in self.recording.signals:
                shares = np.nan_to_num(self.recording.values[self.recording.signals.index(name), rows])
                spent = shares.astype(np.float64) * self._step * 1e9
                np.add.at(self._violations[row], self.recording.series[rows], spent)

    def _foreign_signals(self, live: Sequence[int]) -> str:
        samples = []
        for index in live:
            source = self.recording.sources[index]
            column = self.recording.values[:, self._latest[index]]
            for row, name in self._foreign:
                if not np.isnan(column[row]):
                    tags = {"node": source.node, "gpu": source.gpu, "model": source.model, "signal": name}
                    samples.append((exposition.labels(tags), float(f"{column[row]:.7g}")))
        return exposition.family("stethos_signal", "gauge", "A signal of the recording that is not a GPU's.", samples)

    def _jobs(self, live: Sequence[int]) -> str:
        samples = []
        for index in live:
            job = self.recording.job[self._latest[index]]
            if job >= 0:
                source = self.recording.sources[index]
                name, role = self.recording.jobs[job]
                tags = {"job_id": name, "node": source.node, "gpu": source.gpu} | ({"role": role} if role else {})
                samples.append((exposition.labels(tags), 1.0))
        return exposition.family("stethos_job_gpu_info", "gauge", "Which job runs on the GPU.", samples)

    def _ages(self, live: Sequence[int]) -> str:
        now = (self._monotonic() - self._began) * self.speed - self._laps * self._length
        return guard.ages(
            {int(self.recording.sources[index].gpu): max(now - self._at(index), 0.0) / self.speed for index in live}
        )


def _step_seconds(recording: Recording) -> float:
    # The usual distance between two rows of a source; a recording of one instant counts as one second.
    order = np.argsort(recording.series, kind="stable")
    gaps = np.diff(recording.microseconds[order])[np.diff(recording.series[order]) == 0]
    return float(np.median(gaps)) / 1e6 if len(gaps) else 1.0


def _identity(recording: Recording, index: int) -> GpuIdentity:
    source = recording.sources[index]
    number = int(source.gpu)
    return GpuIdentity(
        gpu=number,
        uuid=f"GPU-{uuid.uuid5(_NAMESPACE, f'{source.node}/{source.gpu}')}",
        pci_bus_id=f"00000000:{number & 0xFF:02X}:00.0",
        minor=number,
        model=source.model,
        island=source.island,
    )
