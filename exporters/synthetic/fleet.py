"""The fleet: nodes, their GPUs, loads and faults, and time. Seeded; no wall clock inside.

State is one array entry per GPU, in the order of the nodes. The same calls in the same order with the same seed give
the same readings, bit for bit.
"""

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from exporters.discovery import Place
from exporters.reading import GpuIdentity, GpuReading
from exporters.synthetic import faults as fault_book
from exporters.synthetic import physics, sensors
from exporters.synthetic.air import Air
from exporters.synthetic.arrays import Flags, Floats, Integers, joined, kept
from exporters.synthetic.faults import Fault, Onset
from exporters.synthetic.models import MODELS, GpuModel
from exporters.synthetic.workload import Workload

_NAMESPACE = uuid.UUID("5f0c3b7e-3d0c-5c1a-9b57-6a1c62d0a2f4")


class NotFoundError(LookupError):
    """What was named does not exist."""


class ConflictError(Exception):
    """What was asked for contradicts what is."""


@dataclass(frozen=True, slots=True)
class Node:
    """One machine: where it stands, and who its GPUs are."""

    place: Place
    rack_index: int
    model: GpuModel
    gpus: tuple[GpuIdentity, ...]


@dataclass(slots=True)
class Load:
    """Work on GPUs of one node. Loads of one `job` on several nodes are ranks of that job."""

    id: str
    node: str
    gpus: tuple[int, ...]
    kind: str
    utilization: float
    job: str | None
    slot: int
    state: Literal["running", "interrupted"] = "running"
    reason: str | None = None


@dataclass(slots=True)
class _Slots:
    """Which job slot each GPU sits in; 0 is idle."""

    slot: Integers = field(default_factory=lambda: np.zeros(0, np.int64))


class Fleet:
    """Nodes that work, warm up, and break. Every reading belongs to the last `step`."""

    def __init__(self, seed: int, gpus_per_rack: int = 32) -> None:
        self.seconds = 0.0
        self.nodes: dict[str, Node] = {}
        self.loads: dict[str, Load] = {}
        self.faults: dict[str, Fault] = {}
        self.history: list[Fault] = []
        self.seed = seed
        self._gpus_per_rack = gpus_per_rack
        self._rng = np.random.default_rng(seed)
        self._air = Air()
        self._workload = Workload()
        self._cards = physics.manufacture([], self._rng)
        self._state = physics.at_rest(self._cards, np.zeros(0))
        self._slots = _Slots()
        self._rows: dict[tuple[str, int | None], Integers] = {}
        self._racks = np.zeros(0, np.int64)
        self._down = np.zeros(0, np.bool_)
        self._readings = np.zeros((len(sensors.FIELDS), 0))
        self._numbers = {"load": 0, "fault": 0}

    # Nodes

    def add_node(self, name: str, gpus: int = 8, model: str = "H100") -> Node:
        """A node with idle GPUs of one model, in the first rack that has room. Raises `ConflictError`."""
        if name in self.nodes:
            raise ConflictError(f"node {name!r} exists already")
        if model not in MODELS:
            raise NotFoundError(f"there is no GPU model {model!r}; there are {', '.join(MODELS)}")
        rack = self._roomy_rack(gpus)
        made = MODELS[model]
        node = Node(
            Place(name, f"rack-{rack + 1}", f"switch-{rack // 2 + 1}"),
            rack,
            made,
            tuple(self._identity(name, gpu, made.name) for gpu in range(gpus)),
        )
        self.nodes[name] = node
        self._air.ensure(rack + 1, self._rng)
        cards = physics.manufacture([made] * gpus, self._rng)
        inlet = np.full(gpus, self._air.inlet_celsius(self.seconds)[rack])
        self._cards = joined(self._cards, cards)
        self._state = joined(self._state, physics.at_rest(cards, inlet))
        self._slots = joined(self._slots, _Slots(np.zeros(gpus, np.int64)))
        self._index()
        silent = np.full((len(sensors.FIELDS), gpus), np.nan)  # until the next step
        self._readings = np.hstack([self._readings, silent])
        return node

    def remove_node(self, name: str) -> None:
        """Takes a node away; its loads are interrupted, its faults end. Raises `NotFoundError`."""
        self.node(name)
        for load in self._running(name):
            self._interrupt(load, f"node {name} was removed")
        for fault in [fault for fault in self.faults.values() if fault.node == name]:
            self.clear_fault(fault.id)
        keep = np.ones(len(self._slots.slot), np.bool_)
        keep[self._rows[name, None]] = False
        self._cards, self._state, self._slots = (
            kept(self._cards, keep),
            kept(self._state, keep),
            kept(self._slots, keep),
        )
        del self.nodes[name]
        self._index()
        self._readings = self._readings[:, keep]

    def node(self, name: str) -> Node:
        """The node. Raises `NotFoundError`."""
        if name not in self.nodes:
            raise NotFoundError(f"there is no node {name!r}")
        return self.nodes[name]

    def is_down(self, name: str) -> bool:
        """Whether the node has crashed and not come back."""
        self.node(name)
        return any(
            fault.node == name and fault.kind == "node_crash" and fault.has_peaked(self.seconds)
            for fault in self.faults.values()
        )

    # Loads

    def add_load(self, node: str, gpus: Sequence[int], kind: str, utilization: float, job: str | None = None) -> Load:
        """Puts work on GPUs. Raises `NotFoundError`, or `ConflictError` when a GPU is busy or gone."""
        rows = [self._row(node, gpu) for gpu in gpus]
        if self.is_down(node):
            raise ConflictError(f"node {node!r} is down")
        for row, gpu in zip(rows, gpus, strict=True):
            if self._state.gone_seconds[row] > 0:
                raise ConflictError(f"GPU {gpu} of node {node!r} has fallen off the bus")
            if self._slots.slot[row]:
                raise ConflictError(f"GPU {gpu} of node {node!r} carries {self._carried(node, gpu).id} already")
        slot = next(
            (each.slot for each in self.loads.values() if job and each.job == job and each.state == "running"),
            None,
        )
        if slot is None:
            slot = self._workload.open(kind, utilization, self._rng)
        load = Load(self._number("load"), node, tuple(gpus), kind, utilization, job, slot)
        self.loads[load.id] = load
        self._slots.slot[rows] = slot
        return load

    def remove_load(self, load_id: str) -> None:
        """Ends a load, or forgets an interrupted one. Raises `NotFoundError`."""
        load = self.load(load_id)
        if load.state == "running":
            self._release(load)
        del self.loads[load_id]

    def load(self, load_id: str) -> Load:
        """The load. Raises `NotFoundError`."""
        if load_id not in self.loads:
            raise NotFoundError(f"there is no load {load_id!r}")
        return self.loads[load_id]

    # Faults

    def add_fault(
        self,
        kind: str,
        node: str,
        gpu: int | None,
        severity: float,
        onset: Onset = "step",
        ramp_seconds: float = 600.0,
    ) -> Fault:
        """Breaks something. Raises `NotFoundError`, or `ConflictError` for the same fault twice."""
        self.node(node) if gpu is None else self._row(node, gpu)
        for each in self.faults.values():
            if (each.kind, each.node, each.gpu) == (kind, node, gpu):
                raise ConflictError(f"{each.id} is the same fault on the same part")
        fault = Fault(self._number("fault"), kind, node, gpu, severity, onset, ramp_seconds, self.seconds)
        self.faults[fault.id] = fault
        self.history.append(fault)
        return fault

    def clear_fault(self, fault_id: str) -> Fault:
        """Mends it. Raises `NotFoundError`."""
        if fault_id not in self.faults:
            raise NotFoundError(f"there is no fault {fault_id!r} in force")
        fault = self.faults.pop(fault_id)
        fault.end_seconds = self.seconds
        return fault

    # Time

    def step(self, seconds: float) -> None:
        """Moves everything on by `seconds`."""
        self.seconds += seconds
        self._air.step(seconds, self._rng)
        self._workload.step(seconds, self._rng)
        impairment = fault_book.impairment(self.faults.values(), self._rows, len(self._slots.slot), self.seconds)
        self._lose(impairment.gone)
        ranks = np.bincount(self._slots.slot)[self._slots.slot].astype(np.float64)
        demand = self._workload.demand(self._slots.slot, ranks)
        inlet = self._air.inlet_celsius(self.seconds)[self._racks]
        moment = physics.advance(self._cards, self._state, demand, impairment, inlet, seconds, self._rng)
        self._readings = sensors.read(self._cards, self._state, demand, moment, self._down, self._rng)

    # Readings

    def readings(self, node: str) -> list[GpuReading]:
        """The node's GPUs as last seen; a GPU that reports nothing is left out. Raises `NotFoundError`."""
        gpus = self.node(node).gpus
        columns = self._readings[:, self._rows[node, None]].T.tolist()
        return [
            GpuReading(identity, *(None if value != value else value for value in column))
            for identity, column in zip(gpus, columns, strict=True)
            if any(value == value for value in column)
        ]

    def matrix(self) -> Floats:
        """All readings [len(sensors.FIELDS), gpus], GPUs in the order of `identities`; NaN is silence."""
        return self._readings

    def rows(self, node: str) -> Integers:
        """Where the node's GPUs are in the arrays. Raises `NotFoundError`."""
        self.node(node)
        return self._rows[node, None]

    def free(self, node: str) -> list[int]:
        """The node's GPUs that could take a load now."""
        if self.is_down(node):
            return []
        rows = self.rows(node)
        idle = (self._slots.slot[rows] == 0) & (self._state.gone_seconds[rows] == 0)
        return [int(gpu) for gpu in np.flatnonzero(idle)]

    def identities(self) -> Iterator[tuple[Node, GpuIdentity]]:
        """Every GPU with its node, in the order of the arrays."""
        return ((node, gpu) for node in self.nodes.values() for gpu in node.gpus)

    # Inside

    def _identity(self, node: str, gpu: int, model: str) -> GpuIdentity:
        return GpuIdentity(
            gpu=gpu,
            uuid=f"GPU-{uuid.uuid5(_NAMESPACE, f'{self.seed}/{node}/{gpu}')}",
            pci_bus_id=f"00000000:{0x19 + 0x11 * gpu & 0xFF:02X}:00.0",
            minor=gpu,
            model=model,
        )

    def _roomy_rack(self, gpus: int) -> int:
        taken: dict[int, int] = {}
        for node in self.nodes.values():
            taken[node.rack_index] = taken.get(node.rack_index, 0) + len(node.gpus)
        rack = 0
        while taken.get(rack, 0) and taken[rack] + gpus > self._gpus_per_rack:
            rack += 1
        return rack

    def _index(self) -> None:
        self._rows, first = {}, 0
        for name, node in self.nodes.items():
            rows = np.arange(first, first + len(node.gpus))
            self._rows[name, None] = rows
            self._rows.update({(name, gpu): rows[gpu : gpu + 1] for gpu in range(len(rows))})
            first += len(rows)
        per_gpu = [node.rack_index for node in self.nodes.values() for _ in node.gpus]
        self._racks = np.array(per_gpu, np.int64)
        self._down = np.zeros(first, np.bool_)

    def _row(self, node: str, gpu: int) -> int:
        count = len(self.node(node).gpus)
        if not 0 <= gpu < count:
            raise NotFoundError(f"node {node!r} has no GPU {gpu}; it has 0 to {count - 1}")
        return int(self._rows[node, gpu][0])

    def _number(self, what: str) -> str:
        self._numbers[what] += 1
        return f"{what}-{self._numbers[what]}"

    def _running(self, node: str) -> list[Load]:
        return [load for load in self.loads.values() if load.node == node and load.state == "running"]

    def _carried(self, node: str, gpu: int) -> Load:
        return next(load for load in self._running(node) if gpu in load.gpus)

    def _release(self, load: Load) -> None:
        self._slots.slot[self._rows[load.node, None][list(load.gpus)]] = 0
        if not (self._slots.slot == load.slot).any():
            self._workload.close(load.slot)

    def _interrupt(self, load: Load, reason: str) -> None:
        self._release(load)
        load.state, load.reason = "interrupted", reason

    def _lose(self, gone: Flags) -> None:
        # A GPU that comes back has been restarted: its counters begin again at zero.
        back = (self._state.gone_seconds > 0) & ~gone
        for counter in (
            self._state.energy_millijoules,
            self._state.power_violation_nanoseconds,
            self._state.thermal_violation_nanoseconds,
            self._state.ecc_corrected,
            self._state.pcie_replays,
        ):
            counter[back] = 0.0
        self._down[:] = False
        for name in self.nodes:
            rows = self._rows[name, None]
            if not gone[rows].any():
                continue
            down = self.is_down(name)
            self._down[rows] = down
            for load in self._running(name):
                lost = [gpu for gpu in load.gpus if gone[rows[gpu]]]
                if down:
                    self._interrupt(load, f"node {name} is down")
                elif lost:
                    self._interrupt(load, f"XID 79: GPU {lost[0]} of node {name} has fallen off the bus")


def build(nodes: int, gpus_per_node: int, gpus_per_rack: int, models: Sequence[str], seed: int) -> Fleet:
    """Nodes `node-01`…, the models taking turns."""
    made = Fleet(seed, gpus_per_rack)
    digits = max(2, len(str(nodes)))
    for index in range(nodes):
        made.add_node(f"node-{index + 1:0{digits}d}", gpus_per_node, models[index % len(models)])
    return made
