"""The HTTP face that every kind of exporter has: nodes' pages, discovery, probes, and a page of links."""

import asyncio
import html
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Protocol

from prometheus_client import CollectorRegistry, GCCollector, PlatformCollector, ProcessCollector, generate_latest
from pydantic import ValidationError
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, PlainTextResponse, Response
from starlette.routing import BaseRoute, Route

from exporters import exposition, problem
from exporters.auth import BearerToken
from exporters.discovery import Place, targets

_HANG_SECONDS, _LOOK_SECONDS = 30.0, 0.25


class UnknownNodeError(LookupError):
    """No such node."""


class NodeDownError(Exception):
    """The node is known and does not answer."""


class NodeHangsError(Exception):
    """The node is known and would leave the asker waiting."""


class Source(Protocol):
    """Where readings come from."""

    def places(self) -> Sequence[Place]:
        """Every node, up or down, in a stable order."""

    def page(self, node: str) -> str:
        """The node's series. Raises `UnknownNodeError`, `NodeDownError` or `NodeHangsError`."""

    def about(self) -> str:
        """The source's series about itself, for `/metrics`."""

    def unready(self) -> str | None:
        """Why the source cannot be relied on now; None when it can."""

    async def run(self) -> None:
        """Keeps the source going until cancelled."""


def build(source: Source, *, token: str, open_reads: bool, routes: Sequence[BaseRoute] = (), title: str) -> Starlette:
    """The application. `routes` come on top (the synthetic fleet's control API)."""
    face = _Face(source, title)

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        task = asyncio.create_task(source.run())
        task.add_done_callback(face.stopped)
        yield
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    return Starlette(
        routes=[
            Route("/", face.index),
            Route("/livez", face.livez),
            Route("/readyz", face.readyz),
            Route("/metrics", face.metrics),
            Route("/discovery", face.discovery),
            Route("/nodes/{node}/metrics", face.node),
            *routes,
        ],
        middleware=[Middleware(BearerToken, token=token, open_reads=open_reads)],
        exception_handlers={
            HTTPException: problem.http_error,
            ValidationError: problem.validation_error,
            Exception: problem.server_error,
        },
        lifespan=lifespan,
    )


def _page(request: Request, text: str) -> Response:
    # DCGM's contract is the text format; OpenMetrics is for who takes nothing else.
    accepted = request.headers.get("accept", "*/*")
    if "openmetrics" in accepted and "text/" not in accepted and "*/*" not in accepted:
        return Response(exposition.openmetrics(text), media_type=exposition.OPEN_CONTENT_TYPE)
    return Response(text, media_type=exposition.CONTENT_TYPE)


async def _wait_out(request: Request) -> None:
    # Who asks must feel that nobody is there: no answer before every usual time limit is over.
    for _ in range(int(_HANG_SECONDS / _LOOK_SECONDS)):
        if await request.is_disconnected():
            return
        await asyncio.sleep(_LOOK_SECONDS)


class _Face:
    def __init__(self, source: Source, title: str) -> None:
        self.source = source
        self.title = title
        self.failure: str | None = None
        self.registry = CollectorRegistry()
        for collector in (ProcessCollector, PlatformCollector, GCCollector):
            collector(registry=self.registry)

    def stopped(self, task: asyncio.Task[None]) -> None:
        if not task.cancelled() and (error := task.exception()) is not None:
            self.failure = f"the source stopped: {error}"

    async def livez(self, _: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(self, request: Request) -> Response:
        reason = self.failure or self.source.unready()
        return PlainTextResponse("ok\n") if reason is None else problem.problem(request, 503, reason)

    async def metrics(self, request: Request) -> Response:
        return _page(request, generate_latest(self.registry).decode() + self.source.about())

    async def node(self, request: Request) -> Response:
        name = request.path_params["node"]
        try:
            return _page(request, self.source.page(name))
        except UnknownNodeError:
            raise HTTPException(404, f"there is no node {name!r}") from None
        except NodeDownError as error:
            raise HTTPException(503, str(error)) from None
        except NodeHangsError as error:
            await _wait_out(request)
            raise HTTPException(504, str(error)) from None

    async def discovery(self, request: Request) -> Response:
        address = request.headers.get("host") or "{}:{}".format(*request.scope["server"])
        return JSONResponse(targets(self.source.places(), address))

    async def index(self, _: Request) -> Response:
        links = ["/metrics", "/discovery", "/livez", "/readyz"]
        links += [f"/nodes/{place.node}/metrics" for place in self.source.places()]
        rows = "".join(f'<li><a href="{html.escape(link)}">{html.escape(link)}</a></li>' for link in links)
        title = html.escape(self.title)
        return HTMLResponse(
            f'<!doctype html><html lang="en"><meta charset="utf-8"><title>{title}</title>'
            f"<h1>{title}</h1><ul>{rows}</ul></html>"
        )
