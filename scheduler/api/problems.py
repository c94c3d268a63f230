"""Errors as RFC 9457 problem documents."""

import http
import re
from collections.abc import Mapping, Sequence

import structlog
from pydantic import ValidationError
from pydantic_core import ErrorDetails
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

log = structlog.get_logger()

#: When to come back, in seconds.
RETRY_SECONDS = 2

MEDIA_TYPE = "application/problem+json"

#: How pydantic calls one of several types that a value may have; there is no such place in the body.
_CHOICE = re.compile(r"constrained-\w+|list\[\w+\]")


class Problem(Exception):  # noqa: N818 - it is RFC 9457's word
    """What a handler raises to answer with a problem document."""

    def __init__(
        self,
        status: int,
        detail: str,
        errors: Sequence[Mapping[str, str]] = (),
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.headers = headers
        self.status = status
        self.detail = detail
        self.errors = errors


def problem(
    status: int,
    detail: str,
    instance: str,
    errors: Sequence[Mapping[str, str]] = (),
    headers: Mapping[str, str] | None = None,
) -> Response:
    content: dict[str, object] = {
        "type": "about:blank",
        "title": http.HTTPStatus(status).phrase,
        "status": status,
        "detail": detail,
        "instance": instance,
    }
    if errors:
        content["errors"] = list(errors)
    return JSONResponse(content, status, headers, media_type=MEDIA_TYPE)


def from_validation(error: ValidationError, what: str, under: str = "") -> Problem:
    """One pointer (RFC 6901) and one sentence for each thing that is wrong."""
    errors = [
        {
            "pointer": under + "".join(f"/{_escape(step)}" for step in item["loc"] if not _CHOICE.fullmatch(str(step))),
            "detail": _sentence(item),
        }
        for item in error.errors()
    ]
    first = errors[0]
    where = f"{first['pointer']}: " if first["pointer"] else ""
    return Problem(422, f"{what} is not valid: {where}{first['detail']}", errors)


def _escape(step: int | str) -> str:
    return str(step).replace("~", "~0").replace("/", "~1")


def _sentence(error: ErrorDetails) -> str:
    if error["type"] == "value_error":  # our own, which says it all
        return error["msg"].removeprefix("Value error, ")
    shown = repr(error["input"])
    return f"{error['msg']}, not {shown if len(shown) <= 80 else shown[:77] + '...'}"


async def on_problem(request: Request, error: Exception) -> Response:
    assert isinstance(error, Problem)
    return problem(error.status, error.detail, request.url.path, error.errors, error.headers)


async def on_unavailable(request: Request, error: Exception) -> Response:
    """Not now: the database is away, or the queue is full. Nothing was changed, and trying again is right."""
    log.warning("refused for now", method=request.method, path=request.url.path, detail=str(error))
    return problem(503, str(error), request.url.path, headers={"Retry-After": str(RETRY_SECONDS)})


async def on_http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    details = {
        404: f"there is nothing at {request.url.path}",
        405: f"{request.method} is not possible at {request.url.path}",
    }
    detail = details.get(error.status_code, error.detail)
    return problem(error.status_code, detail, request.url.path, headers=error.headers)


async def on_crash(request: Request, error: Exception) -> Response:
    log.error("a request failed", method=request.method, path=request.url.path, exc_info=error)
    return problem(500, "something went wrong here; the server's log says what", request.url.path)
