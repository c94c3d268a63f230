"""All nodes of a synthetic fleet in one process.

On a synthetic GPU there is nothing to compute with: a job is represented by a load of its kind on its
GPUs, for its duration. What the load does to power, heat and clocks is the exporter's physics.
"""

import asyncio
import random
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import httpx
import structlog
from pydantic import BaseModel, ValidationError

from .client import Device, Ending, NodeDescription, Report, Start
from .cooling import Card, LimitError

log = structlog.get_logger()

POLL_SECONDS = 1.0
NODES_SECONDS = 2.0
#: The exporter may be away for so long before the jobs on it count as lost.
PATIENCE_SECONDS = 15.0
SECONDS = 30.0


@dataclass(frozen=True, slots=True)
class Kind:
    """The load that stands for a type of job."""

    kind: str
    utilization: float


KINDS: Mapping[str, Kind] = {
    "sleep": Kind("sleep", 0.0),
    "compute": Kind("compute", 0.8),
    "matrix": Kind("matrix", 0.95),
    "fault": Kind("compute", 0.6),
}


class _Gpu(BaseModel):
    gpu: int
    uuid: str | None = None
    model: str | None = None


class _Node(BaseModel):
    node: str
    rack: str | None = None
    state: str
    gpus: list[_Gpu]


class _Nodes(BaseModel):
    nodes: list[_Node]


class _Load(BaseModel):
    id: str | int
    state: str
    reason: str | None = None
    job: str | None = None


class _Loads(BaseModel):
    loads: list[_Load]


class _Limit(BaseModel):
    node: str
    gpu: int
    uuid: str
    temperature_celsius: float | None
    power_watts: float | None
    limit_watts: float
    least_watts: float


class _Limits(BaseModel):
    gpus: list[_Limit]


class LostError(Exception):
    """The machine, not the job, failed."""


class Synthetic:
    def __init__(self, url: str, token: str, random: random.Random) -> None:
        self._http = httpx.AsyncClient(
            base_url=url.rstrip("/"), headers={"Authorization": f"Bearer {token}"}, timeout=5
        )
        self._random = random
        self._nodes: list[NodeDescription] = []
        self._known: set[str] = set()
        self._gone: set[str] = set()
        self._asked_at = float("-inf")
        self._answers = True
        self._swept = False
        self._loads: dict[str | int, _Load] = {}
        self._loads_at = float("-inf")
        self._looking = asyncio.Lock()

    async def nodes(self) -> Sequence[NodeDescription]:
        """The nodes that are up; the last ones known while the exporter does not answer."""
        loop = asyncio.get_running_loop()
        if loop.time() - self._asked_at < NODES_SECONDS:
            return self._nodes
        self._asked_at = loop.time()
        try:
            found = _Nodes.model_validate_json((await self._get("/v1/nodes")).content).nodes
            if not self._swept:
                await self._sweep()
        except (httpx.HTTPError, ValidationError) as error:
            if self._answers:
                log.warning("the synthetic fleet does not answer", detail=str(error)[:300] or repr(error))
            self._answers = False
            return self._nodes
        self._answers = True
        names = {node.node for node in found}
        self._gone |= self._known - names
        self._known = names
        self._nodes = [
            NodeDescription(
                node.node,
                node.rack,
                "synthetic",
                tuple(Device(gpu.gpu, gpu.uuid, gpu.model) for gpu in node.gpus),
            )
            for node in found
            if node.state == "up"
        ]
        return self._nodes

    async def gone(self) -> Sequence[str]:
        gone, self._gone = sorted(self._gone), set()
        return gone

    async def adopt(self) -> Sequence[Start]:
        return []

    async def settle(self, attempt: Start) -> None:
        return None

    async def execute(self, attempt: Start) -> Report:
        if attempt.type == "command":
            return Report(Ending.FAILED, f"{attempt.node} is synthetic and runs no commands")
        kind = KINDS[attempt.type]
        body = {
            "node": attempt.node,
            "gpus": attempt.gpus,
            "kind": kind.kind,
            "utilization": kind.utilization,
            "job": attempt.job,
        }
        try:
            answer = await self._http.post("/v1/loads", json=body)
            if answer.is_error:
                return Report(Ending.INFRASTRUCTURE, f"the load was refused: {_detail(answer)}")
            load = _Load.model_validate_json(answer.content).id
        except (httpx.HTTPError, ValidationError) as error:
            return Report(Ending.INFRASTRUCTURE, f"the load could not be started: {error!r}")
        try:
            return await self._watch(load, attempt)
        except LostError as error:
            return Report(Ending.INFRASTRUCTURE, str(error))
        finally:
            await self._end(load)

    async def close(self) -> None:
        await self._http.aclose()

    async def _watch(self, load: str | int, attempt: Start) -> Report:
        whole = SECONDS if attempt.duration_seconds is None else attempt.duration_seconds
        if attempt.type != "fault":
            await self._carry(load, whole)
            return Report(Ending.SUCCEEDED, None, {"seconds": whole})
        after = min(_number(attempt.parameters.get("after_seconds"), whole / 2), whole)
        await self._carry(load, after)
        if self._random.random() < _number(attempt.parameters.get("probability"), 1.0):
            return Report(Ending.FAILED, f"failed as told after {after:g} s")
        await self._carry(load, whole - after)
        return Report(Ending.SUCCEEDED, None, {"seconds": whole})

    async def _carry(self, load: str | int, seconds: float) -> None:
        """Let the load run. Raises LostError when it is interrupted."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while (left := end - loop.time()) > 0:
            await asyncio.sleep(min(POLL_SECONDS, left))
            await self._look(load)

    async def _look(self, load: str | int) -> None:
        loop = asyncio.get_running_loop()
        async with self._looking:  # one list serves all loads that are watched
            if loop.time() - self._loads_at >= POLL_SECONDS / 2:
                try:
                    found = _Loads.model_validate_json((await self._get("/v1/loads")).content).loads
                    self._loads = {each.id: each for each in found}
                    self._loads_at = loop.time()
                except (httpx.HTTPError, ValidationError) as error:
                    if loop.time() - self._loads_at > PATIENCE_SECONDS:
                        raise LostError("the synthetic fleet does not answer") from error
                    return
        known = self._loads.get(load)
        if known is None:
            raise LostError("the load is gone: the fleet was started anew")
        if known.state == "interrupted":
            raise LostError(known.reason or "gpu off the bus")

    async def _sweep(self) -> None:
        """End the loads of an earlier agent, whose jobs are queued again by now."""
        for load in _Loads.model_validate_json((await self._get("/v1/loads")).content).loads:
            if load.job and load.job.startswith("job-"):
                await self._end(load.id)
        self._swept = True

    async def _end(self, load: str | int) -> None:
        try:
            await self._http.delete(f"/v1/loads/{load}")
        except httpx.HTTPError as error:
            log.warning("a load could not be ended", load=load, detail=repr(error))

    async def _get(self, path: str) -> httpx.Response:
        return (await self._http.get(path)).raise_for_status()


class SyntheticCards:
    """The power limits of all GPUs of a synthetic fleet."""

    def __init__(self, url: str, token: str) -> None:
        self._http = httpx.AsyncClient(
            base_url=url.rstrip("/"), headers={"Authorization": f"Bearer {token}"}, timeout=5
        )

    async def read(self) -> Sequence[Card]:
        try:
            answer = (await self._http.get("/v1/power-limits")).raise_for_status()
            known = _Limits.model_validate_json(answer.content).gpus
        except (httpx.HTTPError, ValidationError) as error:
            raise LimitError(f"the synthetic fleet does not tell its power limits: {error!r}") from error
        return [
            Card(
                each.node,
                each.gpu,
                each.uuid,
                each.temperature_celsius,
                each.power_watts,
                each.limit_watts,
                each.least_watts,
            )
            for each in known
            if each.temperature_celsius is not None and each.power_watts is not None
        ]

    async def limit(self, card: Card, watts: float) -> None:
        path = f"/v1/nodes/{card.node}/gpus/{card.gpu}/power-limit"
        try:
            answer = await self._http.put(path, json={"watts": watts})
        except httpx.HTTPError as error:
            raise LimitError(f"the synthetic fleet does not answer: {error!r}") from error
        if answer.is_error:
            raise LimitError(_detail(answer))

    async def close(self) -> None:
        await self._http.aclose()


def _number(value: object, default: float) -> float:
    return float(value) if isinstance(value, int | float) else default


def _detail(answer: httpx.Response) -> str:
    try:
        return str(answer.json()["detail"])
    except (ValueError, KeyError, TypeError):
        return f"{answer.status_code} {answer.text[:200]}"
