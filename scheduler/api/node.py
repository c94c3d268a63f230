"""How a node and its GPUs are told."""

from collections import Counter
from dataclasses import asdict, dataclass
from typing import Annotated

from pydantic import Field

from ..clock import rfc3339
from ..fleet import GpuState, gpu_health, gpu_state
from ..health import EXPLAINED, Anomaly, Place, Reading, Thresholds
from ..jobs import Job, JobState, JobType
from ..nodes import Cordon, Drain, Gpu, GpuHealth, Node, NodeState, Owner
from ..store.cooling import Cooling
from ..store.remediation import Reliability
from .endpoint import Answer


@dataclass(frozen=True, slots=True)
class About:
    """What is told of nodes beside themselves: the jobs that hold GPUs, how they served, what is cooled."""

    jobs: dict[Place, Job]
    reliability: dict[str, Reliability]
    cooling: dict[str, dict[int, Cooling]]


class GpuJob(Answer):
    id: str
    name: str
    type: JobType
    priority: str
    state: JobState

    @classmethod
    def of(cls, job: Job | None) -> "GpuJob | None":
        if job is None:
            return None
        wanted = job.specification
        return cls(id=job.id, name=job.name, type=wanted.type, priority=wanted.priority.name, state=job.state)


class ReasonAnswer(Answer):
    """Why no new work goes there, and by whose word."""

    reason: str
    owner: Owner
    since: str

    @classmethod
    def of(cls, kept: Cordon | Drain | None) -> "ReasonAnswer | None":
        if kept is None:
            return None
        return cls(reason=kept.reason, owner=kept.owner, since=rfc3339(kept.since))


class ContributionAnswer(Answer):
    signal: str
    share: Annotated[float, Field(description="Of the score, 0 to 1.")]


class AnomalyAnswer(Answer):
    cause: Annotated[str | None, Field(description="What the leading signal points to; null while it is not bad.")]
    contributions: Annotated[list[ContributionAnswer], Field(description="The largest first.")]

    @classmethod
    def of(cls, anomaly: Anomaly | None) -> "AnomalyAnswer | None":
        if anomaly is None:
            return None
        shares = [ContributionAnswer(signal=signal, share=round(share, 4)) for signal, share in anomaly.contributions]
        return cls(cause=anomaly.cause, contributions=shares)


class CoolingAnswer(Answer):
    limit_watts: float
    usual_watts: Annotated[float, Field(description="What the limit was, and will be again.")]
    celsius: Annotated[float, Field(description="How hot it was when the limit was lowered last.")]
    since: str

    @classmethod
    def of(cls, cooling: Cooling | None) -> "CoolingAnswer | None":
        if cooling is None:
            return None
        told = cooling.lowered
        return cls(
            limit_watts=told.limit_watts,
            usual_watts=told.usual_watts,
            celsius=told.celsius,
            since=rfc3339(cooling.since),
        )


class GpuAnswer(Answer):
    gpu: int
    uuid: str | None
    model: str | None
    state: GpuState
    health: Annotated[
        GpuHealth,
        Field(
            description="Suspect: a high score that nobody acts on yet. Quarantined: no new work, what runs may end. "
            "Draining: its job is taken away. Drained: nothing runs there. Probation: a canary job has to succeed. "
            "Maintenance: a person keeps it."
        ),
    ]
    score: Annotated[float | None, Field(description="The detector's; from 1 on the GPU is bad. Null: no opinion.")]
    score_age_seconds: float | None
    anomaly: Annotated[
        AnomalyAnswer | None, Field(description=f"Why the score is high; null under {EXPLAINED:g}, and where unknown.")
    ]
    job: GpuJob | None
    cordon: ReasonAnswer | None
    cooling: Annotated[CoolingAnswer | None, Field(description="While its agent cools it by a lower power limit.")]


class PauseAnswer(Answer):
    reason: str
    since: str
    until: Annotated[str | None, Field(description="When it ends by itself; null: when somebody resumes the node.")]

    @classmethod
    def of(cls, pause: Cordon | None) -> "PauseAnswer | None":
        if pause is None:
            return None
        return cls(reason=pause.reason, since=rfc3339(pause.since), until=rfc3339(pause.expires_at))


class ReliabilityAnswer(Answer):
    attempts: int
    infrastructure_failures: Annotated[int, Field(description="Attempts that the machine failed, not the job.")]
    repairs: Annotated[int, Field(description="Returns to service after a canary job.")]


class NodeAnswer(Answer):
    node: str
    rack: str | None
    kind: str
    state: NodeState
    reason: str | None
    placeable: bool
    drain: ReasonAnswer | None
    pause: PauseAnswer | None
    reliability: ReliabilityAnswer
    gpus: list[GpuAnswer]

    @classmethod
    def of(cls, node: Node, about: About, reading: Reading, limits: Thresholds) -> "NodeAnswer":
        return cls(
            node=node.name,
            rack=node.rack,
            kind=node.kind,
            state=node.state,
            reason=node.why,
            placeable=node.placeable,
            drain=ReasonAnswer.of(node.drain),
            pause=PauseAnswer.of(node.pause),
            reliability=ReliabilityAnswer(**asdict(about.reliability.get(node.name, Reliability()))),
            gpus=[_gpu(node, gpu, about, reading, limits) for gpu in node.gpus],
        )


class NodeSummary(Answer):
    """A node without a row for each of its GPUs."""

    node: str
    rack: str | None
    state: NodeState
    reason: str | None
    placeable: bool
    gpus: Annotated[dict[GpuState, int], Field(description="How many are in each state; absent: none.")]
    worst_score: float | None

    @classmethod
    def of(cls, node: Node, reading: Reading, stale_seconds: float) -> "NodeSummary":
        scores = [health.score for gpu in node.gpus if (health := reading.at((node.name, gpu.index), stale_seconds))]
        return cls(
            node=node.name,
            rack=node.rack,
            state=node.state,
            reason=node.why,
            placeable=node.placeable,
            gpus=dict(Counter(gpu_state(node, gpu.index) for gpu in node.gpus)),
            worst_score=round(max(scores), 4) if scores else None,
        )


class NodeList(Answer):
    nodes: list[NodeAnswer]


def _gpu(node: Node, gpu: Gpu, about: About, reading: Reading, limits: Thresholds) -> GpuAnswer:
    health = reading.at((node.name, gpu.index), limits.stale_seconds)
    return GpuAnswer(
        gpu=gpu.index,
        uuid=gpu.uuid,
        model=gpu.model,
        state=gpu_state(node, gpu.index),
        health=gpu_health(node, gpu.index, reading, limits),
        score=round(health.score, 4) if health else None,
        score_age_seconds=round(health.age, 1) if health else None,
        anomaly=AnomalyAnswer.of(reading.anomalies.get((node.name, gpu.index))) if health else None,
        job=GpuJob.of(about.jobs.get((node.name, gpu.index))),
        cordon=ReasonAnswer.of(node.cordon(gpu.index)),
        cooling=CoolingAnswer.of(about.cooling.get(node.name, {}).get(gpu.index)),
    )
