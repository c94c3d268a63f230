"""/v1/fleet: one summary of everything, which the console draws."""

from collections.abc import Collection
from typing import Annotated, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from ..clock import now, rfc3339
from ..fleet import Fleet
from .context import context
from .endpoint import Answer, Endpoint, Parameters, answer, parse_query
from .node import About, NodeAnswer, NodeSummary
from .workload import RateAnswer

#: From here on a score is doubtful, and from the second on bad.
DOUBTFUL, BAD = 0.7, 1.0


class FleetQuery(Parameters):
    detail: Annotated[
        Literal["gpus", "nodes", "none"],
        Field(description="Of the nodes: each with its GPUs, each with counts only, or none of them."),
    ] = "gpus"


class Counts(Answer):
    nodes: dict[str, int]
    gpus: dict[str, int]
    health: dict[str, int]


class Anomalies(Answer):
    """GPUs by what the detector says of them."""

    good: int
    doubtful: Annotated[int, Field(description=f"Scores from {DOUBTFUL:g} on.")]
    bad: Annotated[int, Field(description=f"Scores from {BAD:g} on.")]
    unknown: Annotated[int, Field(description="No score, or an old one.")]

    @classmethod
    def of(cls, scores: Collection[float], gpus: int) -> "Anomalies":
        bad = sum(score >= BAD for score in scores)
        doubtful = sum(DOUBTFUL <= score < BAD for score in scores)
        good = len(scores) - bad - doubtful
        return cls(good=good, doubtful=doubtful, bad=bad, unknown=max(0, gpus - len(scores)))


class QueueCounts(Answer):
    queued: int
    assigned: int
    running: int
    succeeded: int
    failed: int
    cancelled: int
    timed_out: int
    oldest_seconds: float
    finished_per_minute: Annotated[int, Field(description="Jobs that ended in the last 60 s.")]


class HealthAnswer(Answer):
    state: Annotated[str, Field(description="off (no Prometheus given), fresh, or unreachable.")]
    read_seconds_ago: float | None
    scores: int


class FleetAnswer(Answer):
    time: str
    sequence: Annotated[int, Field(description="The newest event: read /v1/events?after= this.")]
    nodes: list[NodeAnswer] | list[NodeSummary]
    counts: Counts
    utilization: Annotated[float, Field(description="The share of the GPUs that have a job.")]
    anomalies: Anomalies
    queue: QueueCounts
    health: HealthAnswer
    workload: RateAnswer
    synthetic: Annotated[bool, Field(description="Whether /v1/synthetic is there.")]


async def get(request: Request) -> Response:
    at = context(request)
    detail = parse_query(request, FleetQuery).detail
    fleet = await at.fleet(with_jobs=detail == "gpus")
    stored, reading = fleet.stored, fleet.health
    gpus, scores = fleet.gpu_counts, at.cycle.scores()
    return answer(
        FleetAnswer(
            time=rfc3339(stored.at),
            sequence=stored.sequence,
            nodes=_nodes(fleet, detail),
            counts=Counts(nodes=fleet.node_counts, gpus=gpus, health=fleet.health_counts),
            utilization=round(gpus["busy"] / max(1, sum(gpus.values())), 4),
            anomalies=Anomalies.of(scores.values(), sum(gpus.values())),
            queue=QueueCounts(
                **fleet.job_counts,
                oldest_seconds=round(fleet.oldest_seconds, 1),
                finished_per_minute=stored.finished,
            ),
            health=HealthAnswer(
                state=reading.state,
                read_seconds_ago=None if reading.read_at is None else round(now() - reading.read_at, 1),
                scores=len(scores),
            ),
            workload=RateAnswer(jobs_per_minute=stored.jobs_per_minute),
            synthetic=at.synthetic is not None,
        )
    )


def _nodes(fleet: Fleet, detail: str) -> list[NodeAnswer] | list[NodeSummary]:
    stored, reading, limits = fleet.stored, fleet.health, fleet.thresholds
    if detail == "gpus":
        about = About(stored.jobs, stored.reliability, stored.cooling)
        return [NodeAnswer.of(node, about, reading, limits) for node in stored.nodes]
    shown = stored.nodes if detail == "nodes" else []
    return [NodeSummary.of(node, reading, limits.stale_seconds) for node in shown]


ENDPOINTS = [
    Endpoint(
        "GET",
        "/v1/fleet",
        get,
        "Nodes, GPUs, scores, jobs and counts at once.",
        query=FleetQuery,
        answer=FleetAnswer,
    )
]
