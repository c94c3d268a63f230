"""/v1/nodes/{node}: pause and resume without a drain, and reset of a synthetic node."""

from typing import Annotated

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from ..nodes import Node
from ..queue import Versions
from ..store import Transaction
from ..store import nodes as stored
from .context import context
from .endpoint import parse
from .nodes import ReasonRequest, change, respond, told, versions_of
from .problems import Problem
from .synthetic import synthetic_fleet


class PauseRequest(ReasonRequest):
    seconds: Annotated[
        float | None,
        Field(gt=0, le=30 * 86_400, description="After so many the node takes work again by itself; null: never."),
    ] = None


async def pause(request: Request) -> Response:
    wanted = await parse(request, PauseRequest)
    name, versions = request.path_params["node"], versions_of(request)
    with told():
        node = await context(request).queue.pause(name, wanted.reason, wanted.seconds, versions)
    return await respond(request, node)


async def resume(request: Request) -> Response:
    with told():
        node = await context(request).queue.resume(request.path_params["node"], versions_of(request))
    return await respond(request, node)


async def reset(request: Request) -> Response:
    at, name = context(request), request.path_params["node"]
    with told():
        node = await at.queue.store.read(_expected, name, versions_of(request))
    if node.kind != "synthetic" or at.synthetic is None:
        raise Problem(409, f"node {name} is not one of a synthetic fleet that this scheduler was started with")
    with synthetic_fleet(request) as fleet:
        await fleet.reset(name)
    with told():
        node = await at.queue.mended(name)
    return await respond(request, node)


def _expected(tx: Transaction, name: str, versions: Versions) -> Node:
    stored.expect(tx, name, versions)
    return stored.get(tx, name)


ENDPOINTS = [
    change(
        "pause",
        pause,
        "No new work there for a while; what runs goes on, and the node does not count as drained.",
        body=PauseRequest,
    ),
    change("resume", resume, "End the pause, and what automation holds the whole node for; a drain stays."),
    change(
        "reset",
        reset,
        "Mend a synthetic node: its faults end, and what automation held it and its GPUs for. Jobs go on.",
        problems=(409, 502),
    ),
]
