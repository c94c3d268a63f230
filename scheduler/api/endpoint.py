"""One declaration per endpoint: the routes and the OpenAPI document both come from it."""

import asyncio
import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, ConfigDict, ValidationError
from starlette.convertors import Convertor, register_url_convertor
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from ..auth import Scope
from .context import principal
from .problems import Problem, from_validation

BODY_LIMIT = 1 << 20
BODY_SECONDS = 30.0

B = TypeVar("B", bound=BaseModel)
M = TypeVar("M", bound=BaseModel)

Handler = Callable[[Request], Awaitable[Response]]


class Number(Convertor[int]):
    """`{gpu:number}` in a path: as many digits as a database takes, and Python reads."""

    regex = "[0-9]{1,18}"

    def convert(self, value: str) -> int:
        return int(value)

    def to_string(self, value: int) -> str:
        return str(value)


register_url_convertor("number", Number())


class Body(BaseModel):
    """What clients send: unknown fields, NaN and values of another type are errors."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, strict=True, frozen=True)


def _shown(text: str) -> str:
    if not text.strip() or re.search(r"[\x00-\x1f\x7f-\x9f]", text):
        raise ValueError(f"{text[:80]!r} is blank, or has control characters in it")
    return text


#: What people read: one line of text.
Text = Annotated[str, AfterValidator(_shown)]


class Parameters(BaseModel):
    """A query string, which has only text in it; unknown parameters are errors too."""

    model_config = ConfigDict(extra="forbid", allow_inf_nan=False, frozen=True)


class Answer(BaseModel):
    model_config = ConfigDict(frozen=True)


@dataclass(frozen=True, slots=True)
class Endpoint:
    """A path, a method, and what goes in and comes out."""

    method: str
    path: str
    handler: Handler
    summary: str
    status: int = 200
    query: type[Parameters] | None = None
    body: type[BaseModel] | None = None
    answer: type[BaseModel] | None = None
    media_type: str = "application/json"
    headers: Mapping[str, str] | None = None
    #: Statuses of the problems it answers with, beside 401, 413 and 422.
    problems: tuple[int, ...] = ()

    #: What a token must allow, beside the addresses that are open. Reading, unless said otherwise.
    scope: Scope = Scope.READ

    def route(self) -> Route:
        return Route(self.path, self._guarded, methods=[self.method], name=f"{self.method} {self.path}")

    async def _guarded(self, request: Request) -> Response:
        who = principal(request)
        if who and self.scope not in who.scopes:
            challenge = {"WWW-Authenticate": f'Bearer error="insufficient_scope", scope="{self.scope}"'}
            raise Problem(403, f"the token {who.name!r} lacks the scope {self.scope}", headers=challenge)
        return await self.handler(request)


async def read_body(request: Request) -> bytes:
    """The body, refused as soon as it is too large or too slow."""
    body = bytearray()
    try:
        async with asyncio.timeout(BODY_SECONDS):
            async for chunk in request.stream():
                body += chunk
                if len(body) > BODY_LIMIT:
                    raise Problem(413, f"the body is larger than {BODY_LIMIT} bytes")
    except TimeoutError as error:
        raise Problem(408, f"the body did not come within {BODY_SECONDS:g} s") from error
    except ClientDisconnect as error:
        raise Problem(400, f"the client left after {len(body)} bytes of the body") from error
    return bytes(body)


async def parse(request: Request, model: type[B]) -> B:
    """The body as `model`; a Problem says what is wrong with it."""
    try:
        return model.model_validate_json(await read_body(request))
    except ValidationError as error:
        raise from_validation(error, "the body") from error


def parse_query(request: Request, model: type[M]) -> M:
    try:
        return model.model_validate(dict(request.query_params))
    except ValidationError as error:
        raise from_validation(error, "the query") from error


def answer(model: BaseModel, status: int = 200, headers: Mapping[str, str] | None = None) -> Response:
    return Response(model.model_dump_json(), status, headers, media_type="application/json")
