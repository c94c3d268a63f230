"""What people open in a browser: the login link, the console, and the API's documentation."""

import json
from html import escape
from pathlib import Path
from string import Template
from typing import cast
from urllib.parse import parse_qs

from starlette.requests import Request
from starlette.responses import FileResponse, HTMLResponse, JSONResponse, RedirectResponse, Response

from .context import context
from .endpoint import Endpoint, read_body
from .guard import COOKIE, cookie
from .problems import Problem

CONSOLE = Path(__file__).parents[1] / "console"
MONTH_SECONDS = 30 * 86_400

#: The console says in itself what it may load; only its frame is said here.
UNFRAMED = {
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "frame-ancestors 'none'",
}
#: Pages that load nothing at all.
PLAIN = UNFRAMED | {
    "Content-Security-Policy": "default-src 'none'; style-src 'unsafe-inline'; base-uri 'none'; form-action 'self'; "
    "frame-ancestors 'none'"
}
LONGEST_TOKEN = 500

_STYLE = """<style>
body{font:16px/1.5 system-ui,sans-serif;max-width:56rem;margin:2rem auto;padding:0 1rem;color-scheme:light dark}
code{font-family:ui-monospace,monospace}summary{cursor:pointer;padding:.3rem 0}
details{border-bottom:1px solid #8884}pre{overflow:auto;background:#8882;padding:.6rem}b{font-family:ui-monospace}
</style>"""


async def login(request: Request) -> Response:
    """The link that `serve` prints: trades the token for a cookie, and leaves no token in the address bar."""
    if "token" not in request.query_params:
        return _locked(request)
    return await _log_in(request, request.query_params["token"])


async def log_in(request: Request) -> Response:
    """The form of the login page."""
    fields = parse_qs((await read_body(request)).decode(errors="replace"))
    return await _log_in(request, fields.get("token", [""])[0].strip())


async def _log_in(request: Request, token: str) -> Response:
    if len(token) > LONGEST_TOKEN or not await context(request).keys.find(token):
        return _locked(request, "That token is not valid here.")
    answer = RedirectResponse("/", 303, headers={"Referrer-Policy": "no-referrer", "Cache-Control": "no-store"})
    answer.set_cookie(COOKIE, token, max_age=MONTH_SECONDS, httponly=True, samesite="strict")
    return answer


async def console(request: Request) -> Response:
    if not await context(request).keys.find(cookie(request.headers)):
        return _locked(request)
    page = CONSOLE / "index.html"
    if not page.is_file():
        raise Problem(404, "this build has no console; the API is described at /docs")
    return FileResponse(page, headers={"Cache-Control": "no-cache", **UNFRAMED})


async def console_file(request: Request) -> Response:
    path = (CONSOLE / request.path_params["file"]).resolve()
    if not (path.is_relative_to(CONSOLE) and path.is_file()):
        raise Problem(404, f"the console has no file {request.path_params['file']!r}")
    return FileResponse(path, headers={"Cache-Control": "no-cache", **UNFRAMED})


def _locked(request: Request, wrong: str = "") -> Response:
    page = Template((CONSOLE / "login.html").read_text())
    text = page.substitute(wrong=wrong, where=escape(str(context(request).token_file)))
    return HTMLResponse(text, 401, PLAIN)


async def openapi(request: Request) -> Response:
    return JSONResponse(request.app.state.openapi)


async def docs(request: Request) -> Response:
    return HTMLResponse(request.app.state.docs, headers=PLAIN)


def render(document: dict[str, object]) -> str:
    """The OpenAPI document as one page that needs nothing else."""
    paths = cast("dict[str, dict[str, dict[str, object]]]", document["paths"])
    components = cast("dict[str, dict[str, dict[str, object]]]", document["components"])
    operations = "".join(
        f"<details><summary><b>{method.upper()} {escape(path)}</b> {escape(str(operation['summary']))}</summary>"
        f"{_described(operation)}</details>"
        for path, methods in paths.items()
        for method, operation in methods.items()
    )
    schemas = "".join(
        f'<details id="{escape(name)}"><summary><b>{escape(name)}</b></summary>{_json(schema)}</details>'
        for name, schema in components["schemas"].items()
    )
    return (
        f"<!doctype html><html lang=en><title>Stethos API</title>{_STYLE}<h1>Stethos scheduler API</h1>"
        "<p>Send <code>Authorization: Bearer TOKEN</code>. Errors are <code>application/problem+json</code>. "
        'The machine-readable form is <a href="/openapi.json">/openapi.json</a>.</p>'
        f"<h2>Operations</h2>{operations}<h2>Schemas</h2>{schemas}</html>"
    )


def _described(operation: dict[str, object]) -> str:
    shown = {key: operation[key] for key in ("parameters", "requestBody", "responses") if operation.get(key)}
    return _json(shown)


def _json(value: object) -> str:
    return f"<pre>{escape(json.dumps(value, indent=2, ensure_ascii=False))}</pre>"


ENDPOINTS = [
    Endpoint("GET", "/", console, "The console.", media_type="text/html", problems=(401, 404)),
    Endpoint("GET", "/console/{file:path}", console_file, "The console's files.", problems=(404,)),
    Endpoint(
        "GET", "/login", login, "Trade the token for a cookie.", status=303, media_type="text/html", problems=(401,)
    ),
    Endpoint(
        "POST",
        "/login",
        log_in,
        "The same, from the login page's form.",
        status=303,
        media_type="text/html",
        problems=(401, 408, 413),
    ),
    Endpoint("GET", "/openapi.json", openapi, "This API as OpenAPI 3.1."),
    Endpoint("GET", "/docs", docs, "This API, to read.", media_type="text/html"),
]
