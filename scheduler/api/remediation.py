"""/v1/remediation: what the automation may do, what it does now, and what it leaves alone."""

from dataclasses import asdict
from typing import Annotated

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from ..clock import rfc3339
from ..nodes import WHOLE_NODE, Cordon
from ..store.remediation import probations
from .context import context
from .endpoint import Answer, Endpoint, answer


class PolicyAnswer(Answer):
    dry_run: bool
    fleet_share: float
    rack_share: float
    floor: int
    canary_seconds: float
    retry_seconds: float
    longest_retry_seconds: float


class DomainAnswer(Answer):
    domain: Annotated[str, Field(description="fleet, or a rack.")]
    gpus: int
    held: int
    bound: int
    open: Annotated[bool, Field(description="The breaker is open: automation may hold no GPU more.")]


class HoldAnswer(Answer):
    node: str
    gpu: Annotated[int | None, Field(description="Null: the whole node.")]
    source: str
    reason: str
    since: str
    evict: bool


class ProbationAnswer(Answer):
    node: str
    gpu: int | None
    strikes: Annotated[int, Field(description="Canary jobs that failed, and relapses.")]
    canary: Annotated[str | None, Field(description="The canary job that runs.")]


class LeftAloneAnswer(Answer):
    node: str
    gpu: int
    why: str


class RemediationAnswer(Answer):
    policy: PolicyAnswer
    breaker: list[DomainAnswer]
    holds: list[HoldAnswer]
    probations: list[ProbationAnswer]
    left_alone: Annotated[list[LeftAloneAnswer], Field(description="GPUs that it would hold, and why it does not.")]


async def get(request: Request) -> Response:
    at = context(request)
    fleet = await at.fleet()
    places = await at.queue.store.read(probations)
    holds = [cordon for node in fleet.stored.nodes for cordon in node.cordons if cordon.evidence]
    return answer(
        RemediationAnswer(
            policy=PolicyAnswer(**asdict(at.cycle.settings.policy)),
            breaker=[
                DomainAnswer(domain=each.name, gpus=each.gpus, held=each.held, bound=each.bound, open=each.open)
                for each in fleet.stored.domains
            ],
            holds=[_hold(cordon) for cordon in holds],
            probations=[
                ProbationAnswer(node=place.node, gpu=_gpu(place.gpu), strikes=place.strikes, canary=place.canary)
                for place in places
            ],
            left_alone=[
                LeftAloneAnswer(node=node, gpu=gpu, why=why) for (node, gpu), why in at.cycle.judged.left_alone.items()
            ],
        )
    )


def _hold(cordon: Cordon) -> HoldAnswer:
    return HoldAnswer(
        node=cordon.node,
        gpu=_gpu(cordon.gpu),
        source=cordon.source,
        reason=cordon.reason,
        since=rfc3339(cordon.since),
        evict=cordon.evict,
    )


def _gpu(gpu: int) -> int | None:
    return None if gpu == WHOLE_NODE else gpu


ENDPOINTS = [
    Endpoint(
        "GET",
        "/v1/remediation",
        get,
        "What the automation may do, what it holds, and what it leaves alone and why.",
        answer=RemediationAnswer,
    )
]
