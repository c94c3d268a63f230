"""The bearer token: made by whoever needs it first, kept in a file that only its owner reads."""

import hmac
import os
import secrets
import tempfile
from http.cookies import CookieError, SimpleCookie
from pathlib import Path

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from .api.problems import problem

COOKIE = "stethos"
#: A form on another site cannot send this header, so the cookie alone changes nothing.
CONSOLE_HEADER = "X-Stethos-Console"

#: Open to everybody, everywhere: the probes, and the two pages that lead to a login.
OPEN = frozenset({"/livez", "/readyz", "/login", "/"})


def token(path: Path) -> str:
    """The token in `path`, made there if there is none. Two that start at once agree on one."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if not path.exists():
        handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".token-")  # mode 0600
        try:
            with os.fdopen(handle, "w") as file:
                file.write(secrets.token_urlsafe(32) + "\n")
            os.link(temporary, path)
        except FileExistsError:
            pass
        finally:
            os.unlink(temporary)
    found = path.read_text().strip()
    if not found:
        raise ValueError(f"the token file {path} is empty; remove it and a new one is made")
    return found


def is_loopback(host: str) -> bool:
    return host in ("localhost", "::1") or host.startswith("127.")


class RequireToken:
    """ASGI middleware: /v1 always needs the token, everything else too once we listen beyond loopback."""

    def __init__(self, app: ASGIApp, token: str, loopback: bool) -> None:
        self._app = app
        self._token = token.encode()
        self._loopback = loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or self._may_pass(scope):
            await self._app(scope, receive, send)
            return
        detail = f"send 'Authorization: Bearer TOKEN'; with the console's cookie, changes need {CONSOLE_HEADER}: 1"
        answer = problem(401, detail, scope["path"], headers={"WWW-Authenticate": "Bearer"})
        await answer(scope, receive, send)

    def _may_pass(self, scope: Scope) -> bool:
        path: str = scope["path"]
        if path in OPEN or (self._loopback and not path.startswith("/v1")):
            return True
        headers = Headers(scope=scope)
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return self.knows(given.strip())
        same_site = scope["method"] in ("GET", "HEAD") or headers.get(CONSOLE_HEADER) == "1"
        return same_site and self.knows(cookie(headers))

    def knows(self, given: str) -> bool:
        return hmac.compare_digest(given.encode(), self._token)


def cookie(headers: Headers) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""
