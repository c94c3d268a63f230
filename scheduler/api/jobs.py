"""/v1/jobs: submit, list, look at, cancel, and ask why it went where it went."""

import base64
import binascii
import hashlib
import json
import re
from dataclasses import asdict
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, ValidationError, model_validator
from starlette.requests import Request
from starlette.responses import Response

from ..auth import Scope
from ..clock import now, rfc3339
from ..cycle import candidates, why_waiting
from ..jobs import Attempt, AttemptState, Job, JobState, JobType, Priority, Share, Specification, TransitionError
from ..placement import explain
from ..queue import BusyKeyError
from ..store import Transaction
from ..store import jobs as stored
from ..store.nodes import get_all
from .context import context, principal
from .endpoint import Answer, Body, Endpoint, Parameters, Text, answer, parse, parse_query
from .problems import Problem, from_validation

FIRST_PAGE = 2**62


class SleepParameters(Body):
    pass


class ComputeParameters(Body):
    iterations: Annotated[int, Field(ge=1, le=10**15)] | None = None


class MatrixParameters(Body):
    size: Annotated[int, Field(ge=2, le=65_536)] | None = None


class FaultParameters(Body):
    after_seconds: Annotated[float, Field(ge=0, le=2_592_000)] | None = None
    probability: Annotated[float, Field(ge=0, le=1)] | None = None


class CommandParameters(Body):
    # No program can be given a NUL.
    argv: Annotated[
        list[Annotated[str, Field(max_length=32_768, pattern=r"^[^\x00]*$")]], Field(min_length=1, max_length=1000)
    ]


PARAMETERS: dict[str, type[Body]] = {
    "sleep": SleepParameters,
    "compute": ComputeParameters,
    "matrix": MatrixParameters,
    "fault": FaultParameters,
    "command": CommandParameters,
}


class JobRequest(Body):
    type: Literal["sleep", "compute", "matrix", "fault", "command"]
    gpus: Annotated[int, Field(ge=1, le=100_000, description="In all, over all its nodes.")]
    nodes: Annotated[int, Field(ge=1, le=10_000, description="The GPUs spread evenly over so many.")] = 1
    priority: Literal["LOW", "NORMAL", "HIGH", "CRITICAL"] = "NORMAL"
    name: Annotated[Text, Field(max_length=200)] | None = None
    timeout_seconds: Annotated[float, Field(gt=0, le=2_592_000)] = 300.0
    retries: Annotated[int, Field(ge=0, le=100, description="New attempts after the machine failed.")] = 3
    duration_seconds: Annotated[float, Field(ge=0, le=2_592_000)] | None = None
    parameters: Annotated[
        dict[str, JsonValue],
        Field(
            default_factory=dict,
            description="compute: iterations (points, instead of a duration); matrix: size (rows); "
            "fault: after_seconds, probability; command: argv, on nodes whose agent allows it.",
        ),
    ]

    @model_validator(mode="after")
    def _spreads_evenly(self) -> "JobRequest":
        if self.gpus % self.nodes:
            raise ValueError(f"{self.gpus} GPUs do not spread evenly over {self.nodes} nodes")
        return self

    def check_parameters(self) -> None:
        """Raises a Problem, with what is wrong under /parameters."""
        try:
            PARAMETERS[self.type].model_validate(self.parameters)
        except ValidationError as error:
            raise from_validation(error, f"the body ({self.type})", "/parameters") from error

    def specification(self) -> Specification:
        return Specification(
            type=JobType(self.type),
            gpus=self.gpus,
            nodes=self.nodes,
            priority=Priority[self.priority],
            name=self.name,
            timeout_seconds=self.timeout_seconds,
            retries=self.retries,
            duration_seconds=self.duration_seconds,
            parameters=json.dumps(self.parameters, sort_keys=True),
        )


class ShareAnswer(Answer):
    node: str
    gpus: list[int]

    @classmethod
    def of(cls, shares: tuple[Share, ...]) -> "list[ShareAnswer]":
        return [cls(node=share.node, gpus=list(share.gpus)) for share in shares]


class AttemptAnswer(Answer):
    fence: int
    state: AttemptState
    placement: list[ShareAnswer]
    placed_at: str
    started_at: str | None
    finished_at: str | None
    reason: str | None

    @classmethod
    def of(cls, attempt: Attempt) -> "AttemptAnswer":
        return cls(
            fence=attempt.fence,
            state=attempt.state,
            placement=ShareAnswer.of(attempt.placement),
            placed_at=rfc3339(attempt.placed_at),
            started_at=rfc3339(attempt.started_at),
            finished_at=rfc3339(attempt.finished_at),
            reason=attempt.reason,
        )


class JobAnswer(Answer):
    id: str
    name: str
    type: JobType
    state: JobState
    priority: Literal["LOW", "NORMAL", "HIGH", "CRITICAL"]
    gpus: int
    nodes: int
    timeout_seconds: float
    retries: int
    retries_used: int
    duration_seconds: float | None
    parameters: dict[str, JsonValue]
    origin: str
    reason: Annotated[str | None, Field(description="Why it waits, or how it ended.")]
    node: str | None
    placement: list[ShareAnswer]
    submitted_at: str
    started_at: str | None
    finished_at: str | None
    result: JsonValue
    attempts: Annotated[list[AttemptAnswer], Field(description="Empty in lists.")]

    @classmethod
    def of(cls, job: Job, reason: str | None) -> "JobAnswer":
        wanted = job.specification
        return cls(
            id=job.id,
            name=job.name,
            type=wanted.type,
            state=job.state,
            priority=wanted.priority.name,  # type: ignore[arg-type]
            gpus=wanted.gpus,
            nodes=wanted.nodes,
            timeout_seconds=wanted.timeout_seconds,
            retries=wanted.retries,
            retries_used=job.retries_used,
            duration_seconds=wanted.duration_seconds,
            parameters=json.loads(wanted.parameters),
            origin=wanted.origin,
            reason=reason,
            node=job.placement[0].node if job.placement else None,
            placement=ShareAnswer.of(job.placement),
            submitted_at=rfc3339(job.submitted_at),
            started_at=rfc3339(job.started_at),
            finished_at=rfc3339(job.finished_at),
            result=json.loads(job.result) if job.result else None,
            attempts=[AttemptAnswer.of(attempt) for attempt in job.attempts],
        )


class JobQuery(Parameters):
    state: JobState | None = None
    limit: Annotated[int, Field(ge=1, le=1000)] = 50
    cursor: str | None = None


class JobPage(Answer):
    jobs: list[JobAnswer]
    cursor: Annotated[str | None, Field(description="Where the next page begins; null after the last.")]


class LookAnswer(Answer):
    node: str
    chosen: bool
    fits: bool
    free: int
    gpus: list[int]
    cost: float | None
    terms: dict[str, float]
    why_not: str | None


class DecisionAnswer(Answer):
    job: str
    time: str
    placed: bool
    placement: list[ShareAnswer]
    reason: str | None
    candidates: Annotated[list[LookAnswer], Field(description="Best first; at most 5.")]
    counts: Annotated[dict[str, int], Field(description="On how many nodes it fits, and why not on the others.")]


async def submit(request: Request) -> Response:
    key = request.headers.get("idempotency-key")
    if key is not None and not re.fullmatch(r"[\x21-\x7e]{1,255}", key):
        raise Problem(400, f"the Idempotency-Key {key[:80]!r} is not 1 to 255 visible ASCII characters")
    body = await parse(request, JobRequest)
    body.check_parameters()
    wanted = body.specification()
    fingerprint = hashlib.sha256(repr(wanted).encode()).hexdigest() if key else ""
    # Whose key it is belongs to it: others may use the same.
    who = principal(request)
    own_key = f"{who.name}:{key}" if key and who else key
    try:
        job, repeated = await context(request).queue.submit(wanted, own_key, fingerprint)
    except stored.ReusedKeyError as error:
        raise Problem(422, f"the Idempotency-Key {key!r} was used before, with another job") from error
    except BusyKeyError as error:
        raise Problem(409, str(error), headers={"Retry-After": "1"}) from error
    headers = {"Location": f"/v1/jobs/{job.id}"}
    if repeated:
        headers["Idempotency-Replayed"] = "true"
    return answer(_answer(request, job), 201, headers)


async def list_jobs(request: Request) -> Response:
    query = parse_query(request, JobQuery)
    before = _number(query.cursor) if query.cursor is not None else FIRST_PAGE
    store = context(request).queue.store
    found = await store.read(stored.page, query.state, before, query.limit + 1)
    page = found[: query.limit]
    cursor = _cursor(page[-1].number) if len(found) > query.limit else None
    return answer(JobPage(jobs=[_answer(request, job) for job in page], cursor=cursor))


async def get(request: Request) -> Response:
    try:
        job = await context(request).queue.store.read(stored.get, request.path_params["job"], True)
    except stored.UnknownJobError as error:
        raise Problem(404, str(error)) from error
    return answer(_answer(request, job))


async def cancel(request: Request) -> Response:
    try:
        job = await context(request).queue.cancel(request.path_params["job"])
    except stored.UnknownJobError as error:
        raise Problem(404, str(error)) from error
    except TransitionError as error:
        raise Problem(409, str(error)) from error
    return answer(_answer(request, job))


async def decision(request: Request) -> Response:
    name = request.path_params["job"]
    try:
        found = await context(request).queue.store.read(_decide, name, context(request).cycle.scores())
    except stored.UnknownJobError as error:
        raise Problem(404, str(error)) from error
    job, looks = found
    placed = any(look["chosen"] for look in looks["candidates"])
    return answer(
        DecisionAnswer(
            job=name,
            time=looks["time"],
            placed=placed,
            placement=ShareAnswer.of(job.placement),
            reason=_reason(request, job),
            candidates=[LookAnswer(**look) for look in looks["candidates"]],
            counts=looks.get("counts", {}),
        )
    )


def _decide(tx: Transaction, name: str, scores: dict[tuple[str, int], float]) -> tuple[Job, dict[str, Any]]:
    """For a waiting job how the nodes look now; otherwise how they looked when it was placed."""
    job = stored.get(tx, name)
    kept = stored.decision(tx, name)
    if job.state != JobState.QUEUED and kept:
        return job, json.loads(kept)
    wanted = stored.Waiting(name, job.specification.gpus, job.specification.nodes, 0.0, job.avoid)
    if job.state != JobState.QUEUED:
        return job, {"time": rfc3339(now()), "candidates": []}
    why = explain(wanted, candidates(tx, get_all(tx), scores))
    return job, {"time": rfc3339(now()), "candidates": [asdict(look) for look in why.looks], "counts": why.counts}


def _reason(request: Request, job: Job) -> str | None:
    if job.state == JobState.QUEUED:
        return why_waiting(job, context(request).cycle.reasons)
    return job.reason


def _answer(request: Request, job: Job) -> JobAnswer:
    return JobAnswer.of(job, _reason(request, job))


def _cursor(number: int) -> str:
    return base64.urlsafe_b64encode(f"before:{number}".encode()).decode().rstrip("=")


def _number(cursor: str) -> int:
    try:
        text = base64.urlsafe_b64decode(cursor + "=" * (-len(cursor) % 4)).decode()
        found = re.fullmatch(r"before:(\d{1,18})", text)
    except (binascii.Error, UnicodeDecodeError, ValueError):
        found = None
    if not found:
        raise Problem(422, f"the cursor {cursor[:80]!r} is not one that a list has given")
    return int(found[1])


ENDPOINTS = [
    Endpoint(
        "POST",
        "/v1/jobs",
        submit,
        "Submit a job. Answered once it is on disk.",
        status=201,
        body=JobRequest,
        answer=JobAnswer,
        headers={"Idempotency-Key": "The same key and body again give the same job again, for a day."},
        problems=(400, 409, 503),
        scope=Scope.JOBS,
    ),
    Endpoint("GET", "/v1/jobs", list_jobs, "Jobs, newest first.", query=JobQuery, answer=JobPage),
    Endpoint("GET", "/v1/jobs/{job}", get, "One job with its attempts.", answer=JobAnswer, problems=(404,)),
    Endpoint(
        "POST",
        "/v1/jobs/{job}/cancel",
        cancel,
        "Cancel a job that has not ended. Cancelling twice is once.",
        answer=JobAnswer,
        scope=Scope.JOBS,
        problems=(404, 409),
    ),
    Endpoint(
        "GET",
        "/v1/jobs/{job}/decision",
        decision,
        "Why the job went where it went, or how the nodes look to it while it waits.",
        answer=DecisionAnswer,
        problems=(404,),
    ),
]
