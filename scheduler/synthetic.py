"""The control API of a synthetic fleet: its faults and its nodes. The server's only way to it."""

from typing import TypeVar
from urllib.parse import quote

import httpx
from pydantic import BaseModel, TypeAdapter, ValidationError


class FleetUnavailableError(Exception):
    """The synthetic fleet does not answer, or not as one."""


class FleetRefusalError(Exception):
    """The synthetic fleet says no. `status`: HTTP's, 404, 409 or 422."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class Kind(BaseModel):
    """A kind of fault, and what it befalls: a gpu, a node or a rack."""

    kind: str
    part: str


class Fault(BaseModel):
    """A fault that is on. `node` and `gpu` are None where it befalls more than one of them."""

    id: str
    kind: str
    node: str | None
    gpu: int | None
    rack: str | None
    severity: float
    onset: str
    start: str


T = TypeVar("T")

_KINDS = TypeAdapter(dict[str, list[Kind]])
_FAULTS = TypeAdapter(dict[str, list[Fault]])


class SyntheticFleet:
    """Raises FleetRefusalError and FleetUnavailableError."""

    def __init__(self, url: str, token: str) -> None:
        headers = {"Authorization": f"Bearer {token}"}
        self._http = httpx.AsyncClient(base_url=url.rstrip("/"), headers=headers, timeout=5)

    async def kinds(self) -> list[Kind]:
        answer = await self._ask("GET", "/v1/kinds")
        return _read(_KINDS, answer)["kinds"]

    async def faults(self) -> list[Fault]:
        """Those that are on now."""
        answer = await self._ask("GET", "/v1/faults")
        return _read(_FAULTS, answer)["faults"]

    async def inject(self, wanted: BaseModel) -> Fault:
        answer = await self._ask("POST", "/v1/faults", wanted)
        return _read(TypeAdapter(Fault), answer)

    async def clear(self, fault: str) -> None:
        await self._ask("DELETE", f"/v1/faults/{quote(fault, safe='')}")

    async def add_node(self, wanted: BaseModel) -> None:
        await self._ask("POST", "/v1/nodes", wanted)

    async def remove_node(self, node: str) -> None:
        await self._ask("DELETE", f"/v1/nodes/{quote(node, safe='')}")

    async def reset(self, node: str) -> None:
        """Mend all that is wrong with a node alone."""
        await self._ask("POST", f"/v1/nodes/{quote(node, safe='')}/reset")

    async def close(self) -> None:
        await self._http.aclose()

    async def _ask(self, method: str, path: str, body: BaseModel | None = None) -> bytes:
        content = body.model_dump_json(exclude_none=True) if body else None
        try:
            answer = await self._http.request(method, path, content=content)
        except httpx.HTTPError as error:
            raise FleetUnavailableError(f"the synthetic fleet does not answer: {error!r}") from error
        if answer.is_success:
            return answer.content
        detail = _detail(answer)
        if answer.status_code in (404, 409, 422):
            raise FleetRefusalError(answer.status_code, detail)
        raise FleetUnavailableError(f"the synthetic fleet answered {answer.status_code}: {detail}")


class _Refusal(BaseModel):
    detail: str


def _detail(answer: httpx.Response) -> str:
    try:
        return _Refusal.model_validate_json(answer.content).detail
    except ValidationError:
        return answer.text[:200]


def _read(model: TypeAdapter[T], text: bytes) -> T:
    try:
        return model.validate_json(text)
    except ValidationError as error:
        raise FleetUnavailableError(f"an answer that is no synthetic fleet's: {error.errors()[0]['msg']}") from error
