"""The fleet: nodes, their GPUs, loads and faults, and time. Seeded; no wall clock inside.

State is one array entry per GPU, in the order of the nodes. The same calls in the same order with the same seed give
the same readings, bit for bit.
"""

from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal

import numpy as np

from exporters import xid
from exporters.events import Seen
from exporters.reading import GpuIdentity, GpuReading
from exporters.synthetic import physics, power, sensors, wear
from exporters.synthetic.air import Air
from exporters.synthetic.arrays import Flags, Floats, Integers, joined, kept
from exporters.synthetic.faults import MUTE_SEVERITY, Fault, Onset
from exporters.synthetic.impairment import impairment
from exporters.synthetic.layout import DRIVERS, Layout, new_node
from exporters.synthetic.parts import ConflictError, Load, Node, NotFoundError, Pause, Slots
from exporters.synthetic.workload import Workload

_MENDED_BY_RESET = ("off_the_bus", "ecc_uncorrectable", "row_remap", "nvlink_flap")
_DEADLY = (94, 95)  # XIDs that end the process that met them


class Fleet:
    """Nodes that work, warm up, and break. Every reading belongs to the last `step`."""

    def __init__(self, seed: int, gpus_per_rack: int = 32) -> None:
        self.seconds = 0.0
        self.nodes: dict[str, Node] = {}
        self.loads: dict[str, Load] = {}
        self.faults: dict[str, Fault] = {}
        self.history: list[Fault] = []
        self.xids: dict[str, dict[tuple[int, int], Seen]] = {}  # node → (GPU, code) → how often and when
        self.seed = seed
        self._gpus_per_rack = gpus_per_rack
        self._rng = np.random.default_rng(seed)
        self._air = Air()
        self._workload = Workload()
        self._cards = physics.manufacture([], self._rng)
        self._state = physics.at_rest(self._cards, np.zeros(0))
        self._slots = Slots()
        self._layout = Layout(self.nodes)
        self.pauses: dict[str, Pause] = {}
        self._stuck_since: dict[str, float] = {}
        self._readings = np.zeros((len(sensors.FIELDS), 0))
        self._numbers = {"load": 0, "fault": 0}

    # Nodes

    def add_node(self, name: str, gpus: int = 8, model: str = "H100") -> Node:
        """A node with idle GPUs of one model, in the first rack that has room. Raises `ConflictError`."""
        node = new_node(self.nodes, name, gpus, model, self.seed, self._gpus_per_rack)
        self.nodes[name] = node
        self._air.ensure(node.rack_index + 1, self._rng)
        cards = physics.manufacture([node.model] * gpus, self._rng)
        inlet = np.full(gpus, self._air.inlet_celsius(self.seconds)[node.rack_index])
        self._cards = joined(self._cards, cards)
        self._state = joined(self._state, physics.at_rest(cards, inlet))
        self._slots = joined(self._slots, Slots(np.zeros(gpus, np.int64)))
        self._layout = Layout(self.nodes)
        silent = np.full((len(sensors.FIELDS), gpus), np.nan)  # until the next step
        self._readings = np.hstack([self._readings, silent])
        return node

    def remove_node(self, name: str) -> None:
        """Takes a node away; its loads are interrupted, its faults end. Raises `NotFoundError`."""
        self.node(name)
        for load in self._running(name):
            self._interrupt(load, f"node {name} was removed")
        rack = self.nodes[name].place.rack
        alone = not any(each.place.rack == rack for other, each in self.nodes.items() if other != name)
        for fault in list(self.faults.values()):
            if fault.node == name or (alone and fault.rack == rack):
                self.clear_fault(fault.id)
        keep = np.ones(len(self._slots.slot), np.bool_)
        keep[self._layout.rows(name)] = False
        self._cards, self._state = kept(self._cards, keep), kept(self._state, keep)
        self._slots = kept(self._slots, keep)
        del self.nodes[name]
        for kept_by_node in (self.xids, self.pauses, self._stuck_since):
            kept_by_node.pop(name, None)
        self._layout = Layout(self.nodes)
        self._readings = self._readings[:, keep]

    def node(self, name: str) -> Node:
        """The node. Raises `NotFoundError`."""
        if name not in self.nodes:
            raise NotFoundError(f"there is no node {name!r}")
        return self.nodes[name]

    def is_down(self, name: str) -> bool:
        """Whether the node has crashed and not come back, or boots."""
        self.node(name)
        pause = self.pauses.get(name)
        return (pause is not None and pause.kind == "reboot") or any(
            fault.node == name and fault.kind == "node_crash" and fault.has_peaked(self.seconds)
            for fault in self.faults.values()
        )

    def hears(self, name: str) -> bool:
        """Whether somebody who asks the node's exporter gets an answer at all."""
        self.node(name)
        pause = self.pauses.get(name)
        return (pause is None or pause.kind != "scrape_gap") and not self._hangs(name, MUTE_SEVERITY)

    def age_seconds(self, name: str) -> float:
        """How old the node's readings are; a hanging exporter keeps the last ones it had."""
        return self.seconds - self._stuck_since.get(name, self.seconds)

    def pause(self, name: str, kind: Literal["scrape_gap", "driver_restart", "reboot"], seconds: float) -> None:
        """Upkeep of a healthy node. Its loads end, unless only a scrape is missed. Raises `NotFoundError`."""
        self.node(name)
        if kind != "scrape_gap":
            for load in self._running(name):
                self._interrupt(load, f"node {name}: {kind.replace('_', ' ')}")
            wear.repaired(self._state, self._layout.rows(name))
        self.pauses[name] = Pause(kind, self.seconds + seconds)

    def update_driver(self, name: str) -> None:
        """Installs the next driver on a node. Raises `NotFoundError`."""
        node = self.node(name)
        following = DRIVERS[(DRIVERS.index(node.gpus[0].driver) + 1) % len(DRIVERS)]
        self.nodes[name] = replace(node, gpus=tuple(replace(gpu, driver=following) for gpu in node.gpus))

    def reset(self, name: str) -> list[Fault]:
        """Mends a node: its own faults, upkeep, power limits. Its loads go on. Raises `NotFoundError`."""
        rows = self.rows(name)
        mended = [self.clear_fault(fault.id) for fault in list(self.faults.values()) if fault.node == name]
        self.pauses.pop(name, None)
        wear.repaired(self._state, rows)
        power.forget(self._cards, self._state, rows)
        return mended

    def limit_power(self, node: str, gpu: int, watts: float) -> None:
        """Sets a GPU's power limit. Raises `NotFoundError`, or `ConflictError` for one that it does not take."""
        power.allow(self._cards, self._state, self._layout.row(node, gpu), watts)

    def power_limits(self, node: str) -> list[power.Limit]:
        """The limits of the node's GPUs. Raises `NotFoundError`."""
        return power.limits(self._cards, self._state, self.rows(node))

    # Loads

    def add_load(
        self,
        node: str,
        gpus: Sequence[int],
        kind: str,
        utilization: float,
        job: str | None = None,
        intensity: float = 1.0,
    ) -> Load:
        """Puts work on GPUs. Raises `NotFoundError`, or `ConflictError` when a GPU is busy or gone."""
        rows = [self._layout.row(node, gpu) for gpu in gpus]
        if self.is_down(node):
            raise ConflictError(f"node {node!r} is down")
        if node in self.pauses and self.pauses[node].kind == "driver_restart":
            raise ConflictError(f"the driver of node {node!r} restarts")
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
            slot = self._workload.open(kind, utilization, intensity, self._rng)
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

    def application_error(self, node: str, gpu: int, code: int) -> None:
        """An XID that a program brought on itself; the GPU is as good as before. Raises `NotFoundError`."""
        row = self._layout.row(node, gpu)
        self._state.xid[row] = code
        self._record([(row, code)])

    # Faults

    def add_fault(
        self,
        kind: str,
        node: str | None,
        gpu: int | None,
        severity: float,
        onset: Onset = "step",
        ramp_seconds: float = 600.0,
        rack: str | None = None,
        recovery_seconds: float | None = None,
    ) -> Fault:
        """Breaks something, for `recovery_seconds` or until it is mended.

        Raises `NotFoundError`, or `ConflictError` when it cannot befall that part (again).
        """
        fault = Fault("", kind, node, gpu, rack, severity, onset, ramp_seconds, self.seconds, recovery_seconds)
        rows = self._layout.befallen(fault)
        for each in self.faults.values():
            if (each.kind, each.node, each.gpu, each.rack) == (kind, node, gpu, rack):
                raise ConflictError(f"{each.id} is the same fault on the same part")
        if node is not None and self.is_down(node):
            raise ConflictError(f"node {node!r} is down")
        if kind == "nvlink_flap" and not self._cards.nvlink_megabytes_per_second[rows].all():
            raise ConflictError(f"GPU {gpu} of node {node!r} has no NVLink")
        fault.id = self._number("fault")
        self.faults[fault.id] = fault
        self.history.append(fault)
        return fault

    def clear_fault(self, fault_id: str) -> Fault:
        """Mends it. Raises `NotFoundError`."""
        if fault_id not in self.faults:
            raise NotFoundError(f"there is no fault {fault_id!r} in force")
        fault = self.faults.pop(fault_id)
        fault.end_seconds = self.seconds
        if fault.kind in _MENDED_BY_RESET:
            wear.repaired(self._state, self._layout.befallen(fault))
        return fault

    # Time

    def step(self, seconds: float) -> None:
        """Moves everything on by `seconds`."""
        self.seconds += seconds
        self._air.step(seconds, self._rng)
        self._workload.step(seconds, self._rng)
        now = impairment(self.faults.values(), self._layout.befallen, len(self._slots.slot), self.seconds)
        self.pauses = {name: pause for name, pause in self.pauses.items() if pause.end_seconds > self.seconds}
        for name, pause in self.pauses.items():
            now.gone[self._layout.rows(name)] |= pause.kind != "scrape_gap"
        self._lose(now.gone)
        ranks = np.bincount(self._slots.slot)[self._slots.slot].astype(np.float64)
        demand = self._workload.demand(self._slots.slot, ranks)
        inlet = self._air.inlet_celsius(self.seconds)[self._layout.racks]
        moment = physics.advance(self._cards, self._state, demand, now, inlet, self._layout.nodes, seconds)
        full = wear.leak(self._cards, self._state, now, demand, seconds)
        incidents = wear.advance(self._state, now, self._cards.nvlink_megabytes_per_second, seconds, self._rng)
        before = self._readings
        self._readings = sensors.read(self._cards, self._state, demand, moment, self._rng)
        self._record(incidents)
        self._run_out(full)
        self._silence(before, seconds)
        for fault in [each for each in self.faults.values() if each.has_recovered(self.seconds)]:
            self.clear_fault(fault.id)

    # Readings

    def readings(self, node: str) -> list[GpuReading]:
        """The node's GPUs as last seen; a GPU that reports nothing is left out. Raises `NotFoundError`."""
        gpus = self.node(node).gpus
        columns = self._readings[:, self._layout.rows(node)].T.tolist()
        return [
            GpuReading(identity, *(None if value != value else value for value in column))
            for identity, column in zip(gpus, columns, strict=True)
            if any(value == value for value in column)
        ]

    def heard(self, node: str) -> list[int]:
        """The numbers of the GPUs that `readings` has. Raises `NotFoundError`."""
        gpus, speaking = self.node(node).gpus, ~np.isnan(self._readings[:, self._layout.rows(node)]).all(axis=0)
        return [gpus[place].gpu for place in np.flatnonzero(speaking)]

    def matrix(self) -> Floats:
        """All readings [len(sensors.FIELDS), gpus], GPUs in the order of `identities`; NaN is silence."""
        return self._readings

    def rows(self, node: str) -> Integers:
        """Where the node's GPUs are in the arrays. Raises `NotFoundError`."""
        self.node(node)
        return self._layout.rows(node)

    def free(self, node: str) -> list[int]:
        """The node's GPUs that could take a load now."""
        if self.is_down(node):
            return []
        rows = self.rows(node)
        idle = (self._slots.slot[rows] == 0) & (self._state.gone_seconds[rows] == 0)
        return [int(gpu) for gpu in np.flatnonzero(idle)]

    def busy(self) -> set[tuple[str, int]]:
        """Every (node, GPU) with a load that does something."""
        loads = [load for load in self.loads.values() if load.state == "running" and load.utilization > 0]
        return {(load.node, gpu) for load in loads if load.kind != "sleep" for gpu in load.gpus}

    def identities(self) -> Iterator[tuple[Node, GpuIdentity]]:
        """Every GPU with its node, in the order of the arrays."""
        return ((node, gpu) for node in self.nodes.values() for gpu in node.gpus)

    # Inside

    def _number(self, what: str) -> str:
        self._numbers[what] += 1
        return f"{what}-{self._numbers[what]}"

    def _running(self, node: str) -> list[Load]:
        return [load for load in self.loads.values() if load.node == node and load.state == "running"]

    def _carried(self, node: str, gpu: int) -> Load:
        return next(load for load in self._running(node) if gpu in load.gpus)

    def _release(self, load: Load) -> None:
        self._slots.slot[self._layout.rows(load.node)[list(load.gpus)]] = 0
        if not (self._slots.slot == load.slot).any():
            self._workload.close(load.slot)

    def _interrupt(self, load: Load, reason: str) -> None:
        self._release(load)
        load.state, load.reason = "interrupted", reason

    def _hangs(self, node: str, severity: float) -> bool:
        return any(
            fault.node == node and fault.kind == "exporter_hang" and fault.strength(self.seconds) >= severity
            for fault in self.faults.values()
        )

    def _lose(self, gone: Flags) -> None:
        back = np.flatnonzero((self._state.gone_seconds > 0) & ~gone)
        wear.restarted(self._state, back)
        power.forget(self._cards, self._state, back)
        for name in dict.fromkeys(self._layout.owners[row][0] for row in np.flatnonzero(gone)):
            down = self.is_down(name)
            for load in self._running(name):
                lost = [gpu for gpu in load.gpus if gone[self._layout.row(name, gpu)]]
                if down:
                    self._interrupt(load, f"node {name} is down")
                elif lost:
                    self._interrupt(load, f"XID 79: GPU {lost[0]} of node {name} has fallen off the bus")

    def _record(self, incidents: Sequence[wear.Incident]) -> None:
        for row, code in incidents:
            node, gpu = self._layout.owners[row]
            seen = self.xids.setdefault(node, {})
            before = seen.get((gpu, code))
            seen[gpu, code] = Seen(1 + (before.count if before else 0), self.seconds)
            if code in _DEADLY and self._slots.slot[row]:
                self._interrupt(
                    self._carried(node, gpu), f"XID {code}: {xid.message(code)} on GPU {gpu} of node {node}"
                )

    def _run_out(self, full: Flags) -> None:
        for row in np.flatnonzero(full & (self._slots.slot > 0)):
            node, gpu = self._layout.owners[row]
            self._interrupt(self._carried(node, gpu), f"out of memory on GPU {gpu} of node {node}")

    def _silence(self, before: Floats, seconds: float) -> None:
        # What nobody reads, and what is read again instead of something new.
        hanging = {str(each.node) for each in self.faults.values() if each.kind in ("node_crash", "exporter_hang")}
        stuck = {}
        for name in hanging.union(self.pauses):
            rows = self._layout.rows(name)
            if self.is_down(name) or not self.hears(name):
                self._readings[:, rows] = np.nan
            elif self._hangs(name, 0.0):
                self._readings[:, rows] = before[:, rows]
                stuck[name] = self._stuck_since.get(name, self.seconds - seconds)
        self._stuck_since = stuck


def build(nodes: int, gpus_per_node: int, gpus_per_rack: int, models: Sequence[str], seed: int) -> Fleet:
    """Nodes `node-01`…, the models taking turns."""
    made = Fleet(seed, gpus_per_rack)
    digits = max(2, len(str(nodes)))
    for index in range(nodes):
        made.add_node(f"node-{index + 1:0{digits}d}", gpus_per_node, models[index % len(models)])
    return made
