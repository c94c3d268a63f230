"""/v1/events: everything that happens, as server-sent events that can be resumed."""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Annotated

from pydantic import Field
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse

from ..store import Store, Transaction, events
from .context import context
from .endpoint import Endpoint, Parameters, parse_query
from .problems import Problem

HEARTBEAT_SECONDS = 15.0
PACE_SECONDS = 0.02
LARGEST = 2**62


class EventQuery(Parameters):
    after: Annotated[int | None, Field(ge=0, le=LARGEST, description="Start after this sequence.")] = None


async def stream(request: Request) -> Response:
    """From Last-Event-ID, or ?after=, or from now on."""
    after = parse_query(request, EventQuery).after
    resumed = request.headers.get("last-event-id")
    if resumed is not None:
        if not re.fullmatch(r"[0-9]{1,18}", resumed):
            raise Problem(422, f"the Last-Event-ID {resumed[:80]!r} is not a sequence number")
        after = int(resumed)
    store = context(request).queue.store
    newest, oldest = await store.read(_span)
    if after is None:
        after = newest
    if after + 1 < oldest:
        raise Problem(410, f"the events after {after} are gone; the oldest is {oldest}: read /v1/fleet, then go on")
    return StreamingResponse(
        _follow(store, after, request.app.state.stopping),
        media_type="text/event-stream",
        headers={"Cache-Control": "no-store", "X-Accel-Buffering": "no"},
    )


def _span(tx: Transaction) -> tuple[int, int]:
    return events.newest(tx), events.oldest(tx)


async def _follow(store: Store, after: int, stopping: asyncio.Event) -> AsyncIterator[str]:
    """What a slow reader has not taken stays in the store, not in memory."""
    news = asyncio.Event()
    store.listen(news.set)
    end = asyncio.create_task(stopping.wait())
    end.add_done_callback(lambda _: news.set())
    try:
        yield ": welcome\n\n"
        while not stopping.is_set():
            news.clear()
            for event in await store.read(events.after, after):
                after = event.sequence
                yield f"id: {event.sequence}\nevent: {event.type}\ndata: {event.data}\n\n"
                news.set()
            try:
                async with asyncio.timeout(HEARTBEAT_SECONDS):
                    await news.wait()
                # Under load many commits are read at once.
                await asyncio.sleep(PACE_SECONDS)
            except TimeoutError:
                yield ": still here\n\n"
    finally:
        end.cancel()
        store.unlisten(news.set)


ENDPOINTS = [
    Endpoint(
        "GET",
        "/v1/events",
        stream,
        "Everything that happens, as server-sent events: id is the sequence, data is JSON.",
        query=EventQuery,
        media_type="text/event-stream",
        headers={"Last-Event-ID": "The last sequence seen; the stream goes on after it."},
        problems=(410,),
    )
]
