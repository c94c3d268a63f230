"""The scheduler's API as an agent uses it."""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path

import httpx
from pydantic import BaseModel, JsonValue


class Ending(StrEnum):
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    INFRASTRUCTURE = "infrastructure"
    STOPPED = "stopped"


class Start(BaseModel):
    """An attempt to begin."""

    fence: int
    node: str
    gpus: list[int]
    job: str
    name: str
    type: str
    timeout_seconds: float
    duration_seconds: float | None
    parameters: dict[str, JsonValue]


class Stop(BaseModel):
    node: str
    fence: int


class Orders(BaseModel):
    start: list[Start]
    stop: list[Stop]
    unknown: list[str]


@dataclass(frozen=True, slots=True)
class Device:
    gpu: int
    uuid: str | None = None
    model: str | None = None


@dataclass(frozen=True, slots=True)
class NodeDescription:
    name: str
    rack: str | None
    kind: str
    gpus: tuple[Device, ...]


@dataclass(frozen=True, slots=True)
class Report:
    ending: Ending
    reason: str | None = None
    result: Mapping[str, JsonValue] | None = None


@dataclass(frozen=True, slots=True)
class Cooled:
    """A GPU whose power limit is lowered, and how hot it was then."""

    gpu: int
    limit_watts: float
    usual_watts: float
    celsius: float


class RefusedError(Exception):
    """The scheduler answered, and said no."""


class Scheduler:
    """Raises httpx.TransportError when it cannot be reached, RefusedError when it refuses."""

    def __init__(self, url: str, token: str) -> None:
        self._http = httpx.AsyncClient(
            base_url=url.rstrip("/"), headers={"Authorization": f"Bearer {token}"}, timeout=10
        )

    async def register(self, node: NodeDescription) -> None:
        gpus = [{"gpu": gpu.gpu, "uuid": gpu.uuid, "model": gpu.model} for gpu in node.gpus]
        body = {"node": node.name, "rack": node.rack, "kind": node.kind, "gpus": gpus}
        _check(await self._http.post("/v1/nodes", json=body))

    async def remove(self, node: str) -> None:
        answer = await self._http.delete(f"/v1/nodes/{node}", params={"force": "true"})
        if answer.status_code != 404:
            _check(answer)

    async def heartbeat(
        self, held: Mapping[str, Iterable[int]], wait_seconds: float, cooled: Mapping[str, list[Cooled]]
    ) -> Orders:
        """`cooled`: of each node the GPUs whose power limit is lowered now."""
        nodes = [
            {"node": node, "attempts": sorted(fences), "cooled": [asdict(gpu) for gpu in cooled.get(node, ())]}
            for node, fences in held.items()
        ]
        body = {"nodes": nodes, "wait_seconds": wait_seconds}
        return Orders.model_validate_json(_check(await self._http.post("/v1/heartbeats", json=body)).content)

    async def leave(self, nodes: Iterable[str]) -> None:
        """Nothing runs there any more, and nothing more is wanted."""
        known = [{"node": node, "attempts": []} for node in nodes]
        _check(await self._http.post("/v1/heartbeats", json={"nodes": known, "leaving": True}))

    async def report(self, attempt: Start, report: Report) -> bool:
        """False when it came too late: the attempt is over."""
        body = {"node": attempt.node, "outcome": report.ending, "reason": report.reason, "result": report.result}
        answer = await self._http.post(f"/v1/attempts/{attempt.fence}/report", json=body)
        if answer.status_code == 409:
            return False
        _check(answer)
        return True

    async def close(self) -> None:
        await self._http.aclose()


def _check(answer: httpx.Response) -> httpx.Response:
    if answer.is_success:
        return answer
    if answer.status_code >= 500:
        raise httpx.RemoteProtocolError(f"{answer.request.url.path} answered {answer.status_code}")
    raise RefusedError(f"{answer.request.method} {answer.request.url.path}: {answer.status_code} {answer.text[:300]}")


def read_token(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError as error:
        raise RefusedError(f"no token in {path}: {error.strerror}; start the scheduler first") from error
