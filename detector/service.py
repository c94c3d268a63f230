"""The detector as a service: a tick every step, and the metrics over HTTP."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime

import structlog
from apscheduler.schedulers.background import BackgroundScheduler
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
from prometheus_client.process_collector import ProcessCollector
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.middleware import Middleware
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route

from detector import stages
from detector.auth import BearerToken
from detector.exposition import STALE_STEPS, DetectorCollector, LifeCollector, Page
from detector.feed import Feed
from detector.fleet import Fleet
from detector.lifecycle import LifeCycle
from detector.promql import PrometheusError
from detector.remote_write import MOST_BYTES, PushError
from detector.state import Snapshot

log = structlog.get_logger()


class Service:
    """Runs the ticks and keeps the newest snapshot."""

    def __init__(
        self, fleet: Fleet, step: float, life: LifeCycle | None = None, clock: Callable[[], float] = time.time
    ) -> None:
        self.life = life
        self._clock = clock
        self.snapshot: Snapshot | None = None
        self._fleet = fleet
        self._step = step
        self._failing: str | None = None
        self._page = Page()
        self._findings = b""
        self.registry = CollectorRegistry()
        self.registry.register(DetectorCollector(lambda: self.snapshot, self._fresh, fleet.counts))
        self.registry.register(LifeCollector(fleet, life))
        ProcessCollector(registry=self.registry)

    def tick(self) -> None:
        """One look at the fleet. A failure is logged when it begins and when it ends, and counted each time."""
        stages.taken()
        try:
            self.publish(self._fleet.tick(self._clock()))
            if self.life:
                self.life.review()
        except PrometheusError as error:
            self._fleet.counts.ticks["failed"] += 1
            if self._failing is None:
                log.error("no telemetry", error=str(error))
            self._failing = str(error)
        except Exception as error:
            # Nothing that goes wrong in one look may end the watch: it is told, counted, and shows as unready.
            self._fleet.counts.ticks["failed"] += 1
            log.exception("the look at the fleet failed")
            self._failing = repr(error)
        else:
            self._fleet.counts.ticks["ok"] += 1
            self._fleet.counts.seconds = stages.taken()
            if self._failing is not None:
                log.info("telemetry is back")
            self._failing = None

    def publish(self, snapshot: Snapshot) -> None:
        """Make this the newest snapshot."""
        with stages.stage("publish"):
            findings = self._page.write(snapshot)
        self.snapshot, self._findings = snapshot, findings

    def metrics(self) -> bytes:
        """The page: what is known of the fleet while it is fresh, and the detector's own state always."""
        return generate_latest(self.registry) + (self._findings if self._fresh() else b"")

    def unready(self) -> str | None:
        """Why the scores cannot be relied on; None when they can."""
        if self._failing is not None:
            return self._failing
        if self.snapshot is None:
            return "the fleet has not been looked at yet"
        age = self._age(self.snapshot)
        return f"the last look was {age:.0f} s ago" if age > STALE_STEPS * self._step else None

    def _fresh(self) -> bool:
        return self.snapshot is not None and self._age(self.snapshot) <= STALE_STEPS * self._step

    def _age(self, snapshot: Snapshot) -> float:
        """Seconds between the snapshot and now. One from the future, before the clock was set back, is as stale."""
        return abs(self._clock() - snapshot.at)


def application(service: Service, step: float, token: str | None, feed: Feed | None = None) -> Starlette:
    """The HTTP face; with a token, everything but the probes asks for it."""

    @asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        scheduler = BackgroundScheduler(timezone=UTC)
        scheduler.add_job(
            service.tick, "interval", seconds=step, next_run_time=datetime.now(UTC), max_instances=1, coalesce=True,
            misfire_grace_time=None,
        )  # fmt: skip
        life = service.life
        if life:
            scheduler.add_job(life.renew, "interval", minutes=1, coalesce=True, misfire_grace_time=None)
        scheduler.start()
        try:
            yield
        finally:
            scheduler.shutdown()
            if life:
                life.close()

    async def metrics(_: Request) -> Response:
        return Response(service.metrics(), media_type=CONTENT_TYPE_LATEST)

    async def livez(_: Request) -> Response:
        return PlainTextResponse("ok\n")

    async def readyz(request: Request) -> Response:
        reason = service.unready()
        return PlainTextResponse("ok\n") if reason is None else _problem(request, 503, "Not ready", reason)

    middleware = [Middleware(BearerToken, token=token)] if token else []
    routes = [Route("/metrics", metrics), Route("/livez", livez), Route("/readyz", readyz)]
    if feed is not None:
        routes.append(Route("/api/v1/write", receiver(feed), methods=["POST"]))
    return Starlette(routes=routes, middleware=middleware, lifespan=lifespan)


def receiver(feed: Feed) -> Callable[[Request], Awaitable[Response]]:
    """Takes what Prometheus pushes by remote write."""

    async def write(request: Request) -> Response:
        try:
            await run_in_threadpool(feed.take, await _body(request))
        except PushError as error:
            return _problem(request, 400, "Not a remote write", str(error))
        return Response(status_code=204)

    return write


async def _body(request: Request) -> bytes:
    """Raises PushError before more is held than any sender would send."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MOST_BYTES:
            raise PushError(f"a message of more than {MOST_BYTES} bytes is no remote write")
    return bytes(body)


def _problem(request: Request, status: int, title: str, detail: str) -> Response:
    body = {"type": "about:blank", "title": title, "status": status, "detail": detail, "instance": request.url.path}
    return JSONResponse(body, status, media_type="application/problem+json")
