"""/v1/workload: the job generator's rate."""

from typing import Annotated, Self

from pydantic import AfterValidator, Field, model_validator
from starlette.requests import Request
from starlette.responses import Response

from ..auth import Scope
from ..store import events
from ..workload import HIGHEST_RATE, LOWEST_RATE, PRESETS, Preset, check_rate
from .context import context
from .endpoint import Answer, Body, Endpoint, answer, parse


class WorkloadRequest(Body):
    """A rate, or the name of one."""

    jobs_per_minute: (
        Annotated[
            float,
            Field(ge=0, le=HIGHEST_RATE, description=f"0 is off; otherwise {LOWEST_RATE:g} at least."),
            AfterValidator(check_rate),
        ]
        | None
    ) = None
    preset: Annotated[Preset | None, Field(description="Instead of a rate: the name of one.")] = None

    @model_validator(mode="after")
    def _is_one(self) -> Self:
        if (self.jobs_per_minute is None) == (self.preset is None):
            given = "neither" if self.preset is None else f"both {self.jobs_per_minute:g} and {self.preset!r}"
            raise ValueError(f"either jobs_per_minute or preset is required, not {given}")
        return self

    @property
    def rate(self) -> float:
        return PRESETS[self.preset] if self.preset else self.jobs_per_minute or 0.0


class RateAnswer(Answer):
    jobs_per_minute: float


class WorkloadAnswer(RateAnswer):
    presets: Annotated[dict[Preset, float], Field(description="Rates by their names.")]


async def get(request: Request) -> Response:
    return _answer(await context(request).queue.store.read(events.workload_rate))


async def put(request: Request) -> Response:
    rate = (await parse(request, WorkloadRequest)).rate
    await context(request).workload.set_rate(rate)
    return _answer(rate)


def _answer(rate: float) -> Response:
    return answer(WorkloadAnswer(jobs_per_minute=rate, presets=dict(PRESETS)))


ENDPOINTS = [
    Endpoint("GET", "/v1/workload", get, "How many jobs the generator submits.", answer=WorkloadAnswer),
    Endpoint(
        "PUT",
        "/v1/workload",
        put,
        "Set the generator's rate, or one of its presets by name.",
        body=WorkloadRequest,
        answer=WorkloadAnswer,
        scope=Scope.JOBS,
    ),
]
