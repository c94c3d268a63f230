"""The whole fleet at one moment: what the console draws, the metrics count, and placement starts from."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum

from .health import Place, Reading, Thresholds
from .jobs import Job, JobState
from .nodes import GpuHealth, Node, NodeState, count_states
from .remediation import Domain, Policy
from .store import Transaction, cooling, events, jobs, nodes, remediation
from .store.cooling import Cooling
from .store.remediation import Reliability


class GpuState(StrEnum):
    FREE = "free"
    BUSY = "busy"
    CORDONED = "cordoned"
    UNAVAILABLE = "unavailable"


@dataclass(frozen=True, slots=True)
class Stored:
    """What one transaction reads for a Fleet."""

    sequence: int
    nodes: list[Node]
    #: (node, GPU) → the job that holds it.
    jobs: dict[Place, Job]
    counts: dict[JobState, int]
    oldest: float | None
    finished: int
    running: list[tuple[str, str, int]]
    jobs_per_minute: float
    domains: list[Domain]
    reliability: dict[str, Reliability]
    cooling: dict[str, dict[int, Cooling]]
    at: float


@dataclass(frozen=True, slots=True)
class Fleet:
    stored: Stored
    health: Reading
    thresholds: Thresholds

    @property
    def job_counts(self) -> dict[str, int]:
        return {str(state): count for state, count in self.stored.counts.items()}

    @property
    def node_counts(self) -> dict[str, int]:
        return count_states(self.stored.nodes)

    @property
    def gpu_counts(self) -> dict[str, int]:
        return count_gpus(self.stored.nodes)

    @property
    def health_counts(self) -> dict[str, int]:
        """GPUs by where they stand between healthy and out of service."""
        counts = dict.fromkeys(GpuHealth, 0)
        for node in self.stored.nodes:
            for gpu in node.gpus:
                counts[gpu_health(node, gpu.index, self.health, self.thresholds)] += 1
        return {str(state): count for state, count in counts.items()}

    @property
    def running(self) -> list[tuple[str, str, int]]:
        """(job, node, GPU) of every running attempt."""
        return self.stored.running

    @property
    def oldest_seconds(self) -> float:
        oldest = self.stored.oldest
        return 0.0 if oldest is None else max(0.0, self.stored.at - oldest)


def read(tx: Transaction, policy: Policy, with_jobs: bool = False) -> Stored:
    """`with_jobs` adds the jobs that hold GPUs now."""
    return Stored(
        sequence=events.newest(tx),
        nodes=nodes.get_all(tx),
        jobs=holding(tx) if with_jobs else {},
        counts=jobs.counts(tx),
        oldest=jobs.oldest_waiting(tx),
        finished=jobs.finished_since(tx, tx.now - 60),
        running=[(row["job"], row["node"], row["gpu"]) for row in tx.all("running_shares")],
        jobs_per_minute=events.workload_rate(tx),
        domains=remediation.breaker(tx, policy).domains(),
        reliability=remediation.reliability(tx),
        cooling=cooling.get_all(tx),
        at=tx.now,
    )


def holding(tx: Transaction, node: str | None = None) -> dict[Place, Job]:
    """The jobs that hold GPUs, on one node or on all."""
    holders = nodes.holders(tx, node)
    known = {job: jobs.get(tx, job) for job in set(holders.values())}
    return {place: known[job] for place, job in holders.items()}


def gpu_state(node: Node, gpu: int) -> GpuState:
    if gpu in node.held:
        return GpuState.BUSY
    if node.state != NodeState.HEALTHY:
        return GpuState.UNAVAILABLE
    return GpuState.CORDONED if node.cordon(gpu) or node.holds else GpuState.FREE


def gpu_health(node: Node, gpu: int, reading: Reading, limits: Thresholds) -> GpuHealth:
    health = reading.at((node.name, gpu), limits.stale_seconds)
    return node.health(gpu, health.score if health else None, limits.clear)


def count_gpus(known: Sequence[Node]) -> dict[str, int]:
    found = Counter(gpu_state(node, gpu.index) for node in known for gpu in node.gpus)
    return {str(state): found[state] for state in GpuState}
