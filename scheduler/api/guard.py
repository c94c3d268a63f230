"""Nobody passes without a token: the middleware before all endpoints."""

from http.cookies import CookieError, SimpleCookie

from starlette.datastructures import Headers
from starlette.types import ASGIApp, Receive, Scope, Send

from ..auth import Keys, Principal
from .problems import problem

COOKIE = "stethos"
#: A form on another site cannot send this header, so the cookie alone changes nothing.
CONSOLE_HEADER = "X-Stethos-Console"

HOW_TO_ASK = f"send 'Authorization: Bearer TOKEN'; with the console's cookie, changes need {CONSOLE_HEADER}: 1"

#: Open to everybody, everywhere: the probes, and the two pages that lead to a login.
OPEN = frozenset({"/livez", "/readyz", "/login", "/"})


class RequireToken:
    """ASGI middleware: /v1 always needs a token, everything else too once we listen beyond loopback.

    Whom it belongs to stands in the connection's state; the endpoints look at the scopes.
    """

    def __init__(self, app: ASGIApp, keys: Keys, loopback: bool) -> None:
        self._app = app
        self._keys = keys
        self._loopback = loopback

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and self._is_guarded(scope["path"]):
            principal = await self._principal(scope)
            if principal is None:
                answer = problem(401, HOW_TO_ASK, scope["path"], headers={"WWW-Authenticate": "Bearer"})
                await answer(scope, receive, send)
                return
            scope.setdefault("state", {})["principal"] = principal
        await self._app(scope, receive, send)

    def _is_guarded(self, path: str) -> bool:
        return path not in OPEN and (path.startswith("/v1") or not self._loopback)

    async def _principal(self, scope: Scope) -> Principal | None:
        headers = Headers(scope=scope)
        scheme, _, given = headers.get("authorization", "").partition(" ")
        if scheme.lower() == "bearer":
            return await self._keys.find(given.strip())
        same_site = scope["method"] in ("GET", "HEAD") or headers.get(CONSOLE_HEADER) == "1"
        return await self._keys.find(cookie(headers)) if same_site else None


def cookie(headers: Headers) -> str:
    try:
        found = SimpleCookie(headers.get("cookie", "")).get(COOKIE)
    except CookieError:
        return ""
    return found.value if found else ""
