"""/v1/synthetic: faults and nodes of the synthetic fleet that `serve --synthetic` names; elsewhere there is none."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Annotated, Literal

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response

from ..auth import Scope
from ..synthetic import Fault, FleetRefusalError, FleetUnavailableError, Kind, SyntheticFleet
from .context import context
from .endpoint import Answer, Body, Endpoint, answer, parse
from .problems import Problem

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$")]


class FaultRequest(Body):
    kind: Annotated[str, Field(pattern=r"^[a-z_]{1,40}$", description="One of the kinds that GET lists.")]
    node: Name | None = None
    gpu: Annotated[int, Field(ge=0, le=255)] | None = None
    rack: Name | None = None
    severity: Annotated[float, Field(gt=0, le=1)] = 1.0
    onset: Literal["step", "creeping"] = "step"
    ramp_seconds: Annotated[float, Field(gt=0, le=7 * 86_400, description="How long a creeping one grows.")] = 600.0


class SyntheticNodeRequest(Body):
    node: Name
    gpus: Annotated[int, Field(ge=1, le=16)] = 8
    model: Literal["H100", "A100", "L40S", "RTX4090"] = "H100"


class FaultList(Answer):
    faults: Annotated[list[Fault], Field(description="Those that are on now.")]
    kinds: list[Kind]


@contextmanager
def synthetic_fleet(request: Request) -> Iterator[SyntheticFleet]:
    """The fleet, with what it says as problems."""
    fleet = context(request).synthetic
    if fleet is None:
        raise Problem(404, "this fleet is not synthetic: the scheduler was started without --synthetic")
    try:
        yield fleet
    except FleetRefusalError as error:
        raise Problem(error.status, str(error)) from error
    except FleetUnavailableError as error:
        raise Problem(502, str(error)) from error


async def list_faults(request: Request) -> Response:
    with synthetic_fleet(request) as fleet:
        found = FaultList(faults=await fleet.faults(), kinds=await fleet.kinds())
    return answer(found)


async def inject(request: Request) -> Response:
    wanted = await parse(request, FaultRequest)
    with synthetic_fleet(request) as fleet:
        fault = await fleet.inject(wanted)
    return answer(fault, 201, {"Location": f"/v1/synthetic/faults/{fault.id}"})


async def clear(request: Request) -> Response:
    with synthetic_fleet(request) as fleet:
        await fleet.clear(request.path_params["fault"])
    return Response(status_code=204)


async def add_node(request: Request) -> Response:
    wanted = await parse(request, SyntheticNodeRequest)
    with synthetic_fleet(request) as fleet:
        await fleet.add_node(wanted)
    # Its agent registers it within seconds.
    return Response(status_code=202)


async def remove_node(request: Request) -> Response:
    with synthetic_fleet(request) as fleet:
        await fleet.remove_node(request.path_params["node"])
    return Response(status_code=202)


ENDPOINTS = [
    Endpoint(
        "GET",
        "/v1/synthetic/faults",
        list_faults,
        "The faults that a synthetic fleet has now, and the kinds that it can have.",
        answer=FaultList,
        problems=(404, 502),
    ),
    Endpoint(
        "POST",
        "/v1/synthetic/faults",
        inject,
        "Let something go wrong: a GPU, a node or a rack, as the kind wants it.",
        status=201,
        body=FaultRequest,
        answer=Fault,
        problems=(404, 409, 502),
        scope=Scope.NODES,
    ),
    Endpoint(
        "DELETE",
        "/v1/synthetic/faults/{fault}",
        clear,
        "Make it whole again.",
        status=204,
        problems=(404, 502),
        scope=Scope.NODES,
    ),
    Endpoint(
        "POST",
        "/v1/synthetic/nodes",
        add_node,
        "One synthetic node more; its agent makes it known within seconds.",
        status=202,
        body=SyntheticNodeRequest,
        problems=(404, 409, 502),
        scope=Scope.NODES,
    ),
    Endpoint(
        "DELETE",
        "/v1/synthetic/nodes/{node}",
        remove_node,
        "One synthetic node less; its jobs are queued again.",
        status=202,
        problems=(404, 502),
        scope=Scope.NODES,
    ),
]
