"""/v1/workload: the job generator's rate."""

from typing import Annotated

from pydantic import AfterValidator, Field
from starlette.requests import Request
from starlette.responses import Response

from ..auth import Scope
from ..store import events
from ..workload import HIGHEST_RATE, LOWEST_RATE, check_rate
from .context import context
from .endpoint import Answer, Body, Endpoint, answer, parse


class WorkloadRequest(Body):
    jobs_per_minute: Annotated[
        float,
        Field(ge=0, le=HIGHEST_RATE, description=f"0 is off; otherwise {LOWEST_RATE:g} at least."),
        AfterValidator(check_rate),
    ]


class WorkloadAnswer(Answer):
    jobs_per_minute: float


async def get(request: Request) -> Response:
    rate = await context(request).queue.store.read(events.workload_rate)
    return answer(WorkloadAnswer(jobs_per_minute=rate))


async def put(request: Request) -> Response:
    rate = (await parse(request, WorkloadRequest)).jobs_per_minute
    await context(request).workload.set_rate(rate)
    return answer(WorkloadAnswer(jobs_per_minute=rate))


ENDPOINTS = [
    Endpoint("GET", "/v1/workload", get, "How many jobs the generator submits.", answer=WorkloadAnswer),
    Endpoint(
        "PUT",
        "/v1/workload",
        put,
        "Set the generator's rate.",
        body=WorkloadRequest,
        answer=WorkloadAnswer,
        scope=Scope.JOBS,
    ),
]
