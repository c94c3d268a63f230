"""What happens by chance in a recording: jobs that come and go, and faults."""

from dataclasses import dataclass, field

import numpy as np

from exporters.synthetic import faults
from exporters.synthetic.fleet import ConflictError, Fleet

_BUSY_SHARE = 0.55
_SIZES = np.array([1, 2, 4, 8, 16])
_SIZE_WEIGHTS = np.array([0.34, 0.16, 0.18, 0.24, 0.08])
_KINDS = ("training", "inference", "matrix", "compute")
_KIND_WEIGHTS = (0.55, 0.25, 0.08, 0.12)
_MEDIAN_SECONDS, _SIGMA = 1_800.0, 0.9
_LONGEST_QUEUE = 20


@dataclass(slots=True)
class _Job:
    name: str
    size: int
    kind: str
    utilization: float
    seconds: float
    end: float = 0.0
    loads: list[str] = field(default_factory=list)


class Jobs:
    """Arrivals at random, placed on the emptiest fitting nodes; on average about 55 % of the GPUs are busy."""

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
        for job in [each for each in self._running if each.end <= self._fleet.seconds]:
            self._end(job)
        for _ in range(self._rng.poisson(self._per_second * seconds)):
            if len(self._waiting) < _LONGEST_QUEUE:
                self._waiting.append(self._new())
        self._waiting = [job for job in self._waiting if not self._place(job)]

    def _new(self) -> _Job:
        self._count += 1
        return _Job(
            name=f"job-{self._count:05d}",
            size=min(int(self._rng.choice(_SIZES, p=_SIZE_WEIGHTS)), self._largest),
            kind=str(self._rng.choice(_KINDS, p=_KIND_WEIGHTS)),
            utilization=float(self._rng.uniform(0.8, 1.0)),
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
            job.loads.append(self._fleet.add_load(name, gpus, job.kind, job.utilization, job=job.name).id)
        job.end = self._fleet.seconds + job.seconds
        self._running.append(job)
        return True

    def _end(self, job: _Job) -> None:
        self._running.remove(job)
        for load in job.loads:
            self._fleet.remove_load(load)


@dataclass(slots=True)
class _Plan:
    start: float
    end: float
    kind: str
    node: str
    gpu: int | None
    severity: float
    creeping: bool
    fault: str | None = None


class Faults:
    """A number of faults at random times and places, kinds in turn so that each occurs."""

    def __init__(self, fleet: Fleet, count: int, length_seconds: float, rng: np.random.Generator) -> None:
        self._fleet = fleet
        kinds = list(faults.KINDS)
        nodes = list(fleet.nodes.values())
        self._plans = []
        for index in range(count):
            kind = kinds[index % len(kinds)]
            node = nodes[rng.integers(len(nodes))]
            start = fleet.seconds + float(rng.uniform(0.05, 0.9) * length_seconds)
            self._plans.append(
                _Plan(
                    start=start,
                    end=start + float(min(rng.uniform(600, 2_400), 0.25 * length_seconds)),
                    kind=kind,
                    node=node.place.node,
                    gpu=None if kind in faults.NODE_KINDS else int(rng.integers(len(node.gpus))),
                    severity=round(float(rng.uniform(0.3, 1.0)), 3),
                    creeping=bool(rng.random() < 0.4),
                )
            )

    def step(self) -> None:
        """Breaks and mends what is due."""
        now = self._fleet.seconds
        for plan in [each for each in self._plans if each.fault is None and each.start <= now]:
            self._break(plan)
        for plan in [each for each in self._plans if each.fault is not None and each.end <= now]:
            self._plans.remove(plan)
            self._fleet.clear_fault(str(plan.fault))

    def _break(self, plan: _Plan) -> None:
        try:
            plan.fault = self._fleet.add_fault(
                plan.kind,
                plan.node,
                plan.gpu,
                plan.severity,
                "creeping" if plan.creeping else "step",
                (plan.end - plan.start) / 2,
            ).id
        except ConflictError:  # the same fault twice on one part: one is enough
            self._plans.remove(plan)
