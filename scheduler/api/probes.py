"""What machines ask: is it alive, is it ready, how is it doing."""

from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from ..exposition import CONTENT_TYPE
from ..store import UnavailableError
from .context import context
from .endpoint import Endpoint
from .problems import Problem

#: Placement passes come every second; after so long without one something is wrong.
FRESH_SECONDS = 10.0


async def livez(request: Request) -> Response:
    return PlainTextResponse("ok\n")


async def readyz(request: Request) -> Response:
    at = context(request)
    try:
        await at.queue.store.check()
    except UnavailableError as error:
        raise Problem(503, f"the database cannot be written: {error}") from error
    if at.cycle.idle_seconds > FRESH_SECONDS:
        raise Problem(503, f"no placement pass for {at.cycle.idle_seconds:.0f} s")
    return PlainTextResponse("ok\n")


async def metrics(request: Request) -> Response:
    at = context(request)
    return Response(at.metrics.expose(await at.fleet()), headers={"Content-Type": CONTENT_TYPE})


ENDPOINTS = [
    Endpoint("GET", "/livez", livez, "The process answers.", media_type="text/plain"),
    Endpoint(
        "GET",
        "/readyz",
        readyz,
        "The store can be written and placement is running.",
        media_type="text/plain",
        problems=(503,),
    ),
    Endpoint("GET", "/metrics", metrics, "Metrics for Prometheus.", media_type="text/plain"),
]
