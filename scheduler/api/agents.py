"""What agents call: the heartbeat that brings them work, and the report on how it ended."""

import json
from typing import Annotated

from pydantic import Field, JsonValue
from starlette.requests import Request
from starlette.responses import Response

from ..auth import Scope
from ..jobs import JobType, Outcome
from ..queue import Orders
from ..store.cooling import Lowered
from ..store.reports import StaleReportError
from .context import context
from .endpoint import Answer, Body, Endpoint, answer, parse
from .problems import Problem

Watts = Annotated[float, Field(ge=0, le=100_000)]


class CooledRequest(Body):
    gpu: Annotated[int, Field(ge=0, le=1023)]
    limit_watts: Watts
    usual_watts: Watts
    celsius: Annotated[float, Field(ge=-100, le=300, description="How hot it was when the limit was lowered.")]


class Held(Body):
    node: str
    attempts: Annotated[list[int], Field(description="Fences of all attempts it has begun and not reported.")]
    cooled: Annotated[
        tuple[CooledRequest, ...],
        Field(max_length=1024, description="GPUs whose power limit the agent has lowered because they were too hot."),
    ] = ()


class HeartbeatRequest(Body):
    nodes: Annotated[list[Held], Field(min_length=1, max_length=10_000)]
    wait_seconds: Annotated[
        float, Field(ge=0, le=5, description="How long the answer may wait for something to do.")
    ] = 0.0
    leaving: Annotated[
        bool, Field(description="The agent stops: its nodes get no more work, what they had is queued again.")
    ] = False


class Start(Answer):
    fence: int
    node: str
    gpus: list[int]
    job: str
    name: str
    type: JobType
    timeout_seconds: float
    duration_seconds: float | None
    parameters: dict[str, JsonValue]


class Stop(Answer):
    node: str
    fence: int


class HeartbeatAnswer(Answer):
    start: list[Start]
    stop: list[Stop]
    unknown: Annotated[list[str], Field(description="Nodes to register again.")]

    @classmethod
    def of(cls, orders: Orders) -> "HeartbeatAnswer":
        return cls(
            start=[
                Start(
                    fence=offer.part.fence,
                    node=offer.part.node,
                    gpus=list(offer.part.gpus),
                    job=offer.job.id,
                    name=offer.job.name,
                    type=offer.job.specification.type,
                    timeout_seconds=offer.job.specification.timeout_seconds,
                    duration_seconds=offer.job.specification.duration_seconds,
                    parameters=json.loads(offer.job.specification.parameters),
                )
                for offer in orders.start
            ],
            stop=[Stop(node=node, fence=fence) for node, fence in orders.stop],
            unknown=list(orders.unknown),
        )


class ReportRequest(Body):
    node: str
    outcome: Annotated[Outcome, Field(strict=False)]
    reason: Annotated[str, Field(max_length=2000)] | None = None
    result: dict[str, JsonValue] | None = None


async def heartbeat(request: Request) -> Response:
    wanted = await parse(request, HeartbeatRequest)
    held = {node.node: frozenset(node.attempts) for node in wanted.nodes}
    if wanted.leaving:
        await context(request).queue.leave(held)
        return answer(HeartbeatAnswer(start=[], stop=[], unknown=[]))
    cooled = {node.node: [Lowered(**gpu.model_dump()) for gpu in node.cooled] for node in wanted.nodes if node.cooled}
    orders = await context(request).queue.heartbeat(held, wanted.wait_seconds, cooled)
    return answer(HeartbeatAnswer.of(orders))


async def report(request: Request) -> Response:
    wanted = await parse(request, ReportRequest)
    fence: int = request.path_params["fence"]
    result = None if wanted.result is None else json.dumps(wanted.result)
    try:
        await context(request).queue.report(fence, wanted.node, wanted.outcome, wanted.reason, result)
    except StaleReportError as error:
        raise Problem(409, str(error)) from error
    return Response(status_code=204)


ENDPOINTS = [
    Endpoint(
        "POST",
        "/v1/heartbeats",
        heartbeat,
        "Say that nodes live and what they hold; learn what to start and stop. Every 2 s.",
        body=HeartbeatRequest,
        answer=HeartbeatAnswer,
        scope=Scope.NODES,
    ),
    Endpoint(
        "POST",
        "/v1/attempts/{fence:number}/report",
        report,
        "Say how an attempt ended on a node. Refused when the attempt is over.",
        status=204,
        body=ReportRequest,
        problems=(409,),
        scope=Scope.NODES,
    ),
]
