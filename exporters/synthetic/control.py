"""The control API, `/v1`: nodes come and go, loads and faults are put on and taken off, truth is told."""

import re
from collections.abc import Callable, Iterator
from typing import Annotated, Literal, Self, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, model_validator
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from exporters.synthetic import chaos
from exporters.synthetic.chaos import Profile
from exporters.synthetic.faults import KINDS, Fault
from exporters.synthetic.fleet import Fleet
from exporters.synthetic.parts import ConflictError, Load, Node, NotFoundError
from exporters.synthetic.source import SyntheticSource

Result = TypeVar("Result")

_MOST_BYTES = 1_000_000  # of a body: chaos with a rate for each of 10,000 nodes takes a third of it
_Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9]([A-Za-z0-9._-]{0,61}[A-Za-z0-9])?$")]
_Gpu = Annotated[int, Field(ge=0, le=255)]


class _Body(BaseModel):
    model_config = ConfigDict(extra="forbid", strict=True)


Given = TypeVar("Given", bound=_Body)


class NewNode(_Body):
    """POST /v1/nodes"""

    node: _Name
    gpus: int = Field(8, ge=1, le=16)
    model: Literal["H100", "A100", "L40S", "RTX4090"] = "H100"


class NewLimit(_Body):
    """PUT /v1/nodes/{node}/gpus/{gpu}/power-limit"""

    watts: float = Field(gt=0, allow_inf_nan=False)


class NewLoad(_Body):
    """POST /v1/loads"""

    node: str
    gpus: list[_Gpu] = Field(min_length=1, max_length=16)
    kind: Literal["training", "inference", "matrix", "compute", "sleep"]
    utilization: float = Field(0.95, ge=0, le=1, allow_inf_nan=False)
    job: str | None = Field(None, min_length=1, max_length=200)

    @model_validator(mode="after")
    def _each_gpu_once(self) -> Self:
        if len(set(self.gpus)) < len(self.gpus):
            raise ValueError("a GPU is named twice")
        return self


def _known_kind(kind: str) -> str:
    if kind not in KINDS:
        raise ValueError(f"there is no such kind; there are {', '.join(KINDS)}")
    return kind


_Kind = Annotated[str, AfterValidator(_known_kind)]
_Severity = Annotated[float, Field(gt=0, le=1, allow_inf_nan=False)]
_Percent = Annotated[float, Field(ge=0, le=100, allow_inf_nan=False)]


class NewFault(_Body):
    """POST /v1/faults"""

    kind: _Kind
    node: str | None = None
    gpu: _Gpu | None = None
    rack: str | None = None
    severity: _Severity = 1.0
    onset: Literal["step", "creeping"] = "step"
    ramp_seconds: float = Field(600.0, gt=0, le=7 * 86_400, allow_inf_nan=False)
    recovery_seconds: float | None = Field(None, gt=0, le=7 * 86_400, allow_inf_nan=False)

    @model_validator(mode="after")
    def _right_part(self) -> Self:
        given = {name for name in ("node", "gpu", "rack") if getattr(self, name) is not None}
        wanted, words = _PARTS[KINDS[self.kind].part]
        if given != wanted:
            raise ValueError(f"{self.kind} befalls {words}")
        return self


_PARTS = {
    "gpu": ({"node", "gpu"}, "a GPU: give node and gpu"),
    "node": ({"node"}, "a node, not a GPU: give node"),
    "rack": ({"rack"}, "a rack: give rack"),
}


class NewChaos(_Body):
    """PUT /v1/chaos"""

    rates_percent_per_minute: list[_Percent] = Field(list(chaos.DEMO_PERCENT_PER_MINUTE), min_length=1)
    nodes: dict[str, _Percent] = Field(default_factory=dict)
    recovery_seconds: float = Field(chaos.RECOVERY_SECONDS, gt=0, le=86_400, allow_inf_nan=False)
    kinds: list[_Kind] = Field(list(KINDS), min_length=1)
    severity_min: _Severity = 0.5
    severity_max: _Severity = 1.0

    @model_validator(mode="after")
    def _in_order(self) -> Self:
        if self.severity_min > self.severity_max:
            raise ValueError(f"severity_min {self.severity_min} is above severity_max {self.severity_max}")
        return self


class Control:
    """The endpoints over one source."""

    def __init__(self, source: SyntheticSource) -> None:
        self.source = source
        self.fleet: Fleet = source.fleet

    def routes(self) -> list[Route]:
        """For `service.build`."""
        return [
            Route("/v1/nodes", self.list_nodes, methods=["GET"]),
            Route("/v1/nodes", self.add_node, methods=["POST"]),
            Route("/v1/nodes/{node}", self.remove_node, methods=["DELETE"]),
            Route("/v1/nodes/{node}/reset", self.reset_node, methods=["POST"]),
            Route("/v1/power-limits", self.list_limits, methods=["GET"]),
            Route("/v1/nodes/{node}/gpus/{gpu}/power-limit", self.limit_power, methods=["PUT"]),
            Route("/v1/loads", self.list_loads, methods=["GET"]),
            Route("/v1/loads", self.add_load, methods=["POST"]),
            Route("/v1/loads/{id}", self.get_load, methods=["GET"]),
            Route("/v1/loads/{id}", self.remove_load, methods=["DELETE"]),
            Route("/v1/kinds", self.list_kinds, methods=["GET"]),
            Route("/v1/faults", self.list_faults, methods=["GET"]),
            Route("/v1/faults", self.add_fault, methods=["POST"]),
            Route("/v1/faults/{id}", self.clear_fault, methods=["DELETE"]),
            Route("/v1/chaos", self.get_chaos, methods=["GET"]),
            Route("/v1/chaos", self.set_chaos, methods=["PUT"]),
            Route("/v1/chaos", self.end_chaos, methods=["DELETE"]),
            Route("/v1/truth", self.truth, methods=["GET"]),
        ]

    async def list_nodes(self, _: Request) -> Response:
        return JSONResponse({"nodes": [self._node(node) for node in self.fleet.nodes.values()]})

    async def add_node(self, request: Request) -> Response:
        body = await _given(NewNode, request)
        node = _tried(lambda: self.fleet.add_node(body.node, body.gpus, body.model))
        return JSONResponse(self._node(node), 201)

    async def remove_node(self, request: Request) -> Response:
        _tried(lambda: self.fleet.remove_node(request.path_params["node"]))
        self.source.changed()
        return Response(status_code=204)

    async def reset_node(self, request: Request) -> Response:
        """All that is wrong with the node alone is mended, also upkeep; what befell its rack stays."""
        mended = _tried(lambda: self.fleet.reset(request.path_params["node"]))
        self.source.changed()
        return JSONResponse({"mended": [self._fault(fault) for fault in mended]})

    async def list_limits(self, _: Request) -> Response:
        """Heat, draw and power limit of every GPU that is heard."""
        return JSONResponse({"gpus": [limit for node in self.fleet.nodes for limit in self._limits(node)]})

    async def limit_power(self, request: Request) -> Response:
        body = await _given(NewLimit, request)
        node, gpu = request.path_params["node"], request.path_params["gpu"]
        if not re.fullmatch("[0-9]{1,3}", gpu):
            raise HTTPException(404, f"there is no GPU {gpu!r}")
        _tried(lambda: self.fleet.limit_power(node, int(gpu), body.watts))
        return Response(status_code=204)

    async def list_loads(self, _: Request) -> Response:
        return JSONResponse({"loads": [_load(load) for load in self.fleet.loads.values()]})

    async def add_load(self, request: Request) -> Response:
        body = await _given(NewLoad, request)
        load = _tried(lambda: self.fleet.add_load(body.node, body.gpus, body.kind, body.utilization, body.job))
        return JSONResponse(_load(load), 201, headers={"Location": f"/v1/loads/{load.id}"})

    async def get_load(self, request: Request) -> Response:
        return JSONResponse(_load(_tried(lambda: self.fleet.load(request.path_params["id"]))))

    async def remove_load(self, request: Request) -> Response:
        _tried(lambda: self.fleet.remove_load(request.path_params["id"]))
        return Response(status_code=204)

    async def list_kinds(self, _: Request) -> Response:
        """What can be put on, and what each kind befalls."""
        return JSONResponse({"kinds": [{"kind": name, "part": kind.part} for name, kind in KINDS.items()]})

    async def list_faults(self, _: Request) -> Response:
        return JSONResponse({"faults": [self._fault(fault) for fault in self.fleet.faults.values()]})

    async def add_fault(self, request: Request) -> Response:
        body = await _given(NewFault, request)
        fault = _tried(lambda: self.fleet.add_fault(**body.model_dump()))
        return JSONResponse(self._fault(fault), 201, headers={"Location": f"/v1/faults/{fault.id}"})

    async def clear_fault(self, request: Request) -> Response:
        _tried(lambda: self.fleet.clear_fault(request.path_params["id"]))
        return Response(status_code=204)

    async def get_chaos(self, _: Request) -> Response:
        return JSONResponse(self._chaos())

    async def set_chaos(self, request: Request) -> Response:
        body = await _given(NewChaos, request)
        _tried(lambda: [self.fleet.node(node) for node in body.nodes])
        self.source.chaos.profile = Profile(
            body.rates_percent_per_minute,
            body.nodes,
            body.recovery_seconds,
            body.kinds,
            (body.severity_min, body.severity_max),
        )
        return JSONResponse(self._chaos())

    async def end_chaos(self, _: Request) -> Response:
        self.source.chaos.profile = None
        return Response(status_code=204)

    async def truth(self, _: Request) -> Response:
        return JSONResponse({"faults": [self._fault(fault) for fault in self.fleet.history]})

    def _node(self, node: Node) -> dict[str, object]:
        return {
            "node": node.place.node,
            "rack": node.place.rack,
            "switch": node.place.switch,
            "state": "down" if self.fleet.is_down(node.place.node) else "up",
            "gpus": [{"gpu": each.gpu, "uuid": each.uuid, "model": each.model} for each in node.gpus],
        }

    def _limits(self, name: str) -> Iterator[dict[str, object]]:
        limits = self.fleet.power_limits(name)
        for reading in self.fleet.readings(name):
            limit = limits[reading.identity.gpu]
            yield {
                "node": name,
                "gpu": reading.identity.gpu,
                "uuid": reading.identity.uuid,
                "temperature_celsius": reading.temperature_celsius,
                "power_watts": reading.power_watts,
                "limit_watts": limit.watts,
                "least_watts": limit.least_watts,
            }

    def _chaos(self) -> dict[str, object]:
        profile = self.source.chaos.profile
        if profile is None:
            return {"enabled": False}
        return {
            "enabled": True,
            "rates_percent_per_minute": self.source.chaos.rates(profile),
            "recovery_seconds": profile.recovery_seconds,
            "kinds": list(profile.kinds),
            "severity_min": profile.severity[0],
            "severity_max": profile.severity[1],
        }

    def _fault(self, fault: Fault) -> dict[str, object]:
        end = fault.end_seconds
        return {
            "id": fault.id,
            "kind": fault.kind,
            "node": fault.node,
            "gpu": fault.gpu,
            "rack": fault.rack,
            "severity": fault.severity,
            "onset": fault.onset,
            "ramp_seconds": fault.ramp_seconds if fault.onset == "creeping" else None,
            "recovery_seconds": fault.recovery_seconds,
            "start": self.source.at(fault.start_seconds).isoformat(),
            "end": None if end is None else self.source.at(end).isoformat(),
        }


def _load(load: Load) -> dict[str, object]:
    return {
        "id": load.id,
        "node": load.node,
        "gpus": list(load.gpus),
        "kind": load.kind,
        "utilization": load.utilization,
        "job": load.job,
        "state": load.state,
        "reason": load.reason,
    }


async def _given(model: type[Given], request: Request) -> Given:
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > _MOST_BYTES:
            raise HTTPException(413, f"the body is larger than {_MOST_BYTES} bytes")
    return model.model_validate_json(bytes(body) or b"{}")


def _tried(action: Callable[[], Result]) -> Result:
    try:
        return action()
    except NotFoundError as error:
        raise HTTPException(404, str(error)) from None
    except ConflictError as error:
        raise HTTPException(409, str(error)) from None
