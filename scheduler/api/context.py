"""What the handlers work with, found on the application's state."""

from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request

from ..cycle import Cycle
from ..exposition import Metrics
from ..fleet import Fleet, read
from ..queue import Queue
from ..workload import Workload


@dataclass(frozen=True, slots=True)
class Context:
    queue: Queue
    cycle: Cycle
    workload: Workload
    metrics: Metrics
    token: str
    token_file: Path

    async def fleet(self, with_jobs: bool = False) -> Fleet:
        return Fleet(await self.queue.store.read(read, with_jobs), self.cycle.reading)


def context(request: Request) -> Context:
    found = request.app.state.context
    assert isinstance(found, Context)
    return found
