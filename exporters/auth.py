"""The bearer token: made once per state folder, by whichever process needs it first, then only read."""

import hmac
import os
import secrets
from contextlib import suppress
from pathlib import Path

from starlette.datastructures import Headers
from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from exporters.problem import problem

PROBES = ("/livez", "/readyz")


class TokenError(Exception):
    """The token file cannot be used."""


def load(path: Path) -> str:
    """The token in `path`, made there (mode 0600) if missing.

    Two processes that start at once agree: the file appears by link, whole, and the first one wins.
    Raises `TokenError` when the file is empty or cannot be read or made.
    """
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            fresh = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
            handle = os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
            with os.fdopen(handle, "w") as file:
                file.write(secrets.token_urlsafe(32) + "\n")
            with suppress(FileExistsError):
                os.link(fresh, path)
            fresh.unlink()
        token = path.read_text().strip()
    except OSError as error:
        raise TokenError(f"cannot use the token file {path}: {error.strerror or error}") from error
    if not token:
        raise TokenError(f"the token file {path} is empty")
    return token


def is_loopback(host: str) -> bool:
    """Whether a bind address is reachable from this machine only."""
    return host in ("localhost", "::1") or host.startswith("127.")


class BearerToken:
    """Lets a request through when it is a probe, an open read, or carries the token; else answers 401."""

    def __init__(self, app: ASGIApp, token: str, open_reads: bool) -> None:
        self.app = app
        self.expected = token.encode()
        self.open_reads = open_reads

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._is_open(scope["path"]) or self._carries_token(scope):
            await self.app(scope, receive, send)
            return
        answer = problem(Request(scope), 401, "a bearer token is needed", headers={"WWW-Authenticate": "Bearer"})
        await answer(scope, receive, send)

    def _is_open(self, path: str) -> bool:
        return path in PROBES or (self.open_reads and path != "/v1" and not path.startswith("/v1/"))

    def _carries_token(self, scope: Scope) -> bool:
        scheme, _, given = Headers(scope=scope).get("authorization", "").partition(" ")
        return scheme.lower() == "bearer" and hmac.compare_digest(given.strip().encode(), self.expected)
