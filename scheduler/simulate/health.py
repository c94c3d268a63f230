"""What placement by health saves: gangs on a fleet whose servers fail as in a real fault trace.

The same jobs and the same faults are replayed with each way of using what is known of health. Placement is
the live one. A fault stops every job on the server: work since the last checkpoint is lost, the job goes
back to the queue with what remains, and its restart costs time too. The server is out until its repair.
"""

from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from heapq import heappop, heappush
from itertools import count

import numpy as np

from ..placement import Candidate, penalty
from ..placement.fleet import Fleet
from .faults import DAY, GPUS, SERVERS, Detector, Fault, scores

RACK = 8
CHECKPOINT_HOURS = 1.0
RESTART_HOURS = 1 / 6
#: Shares of the jobs by GPUs.
SIZES = {4: 0.2, 8: 0.4, 16: 0.15, 32: 0.1, 64: 0.1, 128: 0.05}
MEDIAN_HOURS = 24.0
SPREAD = 1.0
LONGEST_HOURS = 14 * DAY
#: Requested GPU-hours as a share of the fleet's.
LOAD = 0.85
#: A server's risk falls from 1 to 0 in so long after a repair.
PROBATION_HOURS = 14 * DAY
BLOCK = 1.0
MODES = ("blind", "exclude", "scores", "graded")


@dataclass(slots=True)
class Job:
    id: str
    gpus: int
    nodes: int
    hours: float
    began: float = 0.0
    overhead: float = 0.0
    attempt: int = 0
    rows: tuple[int, ...] = ()
    slots: dict[int, tuple[int, ...]] = field(default_factory=dict)
    avoid: frozenset[str] = frozenset()
    starving: bool = False


@dataclass(frozen=True, slots=True)
class Outcome:
    """One seed's. GPU-hours are lost to work that is done again and to restarts."""

    #: GPU-hours held by jobs, in % of the fleet's.
    allocation: float
    #: Of the held GPU-hours those that were not lost, in %.
    effective_training_time: float
    interruptions: float
    gpu_hours_lost: float
    jobs_finished: float


@dataclass(slots=True)
class _Server:
    free: set[int] = field(default_factory=lambda: set(range(GPUS)))
    scores: dict[int, float] = field(default_factory=dict)
    down: int = 0
    repaired: float | None = None


def workload(hours: float, generator: np.random.Generator) -> list[tuple[float, int, float]]:
    """(arrival, GPUs, hours of work), Poisson in time. Sizes and lengths are assumptions, see docs/placement.md."""
    sizes, shares = np.array(list(SIZES)), np.array(list(SIZES.values()))
    found, asked = [], 0.0
    while asked < LOAD * hours * SERVERS * GPUS:
        size = int(generator.choice(sizes, p=shares))
        length = min(LONGEST_HOURS, float(MEDIAN_HOURS * np.exp(SPREAD * generator.standard_normal())))
        found.append((float(generator.uniform(0, hours)), size, length))
        asked += size * length
    return sorted(found)


class Replay:
    """One way of using health over the whole trace. Times in hours."""

    def __init__(self, mode: str, faults: list[Fault], hours: float, detector: Detector, seed: int) -> None:
        if mode not in MODES:
            raise ValueError(f"{mode!r} is none of {', '.join(MODES)}")
        self._mode, self._hours = mode, hours
        self._servers = [_Server() for _ in range(SERVERS)]
        self._now = 0.0
        self._fleet = Fleet([self._candidate(row) for row in range(SERVERS)], "stethos")
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._order = count()
        self._waiting: list[Job] = []
        self._running: dict[str, Job] = {}
        self._held = self._lost = 0.0
        self._interruptions = self._finished = 0
        jobs, truth, places = (np.random.default_rng([seed, stream]) for stream in range(3))
        # Which servers stand together is not in the trace, and its order must not tell who fails.
        rows = places.permutation(SERVERS)
        faults = [replace(fault, server=int(rows[fault.server])) for fault in faults]
        for number, (at, gpus, length) in enumerate(workload(hours, jobs)):
            job = Job(f"job-{number}", gpus, max(1, gpus // GPUS), length)
            self._at(at, lambda job=job: self._waiting.append(job))  # type: ignore[misc]
        for fault in faults:
            self._at(fault.start, lambda fault=fault: self._fail(fault.server))  # type: ignore[misc]
            self._at(fault.end, lambda fault=fault: self._repair(fault.server))  # type: ignore[misc]
        if mode != "blind":
            for each in scores(faults, hours, detector, truth):
                self._at(each.at, lambda each=each: self._score(each.server, each.gpus, each.score))  # type: ignore[misc]

    def run(self) -> Outcome:
        while self._events and self._events[0][0] <= self._hours:
            self._now = self._events[0][0]
            while self._events and self._events[0][0] == self._now:
                heappop(self._events)[2]()
            self._place()
        self._now = self._hours
        for job in self._running.values():
            self._account(job, self._now - job.began)
        total = self._hours * SERVERS * GPUS
        return Outcome(
            allocation=100 * self._held / total,
            effective_training_time=100 * (1 - self._lost / self._held) if self._held else 0.0,
            interruptions=float(self._interruptions),
            gpu_hours_lost=self._lost,
            jobs_finished=float(self._finished),
        )

    def _at(self, time: float, act: Callable[[], None]) -> None:
        heappush(self._events, (time, next(self._order), act))

    def _place(self) -> None:
        failed: list[tuple[int, int]] = []
        waiting = []
        for job in self._waiting:
            per_node = job.gpus // job.nodes
            if any(gpus <= per_node and nodes <= job.nodes for gpus, nodes in failed):
                waiting.append(job)
                continue
            rows = self._fleet.choose(job, self._fleet.cost(job))
            if rows is None:
                failed.append((per_node, job.nodes))
                waiting.append(job)
            else:
                self._start(job, rows)
        self._waiting = waiting

    def _start(self, job: Job, rows: tuple[int, ...]) -> None:
        shares = self._fleet.take(job, rows)
        job.rows, job.began = rows, self._now
        job.slots = {row: share.gpus for row, share in zip(rows, shares, strict=True)}
        for row, gpus in job.slots.items():
            self._servers[row].free -= set(gpus)
        job.attempt += 1
        self._running[job.id] = job
        attempt = job.attempt
        self._at(self._now + job.overhead + job.hours, lambda: self._finish(job, attempt))

    def _finish(self, job: Job, attempt: int) -> None:
        if self._running.get(job.id) is job and job.attempt == attempt:
            self._account(job, self._now - job.began)
            self._release(job)
            self._finished += 1

    def _fail(self, server: int) -> None:
        self._servers[server].down += 1
        for job in [job for job in self._running.values() if server in job.slots]:
            ran = self._now - job.began
            self._account(job, ran)
            worked = max(0.0, ran - job.overhead)
            kept = worked // CHECKPOINT_HOURS * CHECKPOINT_HOURS
            self._lost += (worked - kept) * job.gpus
            self._interruptions += 1
            self._release(job)
            job.hours -= kept
            job.overhead = RESTART_HOURS
            self._waiting.insert(0, job)
        self._refresh(server)

    def _repair(self, server: int) -> None:
        self._servers[server].down -= 1
        self._servers[server].repaired = self._now
        self._refresh(server)
        if self._mode == "graded":
            for day in range(1, int(PROBATION_HOURS / DAY) + 1):
                self._at(self._now + day * DAY, lambda: self._refresh(server))

    def _score(self, server: int, gpus: tuple[int, ...], score: float) -> None:
        self._servers[server].scores |= dict.fromkeys(gpus, score)
        self._refresh(server)

    def _account(self, job: Job, ran: float) -> None:
        self._held += ran * job.gpus
        self._lost += min(ran, job.overhead) * job.gpus

    def _release(self, job: Job) -> None:
        del self._running[job.id]
        for row, gpus in job.slots.items():
            self._servers[row].free |= set(gpus)
        for row in job.rows:
            self._refresh(row)

    def _refresh(self, row: int) -> None:
        self._fleet.update(row, self._candidate(row))

    def _candidate(self, row: int) -> Candidate:
        server = self._servers[row]
        known = server.scores if self._mode != "blind" else {}
        graded = self._mode in ("scores", "graded")
        free = sorted(
            (penalty(known.get(gpu, 0.0)) if graded else 0.0, gpu) for gpu in server.free if known.get(gpu, 0.0) < BLOCK
        )
        risk = 0.0
        if self._mode == "graded" and server.repaired is not None:
            risk = max(0.0, 1 - (self._now - server.repaired) / PROBATION_HOURS)
        return Candidate(
            name=f"server-{row}",
            capacity=GPUS,
            free=tuple(gpu for _, gpu in free),
            penalties=tuple(cost for cost, _ in free),
            why_not="down" if server.down else None,
            rack=f"rack-{row // RACK}",
            risk=risk,
        )


def run(
    faults: list[Fault], modes: Iterable[str], detector: Detector, seeds: Iterable[int], days: float
) -> dict[str, list[Outcome]]:
    """The outcomes of each seed, for each mode."""
    seeds = list(seeds)
    return {mode: [Replay(mode, faults, days * DAY, detector, seed).run() for seed in seeds] for mode in modes}


def assumptions(detector: Detector, days: float, seeds: int) -> dict[str, object]:
    """Everything that the outcomes hang on, beside the fault trace."""
    return {
        **asdict(detector),
        "days": days,
        "seeds": seeds,
        "servers": SERVERS,
        "gpus_per_server": GPUS,
        "load": LOAD,
        "sizes": {str(size): share for size, share in SIZES.items()},
        "median_hours": MEDIAN_HOURS,
        "spread": SPREAD,
        "checkpoint_hours": CHECKPOINT_HOURS,
        "restart_hours": RESTART_HOURS,
        "probation_hours": PROBATION_HOURS,
    }
