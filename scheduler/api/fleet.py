"""/v1/fleet: one summary of everything, which the console draws."""

from typing import Annotated

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from ..clock import now, rfc3339
from .context import context
from .endpoint import Answer, Endpoint, answer
from .nodes import NodeAnswer
from .workload import WorkloadAnswer


class Counts(Answer):
    nodes: dict[str, int]
    gpus: dict[str, int]


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
    nodes: list[NodeAnswer]
    counts: Counts
    queue: QueueCounts
    health: HealthAnswer
    workload: WorkloadAnswer


async def get(request: Request) -> Response:
    at = context(request)
    fleet = await at.fleet(with_jobs=True)
    stored, reading = fleet.stored, fleet.health
    stale = at.cycle.settings.thresholds.stale_seconds
    return answer(
        FleetAnswer(
            time=rfc3339(stored.at),
            sequence=stored.sequence,
            nodes=[NodeAnswer.of(node, stored.jobs, reading, stale) for node in stored.nodes],
            counts=Counts(nodes=fleet.node_counts, gpus=fleet.gpu_counts),
            queue=QueueCounts(
                **fleet.job_counts,
                oldest_seconds=round(fleet.oldest_seconds, 1),
                finished_per_minute=stored.finished,
            ),
            health=HealthAnswer(
                state=reading.state,
                read_seconds_ago=None if reading.read_at is None else round(now() - reading.read_at, 1),
                scores=len(at.cycle.scores()),
            ),
            workload=WorkloadAnswer(jobs_per_minute=stored.jobs_per_minute),
        )
    )


ENDPOINTS = [Endpoint("GET", "/v1/fleet", get, "Nodes, GPUs, scores, jobs and counts at once.", answer=FleetAnswer)]
