"""Jobs → what they ask of their GPUs, second by second. All ranks of a job share one slot, so they move together."""

from dataclasses import dataclass

import numpy as np

from exporters.synthetic.arrays import Floats, Integers, assigned, joined


@dataclass(frozen=True, slots=True)
class Kind:
    """What a job of this kind does at full activity, as shares of what the GPU could do."""

    tensor: float
    dram: float
    memory: float
    pcie_tx: float
    pcie_rx: float
    nvlink: float
    iteration: float  # depth of the dip in every iteration
    wander: float  # standard deviation of the slow drift of activity
    burst: float  # share of the activity that comes and goes with requests
    checkpoints: bool
    synchronous: bool  # ranks wait for the slowest


KINDS: dict[str, Kind] = {
    "training": Kind(0.52, 0.42, 0.85, 0.02, 0.03, 0.22, 0.10, 0.015, 0.0, True, True),
    "inference": Kind(0.22, 0.55, 0.90, 0.02, 0.02, 0.03, 0.0, 0.04, 0.45, False, False),
    "matrix": Kind(0.85, 0.25, 0.20, 0.001, 0.001, 0.0, 0.02, 0.005, 0.0, False, False),
    "compute": Kind(0.02, 0.35, 0.35, 0.01, 0.01, 0.0, 0.06, 0.02, 0.0, False, False),
    "sleep": Kind(0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, 0.0, False, False),
}
NAMES = tuple(KINDS)

_TABLE = np.array([[getattr(kind, name) for name in Kind.__dataclass_fields__] for kind in KINDS.values()])
_TENSOR, _DRAM, _MEMORY, _TX, _RX, _NVLINK, _ITERATION, _WANDER, _BURST, _CHECKPOINTS, _SYNC = range(11)

_WANDER_SECONDS = 90.0
_BURST_SECONDS = 20.0
_STALLS_PER_SECOND = 1 / 5400  # a slow file system or network holds the whole job; nobody's GPU is to blame
_EVALUATION_SECONDS = 25.0


@dataclass(slots=True)
class Slots:
    """The state of each job slot; slot 0 is idleness."""

    kind: Integers
    utilization: Floats
    intensity: Floats
    age: Floats
    loading: Floats
    iteration_period: Floats
    checkpoint_period: Floats
    checkpoint_length: Floats
    tensor_mix: Floats
    dram_mix: Floats
    memory_mix: Floats
    wander: Floats
    burst: Floats
    stall: Floats


@dataclass(slots=True)
class Demand:
    """What the jobs ask for now: one value per GPU, shares 0..1. `slot` tells who waits for whom."""

    slot: Integers
    synchronous: Floats
    utilization: Floats
    intensity: Floats  # share of the busy time that is work; in the rest a kernel polls for data or for its peers
    tensor: Floats
    dram: Floats
    memory: Floats
    pcie_tx: Floats
    pcie_rx: Floats
    nvlink: Floats


class Workload:
    """Job slots and which GPU sits in which."""

    def __init__(self) -> None:
        self.slots = _blank(1)
        self.slots.kind[0] = NAMES.index("sleep")
        self._free: list[int] = []

    def open(self, kind: str, utilization: float, intensity: float, rng: np.random.Generator) -> int:
        """A slot for a new job; every job differs a little from others of its kind."""
        if not self._free:
            first, more = len(self.slots.kind), max(8, len(self.slots.kind))
            self.slots = joined(self.slots, _blank(more))
            self._free = list(range(first, first + more))[::-1]
        slot = self._free.pop()
        fresh = _blank(1)
        fresh.kind[:] = NAMES.index(kind)
        fresh.utilization[:] = 0.0 if kind == "sleep" else utilization
        fresh.intensity[:] = intensity
        fresh.loading[:] = rng.uniform(15, 60) if kind in ("training", "inference") else 2.0
        fresh.iteration_period[:] = rng.uniform(7, 40)
        fresh.checkpoint_period[:] = rng.uniform(600, 1800)
        fresh.checkpoint_length[:] = rng.uniform(8, 30)
        fresh.tensor_mix[:] = rng.uniform(0.8, 1.15)
        fresh.dram_mix[:] = rng.uniform(0.8, 1.2)
        fresh.memory_mix[:] = rng.uniform(0.75, 1.1)
        assigned(self.slots, np.array([slot]), fresh)
        return slot

    def close(self, slot: int) -> None:
        """Gives a slot back."""
        assigned(self.slots, np.array([slot]), _blank(1))
        self._free.append(slot)

    def step(self, seconds: float, rng: np.random.Generator) -> None:
        """Moves every job on."""
        slots, count = self.slots, len(self.slots.kind)
        slots.age += seconds
        slots.wander = _relaxed(slots.wander, seconds, _WANDER_SECONDS, rng)
        slots.burst = _relaxed(slots.burst, seconds, _BURST_SECONDS, rng)
        begins = rng.random(count) < _STALLS_PER_SECOND * seconds
        slots.stall = np.where(begins, rng.uniform(20, 120, count), np.maximum(slots.stall - seconds, 0.0))

    def demand(self, slot: Integers, ranks: Floats) -> Demand:
        """What each GPU is asked for. `slot` and `ranks` (GPUs in its job): one entry per GPU."""
        slots = self.slots
        table = _TABLE[slots.kind]
        loading = slots.age < slots.loading
        since = np.maximum(slots.age - slots.loading, 0.0)
        turn = np.mod(since, np.maximum(slots.checkpoint_period, 1.0))
        past = slots.age - slots.loading > slots.checkpoint_period  # the first turn has nothing to save
        checks = (table[:, _CHECKPOINTS] > 0) & past & ~loading
        saving = checks & (turn < slots.checkpoint_length)
        evaluating = checks & ~saving & (turn < slots.checkpoint_length + _EVALUATION_SECONDS)

        swing = np.sin(2 * np.pi * slots.age / np.maximum(slots.iteration_period, 1.0))
        activity = (
            1.0
            - table[:, _ITERATION] * np.maximum(swing, 0.0) ** 4
            + table[:, _WANDER] * slots.wander
            - table[:, _BURST] * (1.0 - 1.0 / (1.0 + np.exp(-2.0 * slots.burst)))
        )
        activity = np.where(slots.stall > 0, activity * 0.15, activity)
        activity = np.where(saving, 0.06, np.where(loading, 0.08, activity))
        activity = np.clip(activity * slots.utilization, 0.0, 1.0)
        work = np.where(evaluating, 0.6, 1.0) * activity

        filled = np.minimum(slots.age / np.maximum(slots.loading, 1.0), 1.0)
        memory = np.where(slots.utilization > 0, table[:, _MEMORY] * slots.memory_mix * filled, 0.0)
        nvlink = table[:, _NVLINK] * np.where(evaluating, 0.1, 1.0) * activity
        return Demand(
            slot=slot,
            synchronous=table[slot, _SYNC],
            utilization=activity[slot],
            intensity=slots.intensity[slot],
            tensor=np.clip(table[:, _TENSOR] * slots.tensor_mix * work, 0, 0.97)[slot],
            dram=np.clip(table[:, _DRAM] * slots.dram_mix * work, 0, 0.95)[slot],
            memory=np.minimum(memory, 0.97)[slot],
            pcie_tx=np.where(saving, 0.25, table[:, _TX] * activity)[slot],
            pcie_rx=np.where(loading & (activity > 0), 0.3, table[:, _RX] * activity)[slot],
            nvlink=np.where(ranks > 1, nvlink[slot], 0.0),
        )


def _blank(count: int) -> Slots:
    return Slots(np.zeros(count, np.int64), *(np.zeros(count) for _ in range(13)))


def _relaxed(value: Floats, seconds: float, constant: float, rng: np.random.Generator) -> Floats:
    # Ornstein–Uhlenbeck with unit variance, exact for any step.
    keep = np.exp(-seconds / constant)
    moved: Floats = value * keep + np.sqrt(1 - keep * keep) * rng.standard_normal(value.shape)
    return moved
