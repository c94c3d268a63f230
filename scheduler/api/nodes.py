"""/v1/nodes: register, look, remove, drain, and cordon single GPUs."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from ..auth import Scope
from ..fleet import holding
from ..nodes import Gpu, Node
from ..queue import BusyNodeError
from ..store import Transaction, cooling, remediation
from ..store import nodes as stored
from .context import Context, context
from .endpoint import Body, Endpoint, Handler, Parameters, Text, answer, parse, parse_query
from .node import About, NodeAnswer, NodeList
from .problems import Problem

NodeName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,252}$")]


IF_MATCH = {"If-Match": "The node's ETag: nothing is changed once it is another, as another drain would make it."}


Label = Annotated[Text, Field(max_length=253)]
Reason = Annotated[Text, Field(max_length=500)]


class GpuRequest(Body):
    gpu: Annotated[int, Field(ge=0, le=1023)]
    uuid: Label | None = None
    model: Label | None = None


class NodeRequest(Body):
    node: NodeName
    gpus: Annotated[int, Field(ge=1, le=1024)] | Annotated[list[GpuRequest], Field(min_length=1, max_length=1024)]
    model: Label | None = None
    rack: Label | None = None
    kind: Annotated[str, Field(pattern=r"^(real|synthetic)$")] = "real"

    def described(self) -> list[Gpu]:
        if isinstance(self.gpus, int):
            return [Gpu(index, None, self.model) for index in range(self.gpus)]
        return [Gpu(gpu.gpu, gpu.uuid, gpu.model or self.model) for gpu in self.gpus]


class ReasonRequest(Body):
    reason: Reason


class RemoveQuery(Parameters):
    force: Annotated[bool, Field(description="Remove it even while jobs run there; they are queued again.")] = False


@contextmanager
def told() -> Iterator[None]:
    """The store's refusals as problems."""
    try:
        yield
    except stored.UnknownNodeError as error:
        raise Problem(404, str(error)) from error
    except stored.ChangedNodeError as error:
        raise Problem(412, str(error)) from error
    except BusyNodeError as error:
        raise Problem(409, str(error)) from error


def versions_of(request: Request) -> frozenset[int] | None:
    """The versions that If-Match allows. Tags that never were ours match nothing."""
    given = request.headers.get("if-match")
    if given is None or given.strip() == "*":
        return None
    return frozenset(int(tag) for tag in re.findall(r'(?<![\w/"])"(\d{1,18})"', given))


async def list_nodes(request: Request) -> Response:
    stored = (await context(request).fleet(with_jobs=True)).stored
    about = About(stored.jobs, stored.reliability, stored.cooling)
    known = [_answer(context(request), node, about) for node in stored.nodes]
    return answer(NodeList(nodes=known))


async def register(request: Request) -> Response:
    wanted = await parse(request, NodeRequest)
    gpus = wanted.described()
    if len({gpu.index for gpu in gpus}) != len(gpus):
        raise Problem(422, f"a GPU index of {wanted.node} comes twice", [{"pointer": "/gpus", "detail": "twice"}])
    node = await context(request).queue.register(wanted.node, wanted.rack, wanted.kind, gpus)
    return await respond(request, node, 201, {"Location": f"/v1/nodes/{node.name}"})


async def get(request: Request) -> Response:
    with told():
        node = await context(request).queue.store.read(stored.get, request.path_params["node"])
    return await respond(request, node)


async def remove(request: Request) -> Response:
    query = parse_query(request, RemoveQuery)
    with told():
        await context(request).queue.remove(request.path_params["node"], query.force, versions_of(request))
    return Response(status_code=204)


async def drain(request: Request) -> Response:
    reason = (await parse(request, ReasonRequest)).reason
    with told():
        node = await context(request).queue.drain(request.path_params["node"], reason, versions_of(request))
    return await respond(request, node)


async def undrain(request: Request) -> Response:
    with told():
        node = await context(request).queue.undrain(request.path_params["node"], versions_of(request))
    return await respond(request, node)


async def cordon(request: Request) -> Response:
    reason = (await parse(request, ReasonRequest)).reason
    params = request.path_params
    with told():
        node = await context(request).queue.cordon(params["node"], params["gpu"], reason, versions_of(request))
    return await respond(request, node)


async def uncordon(request: Request) -> Response:
    params = request.path_params
    with told():
        node = await context(request).queue.uncordon(params["node"], params["gpu"], versions_of(request))
    return await respond(request, node)


def _about(tx: Transaction, node: Node) -> About:
    return About(holding(tx, node.name), remediation.reliability(tx), cooling.get_all(tx))


def _answer(at: Context, node: Node, about: About) -> NodeAnswer:
    return NodeAnswer.of(node, about, at.cycle.reading, at.cycle.settings.thresholds)


async def respond(request: Request, node: Node, status: int = 200, headers: dict[str, str] | None = None) -> Response:
    """The node with its ETag."""
    about = await context(request).queue.store.read(_about, node)
    tagged = {"ETag": f'"{node.version}"', **(headers or {})}
    return answer(_answer(context(request), node, about), status, tagged)


def change(
    what: str, handler: Handler, summary: str, body: type[Body] | None = None, problems: tuple[int, ...] = ()
) -> Endpoint:
    """The endpoint of a change to a node, which is answered with the node."""
    return Endpoint(
        "POST",
        f"/v1/nodes/{{node}}/{what}",
        handler,
        summary,
        body=body,
        answer=NodeAnswer,
        problems=(404, 412, *problems),
        headers=IF_MATCH,
        scope=Scope.NODES,
    )


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
    change(
        "drain",
        drain,
        "No new work there; what runs goes on. Only a person lifts it again.",
        body=ReasonRequest,
    ),
    change("undrain", undrain, "Take work again, whoever holds the node."),
    change("gpus/{gpu:number}/cordon", cordon, "No new work on one GPU.", body=ReasonRequest),
    change(
        "gpus/{gpu:number}/uncordon",
        uncordon,
        "Lift everybody's cordon on one GPU; what is known now brings none back, new evidence may.",
    ),
]
