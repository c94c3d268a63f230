"""/v1/nodes: register, look, remove, drain, and cordon single GPUs."""

import re
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from typing import Annotated

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from ..auth import Scope
from ..clock import rfc3339
from ..fleet import GpuState, gpu_health, gpu_state
from ..health import EXPLAINED, Anomaly, Reading, Thresholds
from ..jobs import Job, JobState, JobType
from ..nodes import Cordon, Drain, Gpu, GpuHealth, Node, NodeState, Owner
from ..queue import BusyNodeError
from ..store import Transaction, jobs, remediation
from ..store import nodes as stored
from ..store.remediation import Reliability
from .context import Context, context
from .endpoint import Answer, Body, Endpoint, Parameters, answer, parse, parse_query
from .problems import Problem

NodeName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,252}$")]


IF_MATCH = {"If-Match": "The node's ETag: nothing is changed once it is another, as another drain would make it."}


class GpuRequest(Body):
    gpu: Annotated[int, Field(ge=0, le=1023)]
    uuid: str | None = None
    model: str | None = None


class NodeRequest(Body):
    node: NodeName
    gpus: Annotated[int, Field(ge=1, le=1024)] | Annotated[list[GpuRequest], Field(min_length=1, max_length=1024)]
    model: str | None = None
    rack: str | None = None
    kind: Annotated[str, Field(pattern=r"^(real|synthetic)$")] = "real"

    def described(self) -> list[Gpu]:
        if isinstance(self.gpus, int):
            return [Gpu(index, None, self.model) for index in range(self.gpus)]
        return [Gpu(gpu.gpu, gpu.uuid, gpu.model or self.model) for gpu in self.gpus]


class ReasonRequest(Body):
    reason: Annotated[str, Field(min_length=1, max_length=500)]


class RemoveQuery(Parameters):
    force: Annotated[bool, Field(description="Remove it even while jobs run there; they are queued again.")] = False


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


class CordonAnswer(Answer):
    reason: str
    owner: Owner
    since: str

    @classmethod
    def of(cls, cordon: Cordon | None) -> "CordonAnswer | None":
        if cordon is None:
            return None
        return cls(reason=cordon.reason, owner=cordon.owner, since=rfc3339(cordon.since))


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
    cordon: CordonAnswer | None


class DrainAnswer(Answer):
    reason: str
    owner: Owner
    since: str

    @classmethod
    def of(cls, drain: Drain | None) -> "DrainAnswer | None":
        if drain is None:
            return None
        return cls(reason=drain.reason, owner=drain.owner, since=rfc3339(drain.since))


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
    drain: DrainAnswer | None
    reliability: ReliabilityAnswer
    gpus: list[GpuAnswer]

    @classmethod
    def of(
        cls, node: Node, held: dict[str, Job], served: Reliability, reading: Reading, limits: Thresholds
    ) -> "NodeAnswer":
        return cls(
            node=node.name,
            rack=node.rack,
            kind=node.kind,
            state=node.state,
            reason=node.why,
            placeable=node.placeable,
            drain=DrainAnswer.of(node.drain),
            reliability=ReliabilityAnswer(**asdict(served)),
            gpus=[_gpu(node, gpu, held, reading, limits) for gpu in node.gpus],
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


def _gpu(node: Node, gpu: Gpu, held: dict[str, Job], reading: Reading, limits: Thresholds) -> GpuAnswer:
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
        job=GpuJob.of(held.get(node.held.get(gpu.index, ""))),
        cordon=CordonAnswer.of(node.cordon(gpu.index)),
    )


@contextmanager
def _told() -> Iterator[None]:
    """The store's refusals as problems."""
    try:
        yield
    except stored.UnknownNodeError as error:
        raise Problem(404, str(error)) from error
    except stored.ChangedNodeError as error:
        raise Problem(412, str(error)) from error
    except BusyNodeError as error:
        raise Problem(409, str(error)) from error


def _versions(request: Request) -> frozenset[int] | None:
    """The versions that If-Match allows. Tags that never were ours match nothing."""
    given = request.headers.get("if-match")
    if given is None or given.strip() == "*":
        return None
    return frozenset(int(tag) for tag in re.findall(r'(?<![\w/"])"(\d{1,18})"', given))


async def list_nodes(request: Request) -> Response:
    fleet = await context(request).fleet(with_jobs=True)
    stored = fleet.stored
    known = [_answer(context(request), node, stored.jobs, stored.reliability) for node in stored.nodes]
    return answer(NodeList(nodes=known))


async def register(request: Request) -> Response:
    wanted = await parse(request, NodeRequest)
    gpus = wanted.described()
    if len({gpu.index for gpu in gpus}) != len(gpus):
        raise Problem(422, f"a GPU index of {wanted.node} comes twice", [{"pointer": "/gpus", "detail": "twice"}])
    node = await context(request).queue.register(wanted.node, wanted.rack, wanted.kind, gpus)
    return await _respond(request, node, 201, {"Location": f"/v1/nodes/{node.name}"})


async def get(request: Request) -> Response:
    with _told():
        node = await context(request).queue.store.read(stored.get, request.path_params["node"])
    return await _respond(request, node)


async def remove(request: Request) -> Response:
    query = parse_query(request, RemoveQuery)
    with _told():
        await context(request).queue.remove(request.path_params["node"], query.force, _versions(request))
    return Response(status_code=204)


async def drain(request: Request) -> Response:
    reason = (await parse(request, ReasonRequest)).reason
    with _told():
        node = await context(request).queue.drain(request.path_params["node"], reason, _versions(request))
    return await _respond(request, node)


async def undrain(request: Request) -> Response:
    with _told():
        node = await context(request).queue.undrain(request.path_params["node"], _versions(request))
    return await _respond(request, node)


async def cordon(request: Request) -> Response:
    reason = (await parse(request, ReasonRequest)).reason
    params = request.path_params
    with _told():
        node = await context(request).queue.cordon(params["node"], params["gpu"], reason, _versions(request))
    return await _respond(request, node)


async def uncordon(request: Request) -> Response:
    params = request.path_params
    with _told():
        node = await context(request).queue.uncordon(params["node"], params["gpu"], _versions(request))
    return await _respond(request, node)


def _about(tx: Transaction, node: Node) -> tuple[dict[str, Job], dict[str, Reliability]]:
    return {job: jobs.get(tx, job) for job in set(node.held.values())}, remediation.reliability(tx)


def _answer(at: Context, node: Node, held: dict[str, Job], served: dict[str, Reliability]) -> NodeAnswer:
    history = served.get(node.name, Reliability())
    return NodeAnswer.of(node, held, history, at.cycle.reading, at.cycle.settings.thresholds)


async def _respond(request: Request, node: Node, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    held, served = await context(request).queue.store.read(_about, node)
    tagged = {"ETag": f'"{node.version}"', **(headers or {})}
    return answer(_answer(context(request), node, held, served), status, tagged)


ENDPOINTS = [
    Endpoint("GET", "/v1/nodes", list_nodes, "All nodes with their GPUs.", answer=NodeList),
    Endpoint(
        "POST",
        "/v1/nodes",
        register,
        "Make a node known, or renew what is known of it. Its agent does this.",
        status=201,
        body=NodeRequest,
        answer=NodeAnswer,
        scope=Scope.NODES,
    ),
    Endpoint("GET", "/v1/nodes/{node}", get, "One node.", answer=NodeAnswer, problems=(404,)),
    Endpoint(
        "DELETE",
        "/v1/nodes/{node}",
        remove,
        "Forget a node. While its agent lives, the node comes back.",
        status=204,
        query=RemoveQuery,
        problems=(404, 409, 412),
        headers=IF_MATCH,
        scope=Scope.NODES,
    ),
    Endpoint(
        "POST",
        "/v1/nodes/{node}/drain",
        drain,
        "No new work there; what runs goes on. Only a person lifts it again.",
        body=ReasonRequest,
        answer=NodeAnswer,
        problems=(404, 412),
        headers=IF_MATCH,
        scope=Scope.NODES,
    ),
    Endpoint(
        "POST",
        "/v1/nodes/{node}/undrain",
        undrain,
        "Take work again, whoever holds the node.",
        answer=NodeAnswer,
        problems=(404, 412),
        headers=IF_MATCH,
        scope=Scope.NODES,
    ),
    Endpoint(
        "POST",
        "/v1/nodes/{node}/gpus/{gpu:int}/cordon",
        cordon,
        "No new work on one GPU.",
        body=ReasonRequest,
        answer=NodeAnswer,
        problems=(404, 412),
        headers=IF_MATCH,
        scope=Scope.NODES,
    ),
    Endpoint(
        "POST",
        "/v1/nodes/{node}/gpus/{gpu:int}/uncordon",
        uncordon,
        "Lift everybody's cordon on one GPU; what is known now brings none back, new evidence may.",
        answer=NodeAnswer,
        problems=(404, 412),
        headers=IF_MATCH,
        scope=Scope.NODES,
    ),
]
