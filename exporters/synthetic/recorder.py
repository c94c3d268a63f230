"""The fleet at full speed into a recording, with its truth beside it."""

from collections.abc import Generator, Sequence
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np

from exporters import recording, signals
from exporters.synthetic import sensors
from exporters.synthetic.arrays import Floats, Integers
from exporters.synthetic.chance import Faults, Jobs, Upkeep
from exporters.synthetic.faults import KINDS, Fault
from exporters.synthetic.fleet import Fleet

_ROWS_PER_GROUP = 65_536
_STEPS_PER_GROUP = 512
_LONGEST_STEP_SECONDS = 10.0
_WARM_UP_SECONDS = 600.0


class Recorder:
    """Writes `recording.parquet` and `truth.parquet` into `folder`."""

    def __init__(
        self,
        fleet: Fleet,
        folder: Path,
        start: datetime,
        hours: float,
        step: float,
        faults: int,
        upkeep: bool = True,
        kinds: Sequence[str] = tuple(KINDS),
        quiet_hours: float = 0.0,
    ) -> None:
        self.folder = folder
        self.steps = round(hours * 3600 / step)
        self.fleet = fleet
        self._start = start
        self._step = step
        rng = np.random.default_rng([fleet.seed, 1])
        self._jobs = Jobs(fleet, rng)
        self._parts = max(1, int(np.ceil(step / _LONGEST_STEP_SECONDS)))
        for _ in range(int(_WARM_UP_SECONDS / _LONGEST_STEP_SECONDS)):
            self._jobs.step(_LONGEST_STEP_SECONDS)
            fleet.step(_LONGEST_STEP_SECONDS)
        self._zero = fleet.seconds
        self._faults = Faults(fleet, faults, hours * 3600, rng, kinds, quiet_hours * 3600)
        self._upkeep = Upkeep(fleet, np.random.default_rng([fleet.seed, 3])) if upkeep else None
        self._labels = _Labels(fleet)
        self._names: dict[str, int] = {}
        self._drivers: dict[str, int] = {}

    def run(self) -> Generator[int, None, None]:
        """Records; yields the steps done since the last time. Nothing is left behind when it is broken off."""
        writer = recording.Writer(self.folder / "recording.parquet", signals.RECORDED, self._labels.more)
        try:
            per_group = min(max(1, _ROWS_PER_GROUP // self._labels.gpus), _STEPS_PER_GROUP)
            for first in range(0, self.steps, per_group):
                count = min(per_group, self.steps - first)
                self._group(writer, first, count)
                yield count
            recording.write_truth(self.folder / "truth.parquet", self._truth())
            writer.close()
        except BaseException:
            writer.discard()
            raise

    def _group(self, writer: recording.Writer, first: int, count: int) -> None:
        gpus = self._labels.gpus
        values = np.empty((len(signals.RECORDED), count, gpus), np.float32)
        job, driver = (np.empty((count, gpus), np.int64) for _ in range(2))
        for index in range(count):
            before = self.fleet.matrix()
            self._advance()
            values[:, index] = _signals(self.fleet.matrix(), before, self._step)
            job[index], driver[index] = self._job_of_gpu(), self._driver_of_gpu()
        micros = round(self._start.timestamp() * 1e6) + np.rint(
            (np.arange(first, first + count) + 1) * self._step * 1e6
        ).astype(np.int64)
        texts = self._labels.repeated(count) | {
            "job": (job.ravel(), list(self._names)),
            "driver": (driver.ravel(), list(self._drivers)),
        }
        writer.write(np.repeat(micros, gpus), texts, values.reshape(len(signals.RECORDED), -1))

    def _advance(self) -> None:
        self._jobs.step(self._step)
        self._faults.step()
        if self._upkeep:
            self._upkeep.step(self._step)
        for _ in range(self._parts):
            self.fleet.step(self._step / self._parts)

    def _job_of_gpu(self) -> Integers:
        codes = np.full(self._labels.gpus, -1)
        for load in self.fleet.loads.values():
            if load.state == "running" and load.job:
                rows = self.fleet.rows(load.node)[list(load.gpus)]
                codes[rows] = self._names.setdefault(load.job, len(self._names))
        return codes

    def _driver_of_gpu(self) -> Integers:
        nodes = self.fleet.nodes.values()
        codes = [self._drivers.setdefault(node.gpus[0].driver, len(self._drivers)) for node in nodes]
        return np.repeat(codes, [len(node.gpus) for node in nodes])

    def _truth(self) -> list[dict[str, object]]:
        # A rack's fault is told for each of its nodes, because the format knows nodes and GPUs.
        return [
            {
                "node": node,
                "gpu": None if fault.gpu is None else str(fault.gpu),
                "kind": fault.kind,
                "severity": fault.severity,
                "onset": fault.onset,
                "start": self._at(fault.start_seconds),
                "end": self._at(self.fleet.seconds if fault.end_seconds is None else fault.end_seconds),
            }
            for fault in self.fleet.history
            for node in self._nodes(fault)
        ]

    def _nodes(self, fault: Fault) -> list[str]:
        if fault.node is not None:
            return [fault.node]
        return [node.place.node for node in self.fleet.nodes.values() if node.place.rack == fault.rack]

    def _at(self, fleet_seconds: float) -> datetime:
        return self._start + timedelta(seconds=fleet_seconds - self._zero)


class _Labels:
    # The label columns of one step, as codes, repeated for every step of a row group.
    def __init__(self, fleet: Fleet) -> None:
        pairs = list(fleet.identities())
        self.gpus = len(pairs)
        self._columns: dict[str, Sequence[str]] = {
            "node": [node.place.node for node, _ in pairs],
            "gpu": [str(gpu.gpu) for _, gpu in pairs],
            "model": [gpu.model for _, gpu in pairs],
            "rack": [node.place.rack for node, _ in pairs],
        }
        self._columns["vbios"] = [gpu.vbios for _, gpu in pairs]
        islands = [gpu.island for _, gpu in pairs]
        if any(islands):
            self._columns["island"] = islands
        self.more = tuple(name for name in recording.MORE if name in self._columns or name == "driver")

    def repeated(self, steps: int) -> dict[str, tuple[Integers, Sequence[str]]]:
        result: dict[str, tuple[Integers, Sequence[str]]] = {}
        for name, column in self._columns.items():
            texts = list(dict.fromkeys(column))
            codes = np.array([texts.index(each) if each else -1 for each in column])
            result[name] = (np.tile(codes, steps), texts)
        return result


def _signals(now: Floats, before: Floats, seconds: float) -> Floats:
    """Readings → the recording's columns; violations become the share of the step."""
    row = sensors.ROW
    direct = [now[row[signal.field]] / signal.factor for signal in signals.DIRECT.values()]
    used = now[row["framebuffer_used_mebibytes"]]
    total = used + now[row["framebuffer_free_mebibytes"]] + now[row["framebuffer_reserved_mebibytes"]]
    shares = []
    for field in signals.VIOLATIONS.values():
        spent = (now[row[field]] - before[row[field]]) / 1e9 / seconds
        shares.append(np.where(spent < 0, np.nan, np.minimum(spent, 1.0)))  # restarted: nothing to compare with
    width = now[row["pcie_link_width"]] / now[row["pcie_link_width_max"]]
    errors = sum((now[row[field]] for field in signals.NVLINK_ERROR_FIELDS), np.zeros_like(width))
    return np.stack([*direct, used / total, *shares, width, errors])
