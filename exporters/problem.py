"""Errors over HTTP, RFC 9457: `application/problem+json` for everything that goes wrong."""

from collections.abc import Mapping, Sequence
from http import HTTPStatus

import structlog
from pydantic import ValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse

log = structlog.get_logger()

_LONGEST = 300  # characters of a sentence; whoever sends a megabyte need not get it back
_MOST_FIELDS = 20


def problem(
    request: Request,
    status: int,
    detail: str,
    *,
    errors: Sequence[Mapping[str, str]] = (),
    headers: Mapping[str, str] | None = None,
) -> JSONResponse:
    """One problem document; `errors` lists the single fields that were refused."""
    body: dict[str, object] = {
        "type": "about:blank",
        "title": HTTPStatus(status).phrase,
        "status": status,
        "detail": shortened(detail, _MOST_FIELDS * _LONGEST if errors else _LONGEST),
        "instance": shortened(request.url.path),
    }
    if errors:
        body["errors"] = list(errors)
    return JSONResponse(body, status, headers=headers, media_type="application/problem+json")


def shortened(text: str, longest: int = _LONGEST) -> str:
    """The text, or as much of it as fits."""
    return text if len(text) <= longest else text[:longest] + "…"


async def http_error(request: Request, error: Exception) -> JSONResponse:
    """404, 405 and whatever a handler raised as `HTTPException`."""
    assert isinstance(error, HTTPException)
    detail = error.detail
    if error.status_code == 404 and detail == HTTPStatus.NOT_FOUND.phrase:
        detail = f"there is nothing at {request.url.path}"
    if error.status_code == 405:
        detail = f"{request.method} is not allowed at {request.url.path}"
    return problem(request, error.status_code, detail, headers=error.headers)


async def validation_error(request: Request, error: Exception) -> JSONResponse:
    """A body that is not what the endpoint takes; every refused field is named with its value."""
    assert isinstance(error, ValidationError)
    errors = [
        {
            "field": shortened(".".join(map(str, each["loc"])) or "body"),
            "detail": shortened(_sentence(each["msg"], each["input"])),
        }
        for each in error.errors(include_url=False, include_context=False)[:_MOST_FIELDS]
    ]
    detail = "; ".join(f"{each['field']}: {each['detail']}" for each in errors)
    return problem(request, 422, detail, errors=errors)


async def server_error(request: Request, error: Exception) -> JSONResponse:
    """What nobody foresaw: logged in full here, told in general there."""
    log.error("request failed", path=request.url.path, error=repr(error))
    return problem(request, 500, "the exporter failed to answer; its log says why")


def _sentence(message: str, given: object) -> str:
    message = message.removeprefix("Value error, ")
    return f"{message} (given: {given!r})" if isinstance(given, str | int | float) else message
