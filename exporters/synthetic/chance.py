"""What happens by chance in a recording: jobs that come and go, faults, and upkeep that is no fault."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

from exporters.synthetic.faults import KINDS, Onset
from exporters.synthetic.fleet import Fleet
from exporters.synthetic.parts import ConflictError

# As in the Acme clusters (Hu et al., NSDI 2024): two thirds of the GPUs busy, nearly always with a kernel running, and
# yet every second one at low power, because its job feeds it badly or waits.
_BUSY_SHARE = 0.65
_INTENSITY = (0.4, 0.4)  # Beta
_SIZES = np.array([1, 2, 4, 8, 16])
_SIZE_WEIGHTS = np.array([0.34, 0.16, 0.18, 0.24, 0.08])
_KINDS = ("training", "inference", "matrix", "compute")
_KIND_WEIGHTS = (0.55, 0.25, 0.08, 0.12)
_MEDIAN_SECONDS, _SIGMA = 1_800.0, 0.9
_LONGEST_QUEUE = 20
_FAILING_SHARE = 0.04
_PROGRAM_XIDS = (13, 31, 43)


@dataclass(slots=True)
class _Job:
    name: str
    size: int
    kind: str
    utilization: float
    intensity: float
    seconds: float
    fails: bool = False
    end: float = 0.0
    loads: list[str] = field(default_factory=list)


class Jobs:
    """Arrivals at random, placed on the emptiest fitting nodes; on average about 65 % of the GPUs are busy."""

    def __init__(self, fleet: Fleet, rng: np.random.Generator) -> None:
        self._fleet = fleet
        self._rng = rng
        self._waiting: list[_Job] = []
        self._running: list[_Job] = []
        self._count = 0
        self._gpus = sum(len(node.gpus) for node in fleet.nodes.values())
        self._largest = min(self._gpus, int(_SIZES[-1]))
        sizes = np.minimum(_SIZES, self._largest)
        mean_seconds = _MEDIAN_SECONDS * np.exp(_SIGMA**2 / 2)
        self._per_second = _BUSY_SHARE * self._gpus / ((sizes @ _SIZE_WEIGHTS) * mean_seconds)
        # Start as if the fleet had been working for long: who meets a job meets a long one (σ² on the logarithm),
        # somewhere in its middle.
        self._waiting = [self._new() for _ in range(round(self._per_second * mean_seconds))]
        for job in self._waiting:
            job.seconds *= self._rng.random() * np.exp(_SIGMA**2)

    def step(self, seconds: float) -> None:
        """Ends what is over, lets new jobs come, places what fits."""
        now = self._fleet.seconds
        for job in [each for each in self._running if each.fails and each.end <= now]:
            self._fail(job)
        for job in [each for each in self._running if each.end <= now or self._is_broken(each)]:
            self._end(job)
        for _ in range(self._rng.poisson(self._per_second * seconds)):
            if len(self._waiting) < _LONGEST_QUEUE:
                self._waiting.append(self._new())
        self._waiting = [job for job in self._waiting if not self._place(job)]

    def _is_broken(self, job: _Job) -> bool:
        # One rank gone, all gone.
        return any(self._fleet.load(load).state == "interrupted" for load in job.loads)

    def _new(self) -> _Job:
        self._count += 1
        kind = str(self._rng.choice(_KINDS, p=_KIND_WEIGHTS))
        intensity = float(self._rng.beta(*_INTENSITY))
        return _Job(
            name=f"job-{self._count:05d}",
            size=min(int(self._rng.choice(_SIZES, p=_SIZE_WEIGHTS)), self._largest),
            kind=kind,
            utilization=float(self._rng.uniform(0.95, 1.0)),
            intensity=1.0 if kind == "matrix" else intensity,
            fails=bool(self._rng.random() < _FAILING_SHARE),
            seconds=float(np.clip(self._rng.lognormal(np.log(_MEDIAN_SECONDS), _SIGMA), 120, 86_400)),
        )

    def _place(self, job: _Job) -> bool:
        free = {name: self._fleet.free(name) for name in self._fleet.nodes}
        chosen: list[tuple[str, list[int]]] = []
        left = job.size
        for name in sorted(free, key=lambda each: (-len(free[each]), each)):
            take = free[name][:left]
            if take:
                chosen.append((name, take))
                left -= len(take)
            if not left:
                break
        if left:
            return False
        for name, gpus in chosen:
            load = self._fleet.add_load(name, gpus, job.kind, job.utilization, job.name, job.intensity)
            job.loads.append(load.id)
        job.end = self._fleet.seconds + job.seconds
        self._running.append(job)
        return True

    def _fail(self, job: _Job) -> None:
        # A program's own mistake: the driver says so with an XID, and nothing is wrong with the GPU.
        load = self._fleet.load(job.loads[0])
        if load.state == "running":
            gpu = int(self._rng.choice(load.gpus))
            self._fleet.application_error(load.node, gpu, int(self._rng.choice(_PROGRAM_XIDS)))

    def _end(self, job: _Job) -> None:
        self._running.remove(job)
        for load in job.loads:
            self._fleet.remove_load(load)


@dataclass(slots=True)
class _Plan:
    start: float
    end: float
    kind: str
    severity: float
    creeping: bool
    fault: str | None = None


class Faults:
    """A number of faults at random times and places, none in the first `quiet_seconds`. The kinds come as often as
    `faults.KINDS` weighs them, and each at least once when there are enough."""

    def __init__(
        self,
        fleet: Fleet,
        count: int,
        length_seconds: float,
        rng: np.random.Generator,
        kinds: Sequence[str] = tuple(KINDS),
        quiet_seconds: float = 0.0,
    ) -> None:
        self._fleet = fleet
        self._rng = rng
        self._plans = []
        left = length_seconds - quiet_seconds
        for kind in draw(count, rng, kinds):
            start = fleet.seconds + quiet_seconds + float(rng.uniform(0.05, 0.9) * left)
            self._plans.append(
                _Plan(
                    start=start,
                    end=start + float(min(rng.uniform(600, 2_400), 0.25 * left)),
                    kind=kind,
                    severity=round(float(rng.uniform(0.3, 1.0)), 3),
                    creeping=bool(rng.random() < 0.4),
                )
            )

    def step(self) -> None:
        """Breaks and mends what is due. A fault that only load makes visible waits for a part that works."""
        now = self._fleet.seconds
        for plan in [each for each in self._plans if each.fault is None and each.start <= now]:
            self._break(plan)
        for plan in [each for each in self._plans if each.end <= now]:
            self._plans.remove(plan)
            if plan.fault in self._fleet.faults:
                self._fleet.clear_fault(str(plan.fault))

    def _break(self, plan: _Plan) -> None:
        part = target(self._fleet, plan.kind, self._rng)
        if part is None:
            return
        node, gpu, rack = part
        onset: Onset = "creeping" if plan.creeping else "step"
        try:
            fault = self._fleet.add_fault(plan.kind, node, gpu, plan.severity, onset, (plan.end - plan.start) / 2, rack)
        except ConflictError:  # it cannot befall this part now; the next step tries another
            return
        plan.end += self._fleet.seconds - plan.start
        plan.fault = fault.id


def draw(count: int, rng: np.random.Generator, among: Sequence[str] = tuple(KINDS)) -> list[str]:
    """Kinds of faults by weight, shuffled."""
    kinds = list(among)
    shares = np.array([KINDS[kind].weight for kind in kinds], np.float64)
    shares /= shares.sum()
    if count < len(kinds):
        return [str(each) for each in rng.choice(kinds, count, replace=False, p=shares)]
    drawn = kinds + [str(each) for each in rng.choice(kinds, count - len(kinds), p=shares)]
    return [drawn[index] for index in rng.permutation(count)]


def target(
    fleet: Fleet, kind: str, rng: np.random.Generator, among: str | None = None
) -> tuple[str | None, int | None, str | None] | None:
    """A random (node, GPU, rack) that the fault can befall, on the node `among` if one is named; None if none can."""
    parts = [
        (node.place.node, gpu)
        for node in (fleet.nodes.values() if among is None else [fleet.node(among)])
        if not fleet.is_down(node.place.node)
        for gpu in range(len(node.gpus))
        if kind != "nvlink_flap" or node.model.nvlink_megabytes_per_second
    ]
    if not KINDS[kind].shows_idle:
        busy = fleet.busy()
        parts = [each for each in parts if each in busy]
    if not parts:
        return None
    node_name, gpu = parts[rng.integers(len(parts))]
    if KINDS[kind].part == "rack":
        return None, None, fleet.node(node_name).place.rack
    return node_name, gpu if KINDS[kind].part == "gpu" else None, None


_NEWER = 1 / 3


class Upkeep:
    """Driver restarts, missed scrapes and maintenance reboots: what a detector must not take for a fault."""

    # kind, node-hours between two, seconds (least, most)
    _RHYTHM: tuple[tuple[Literal["scrape_gap", "driver_restart", "reboot"], float, float, float], ...] = (
        ("scrape_gap", 12, 5, 40),
        ("driver_restart", 120, 15, 45),
        ("reboot", 240, 180, 480),
    )

    def __init__(self, fleet: Fleet, rng: np.random.Generator) -> None:
        self._fleet = fleet
        self._rng = rng
        self._news = rng.spawn(1)[0]

    def step(self, seconds: float) -> None:
        """Lets each kind come to each node at its own rate. Some drivers are restarted because there is a newer one."""
        for kind, hours, least, most in self._RHYTHM:
            for index in np.flatnonzero(self._rng.random(len(self._fleet.nodes)) < seconds / 3600 / hours):
                name = list(self._fleet.nodes)[index]
                if not self._fleet.is_down(name):
                    self._fleet.pause(name, kind, float(self._rng.uniform(least, most)))
                    if kind == "driver_restart" and self._news.random() < _NEWER:
                        self._fleet.update_driver(name)
