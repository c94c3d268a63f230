"""A real HTTP server for an application, and fleets small enough to look at."""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager

import httpx
import pytest
import uvicorn
from starlette.applications import Starlette

from exporters import server, service
from exporters.synthetic.control import Control
from exporters.synthetic.source import SyntheticSource

TOKEN = "a-token-for-tests"  # noqa: S105

Serving = Callable[[Starlette], httpx.Client]


@contextmanager
def running(app: Starlette) -> Iterator[httpx.Client]:
    listener = server.listen("127.0.0.1", 0)
    running_server = uvicorn.Server(uvicorn.Config(app, log_config=None, ws="none", lifespan="on"))
    thread = threading.Thread(target=running_server.run, kwargs={"sockets": [listener]})
    thread.start()
    deadline = time.monotonic() + 10
    while not running_server.started and time.monotonic() < deadline:
        time.sleep(0.01)
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{listener.getsockname()[1]}") as client:
            yield client
    finally:
        running_server.should_exit = True
        thread.join()
        listener.close()


@pytest.fixture
def serving() -> Iterator[Serving]:
    with ExitStack() as stack:
        yield lambda app: stack.enter_context(running(app))


@pytest.fixture
def bearer() -> dict[str, str]:
    return {"Authorization": f"Bearer {TOKEN}"}


def synthetic_app(source: SyntheticSource, *, open_reads: bool = True) -> Starlette:
    return service.build(source, token=TOKEN, open_reads=open_reads, routes=Control(source).routes(), title="test")


def until(holds: Callable[[], bool], seconds: float = 10.0) -> bool:
    """Waits for something that is to come true."""
    deadline = time.monotonic() + seconds
    while not (result := holds()) and time.monotonic() < deadline:
        time.sleep(0.05)
    return result
