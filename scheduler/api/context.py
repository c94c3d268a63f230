"""What the handlers work with, found on the application's state."""

from dataclasses import dataclass
from pathlib import Path

from starlette.requests import Request

from ..auth import Keys, Principal
from ..cycle import Cycle
from ..exposition import Metrics
from ..fleet import Fleet, read
from ..queue import Queue
from ..synthetic import SyntheticFleet
from ..workload import Workload


@dataclass(frozen=True, slots=True)
class Context:
    queue: Queue
    cycle: Cycle
    workload: Workload
    metrics: Metrics
    keys: Keys
    token_file: Path
    #: Where the fleet is synthetic: its control API.
    synthetic: SyntheticFleet | None

    async def fleet(self, with_jobs: bool = False) -> Fleet:
        settings = self.cycle.settings
        stored = await self.queue.store.read(read, settings.policy, with_jobs)
        return Fleet(stored, self.cycle.reading, settings.thresholds)


def principal(request: Request) -> Principal | None:
    """Who asks; None where nobody needs to be known."""
    found = getattr(request.state, "principal", None)
    assert found is None or isinstance(found, Principal)
    return found


def context(request: Request) -> Context:
    found = request.app.state.context
    assert isinstance(found, Context)
    return found
