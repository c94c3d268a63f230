"""/v1/nodes/{node}/history: what ran there and where it went, and what became of the place."""

import json
from typing import Annotated

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from ..clock import rfc3339
from ..jobs import AttemptState, JobState, JobType
from ..store import Transaction, history, nodes
from ..store.events import Event
from ..store.history import Stay
from .context import context
from .endpoint import Answer, Endpoint, Parameters, answer, parse_query
from .jobs import ShareAnswer
from .problems import Problem


class HistoryQuery(Parameters):
    gpu: Annotated[int | None, Field(ge=0, le=1023, description="Only what touched this GPU.")] = None
    limit: Annotated[int, Field(ge=1, le=100)] = 20


class StayAnswer(Answer):
    job: str
    name: str
    type: JobType
    job_state: JobState
    state: Annotated[AttemptState, Field(description="How this attempt stands or ended.")]
    gpus: list[int]
    placed_at: str
    started_at: str | None
    finished_at: str | None
    reason: str | None
    went_to: Annotated[list[ShareAnswer], Field(description="Where the job's next attempt was placed.")]

    @classmethod
    def of(cls, stay: Stay) -> "StayAnswer":
        return cls(
            job=stay.job,
            name=stay.name,
            type=stay.type,
            job_state=stay.job_state,
            state=stay.state,
            gpus=list(stay.gpus),
            placed_at=rfc3339(stay.placed_at),
            started_at=rfc3339(stay.started_at),
            finished_at=rfc3339(stay.finished_at),
            reason=stay.reason,
            went_to=ShareAnswer.of(stay.went_to),
        )


class ChangeAnswer(Answer):
    sequence: int
    time: str
    type: str
    subject: str
    reason: str | None
    owner: Annotated[str | None, Field(description="person or stethos; null where nobody did it.")]

    @classmethod
    def of(cls, event: Event) -> "ChangeAnswer":
        told = json.loads(event.data)
        return cls(
            sequence=event.sequence,
            time=told["time"],
            type=event.type,
            subject=told["subject"],
            reason=told.get("reason"),
            owner=told.get("owner"),
        )


class HistoryAnswer(Answer):
    jobs: Annotated[list[StayAnswer], Field(description="Newest first.")]
    changes: Annotated[list[ChangeAnswer], Field(description="Events of the node and of the GPU, newest first.")]


async def get(request: Request) -> Response:
    query = parse_query(request, HistoryQuery)
    try:
        stays, events = await context(request).queue.store.read(_read, request.path_params["node"], query)
    except nodes.UnknownNodeError as error:
        raise Problem(404, str(error)) from error
    return answer(
        HistoryAnswer(
            jobs=[StayAnswer.of(stay) for stay in stays],
            changes=[ChangeAnswer.of(event) for event in events],
        )
    )


def _read(tx: Transaction, name: str, query: HistoryQuery) -> tuple[list[Stay], list[Event]]:
    node = nodes.get(tx, name)
    if query.gpu is not None:
        nodes.require(node, query.gpu)
    found = name, query.gpu, query.limit
    return history.stays(tx, *found), history.states(tx, *found)


ENDPOINTS = [
    Endpoint(
        "GET",
        "/v1/nodes/{node}/history",
        get,
        "What ran on a node or a GPU and where it went, and what became of the place, why and by whom.",
        query=HistoryQuery,
        answer=HistoryAnswer,
        problems=(404,),
    )
]
