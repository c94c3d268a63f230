"""What can go wrong, how hard, and since when; and what that does to the physics."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np

from exporters.synthetic.arrays import Flags, Floats, Integers

Onset = Literal["step", "creeping"]


@dataclass(slots=True)
class Fault:
    """One fault. `gpu` is None when it is the node's. Times are seconds of the fleet's clock."""

    id: str
    kind: str
    node: str
    gpu: int | None
    severity: float
    onset: Onset
    ramp_seconds: float
    start_seconds: float
    end_seconds: float | None = None

    def strength(self, now_seconds: float) -> float:
        """The severity in force: at once, or growing over the ramp."""
        if self.onset == "step":
            return self.severity
        return self.severity * min((now_seconds - self.start_seconds) / self.ramp_seconds, 1.0)

    def has_peaked(self, now_seconds: float) -> bool:
        """Whether the ramp is over; what is all or nothing happens then."""
        return self.onset == "step" or now_seconds >= self.start_seconds + self.ramp_seconds


@dataclass(slots=True)
class Impairment:
    """What all faults together do to each GPU; `healthy(n)` does nothing."""

    contact: Floats  # factor on the resistance between die and cooler
    airflow: Floats  # factor on the resistance between cooler and air; memory shares it
    limit: Floats  # factor on the power limit
    clock: Floats  # factor on the highest clock
    hung: Floats  # share of the GPU that spins without working
    ecc_per_second: Floats
    replays_per_second: Floats
    gone: Flags


def healthy(count: int) -> Impairment:
    """No fault anywhere; only the background rates that every fleet has."""
    one = np.ones(count)
    return Impairment(
        one.copy(),
        one.copy(),
        one.copy(),
        one.copy(),
        np.zeros(count),
        np.full(count, 2e-7),
        np.full(count, 1e-6),
        np.zeros(count, np.bool_),
    )


def _thermal_paste(impairment: Impairment, gpus: Integers, strength: float, _: bool) -> None:
    impairment.contact[gpus] *= 1 + 1.5 * strength


def _fan_failure(impairment: Impairment, gpus: Integers, strength: float, _: bool) -> None:
    impairment.airflow[gpus] *= 1 + 1.0 * strength


def _power_cap(impairment: Impairment, gpus: Integers, strength: float, _: bool) -> None:
    impairment.limit[gpus] *= 1 - 0.65 * strength


def _clock_stuck(impairment: Impairment, gpus: Integers, strength: float, _: bool) -> None:
    impairment.clock[gpus] *= 1 - 0.75 * strength


def _hang(impairment: Impairment, gpus: Integers, strength: float, _: bool) -> None:
    impairment.hung[gpus] = np.maximum(impairment.hung[gpus], strength)


def _ecc_creep(impairment: Impairment, gpus: Integers, strength: float, _: bool) -> None:
    impairment.ecc_per_second[gpus] += 0.5 * strength


def _off_the_bus(impairment: Impairment, gpus: Integers, strength: float, peaked: bool) -> None:
    impairment.replays_per_second[gpus] += 2.0 * strength
    impairment.gone[gpus] |= peaked


def _node_crash(impairment: Impairment, gpus: Integers, _: float, peaked: bool) -> None:
    impairment.gone[gpus] |= peaked


Effect = Callable[[Impairment, Integers, float, bool], None]

KINDS: dict[str, Effect] = {
    "thermal_paste": _thermal_paste,
    "fan_failure": _fan_failure,
    "power_cap": _power_cap,
    "clock_stuck": _clock_stuck,
    "hang": _hang,
    "ecc_creep": _ecc_creep,
    "off_the_bus": _off_the_bus,
    "node_crash": _node_crash,
}
NODE_KINDS = frozenset({"node_crash"})


def impairment(
    faults: Iterable[Fault], rows: Mapping[tuple[str, int | None], Integers], count: int, now_seconds: float
) -> Impairment:
    """All faults in force, applied. `rows` says which GPUs a (node, gpu) means; gpu None is the whole node."""
    result = healthy(count)
    for fault in faults:
        effect = KINDS[fault.kind]
        effect(
            result,
            rows[fault.node, fault.gpu],
            fault.strength(now_seconds),
            fault.has_peaked(now_seconds),
        )
    return result
