"""The bearer token that guards the metrics when they can be reached from other machines."""

from __future__ import annotations

import hmac
import os
import secrets
from contextlib import suppress
from pathlib import Path

from starlette.datastructures import Headers
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

_PROBES = ("/livez", "/readyz")


class TokenError(Exception):
    """The token file cannot be used."""


def load(path: Path) -> str:
    """The token of this state folder; made there (mode 0600) by whichever process needs it first.

    It appears by link, whole: two processes that start at once agree. Raises TokenError.
    """
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            draft = path.with_name(f".{path.name}.{os.getpid()}")
            with open(os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
                file.write(secrets.token_urlsafe(32) + "\n")
            with suppress(FileExistsError):
                os.link(draft, path)
            draft.unlink()
        token = path.read_text().strip()
    except OSError as error:
        raise TokenError(f"cannot use the token file {path}: {error.strerror or error}") from error
    if not token:
        raise TokenError(f"the token file {path} is empty")
    return token


def is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


class BearerToken:
    """Answers 401 to whatever is not a probe and does not carry the token."""

    def __init__(self, app: ASGIApp, token: str) -> None:
        self._app = app
        self._token = token.encode()

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or scope["path"] in _PROBES or self._carried(scope):
            await self._app(scope, receive, send)
            return
        body = {
            "type": "about:blank",
            "title": "Unauthorized",
            "status": 401,
            "detail": "a bearer token is needed",
            "instance": scope["path"],
        }
        headers = {"WWW-Authenticate": "Bearer"}
        answer = JSONResponse(body, 401, headers=headers, media_type="application/problem+json")
        await answer(scope, receive, send)

    def _carried(self, scope: Scope) -> bool:
        scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self._token)
