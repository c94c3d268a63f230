"""The HTTP API: the table of its parts, put together as one application."""

import asyncio
import random
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware

from ..auth import Keys
from ..cycle import Cycle, Settings
from ..exposition import Metrics
from ..health import Prometheus
from ..queue import Queue
from ..store import Store, UnavailableError, tokens
from ..store.jobs import FullQueueError
from ..synthetic import SyntheticFleet
from ..workload import Workload
from . import (
    agents,
    alerts,
    events,
    fleet,
    history,
    jobs,
    nodes,
    openapi,
    pages,
    probes,
    remediation,
    synthetic,
    upkeep,
    workload,
)
from .context import Context
from .endpoint import Endpoint
from .guard import RequireToken
from .problems import Problem, on_crash, on_http_error, on_problem, on_unavailable

VERSION = "0.1.0"

ENDPOINTS: Sequence[Endpoint] = [
    *jobs.ENDPOINTS,
    *nodes.ENDPOINTS,
    *upkeep.ENDPOINTS,
    *history.ENDPOINTS,
    *alerts.ENDPOINTS,
    *fleet.ENDPOINTS,
    *remediation.ENDPOINTS,
    *events.ENDPOINTS,
    *workload.ENDPOINTS,
    *synthetic.ENDPOINTS,
    *agents.ENDPOINTS,
    *probes.ENDPOINTS,
    *pages.ENDPOINTS,
]


@dataclass(frozen=True, slots=True)
class Configuration:
    store: Store
    token: str
    token_file: Path
    loopback: bool = True
    prometheus: str | None = None
    #: The control API of a synthetic fleet, which takes the same token.
    synthetic: str | None = None
    #: Jobs per minute of the generator; None leaves it as it was.
    workload: float | None = None
    alert_ttl_seconds: float = 900.0
    #: Jobs that may wait; further ones are refused until some have gone.
    queue_limit: int = 1_000_000
    settings: Settings = field(default_factory=Settings)


def application(configuration: Configuration) -> Starlette:
    """The scheduler as an ASGI application; its periodic work runs within its lifespan, which closes the store."""
    store = configuration.store
    keys = Keys(configuration.token, lambda: store.read(tokens.get_all))

    @asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        metrics = Metrics()
        queue = Queue(
            store, metrics, configuration.settings.policy, configuration.alert_ttl_seconds, configuration.queue_limit
        )
        stale = configuration.settings.thresholds.stale_seconds
        prometheus = Prometheus(configuration.prometheus, stale) if configuration.prometheus else None
        cycle = Cycle(queue, prometheus, configuration.settings)
        generator = Workload(queue, random.Random())  # noqa: S311 - nothing secret hangs on it
        url, token = configuration.synthetic, configuration.token
        synthetic_fleet = SyntheticFleet(url, token) if url else None
        app.state.context = Context(queue, cycle, generator, metrics, keys, configuration.token_file, synthetic_fleet)
        cycle.start()
        await generator.start(configuration.workload)
        yield
        await generator.stop()
        await cycle.stop()
        if synthetic_fleet:
            await synthetic_fleet.close()
        store.close()

    def stop() -> None:
        """Let the answers that wait for something to happen end."""
        app.state.stopping.set()
        app.state.context.queue.wake()

    app = Starlette(
        routes=[endpoint.route() for endpoint in ENDPOINTS],
        lifespan=lifespan,
        middleware=[Middleware(RequireToken, keys=keys, loopback=configuration.loopback)],
        exception_handlers={
            Problem: on_problem,
            HTTPException: on_http_error,
            UnavailableError: on_unavailable,
            FullQueueError: on_unavailable,
            Exception: on_crash,
        },
    )
    app.state.openapi = openapi.document(ENDPOINTS, VERSION)
    app.state.docs = pages.render(app.state.openapi)
    app.state.stopping = asyncio.Event()
    app.state.stop = stop
    return app
