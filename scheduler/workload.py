"""Jobs that nobody asked for, so that there is something to see: a Poisson stream at a rate that can be set."""

import asyncio
import math
import random
from collections.abc import Mapping
from typing import Literal

import structlog

from .jobs import JobType, Priority, Specification
from .queue import Queue
from .store import UnavailableError, events
from .store.jobs import FullQueueError

log = structlog.get_logger()

#: Jobs per minute, unless it is off.
LOWEST_RATE, HIGHEST_RATE = 0.1, 50.0

#: Rates that have a name.
Preset = Literal["Off", "Light", "Normal", "High", "Extreme", "MAXIMUM"]
PRESETS: Mapping[Preset, float] = {
    "Off": 0.0,
    "Light": 0.5,
    "Normal": 2.0,
    "High": 10.0,
    "Extreme": 25.0,
    "MAXIMUM": HIGHEST_RATE,
}

TYPES = {JobType.SLEEP: 30, JobType.COMPUTE: 40, JobType.MATRIX: 20, JobType.FAULT: 10}
PRIORITIES = {Priority.LOW: 20, Priority.NORMAL: 50, Priority.HIGH: 20, Priority.CRITICAL: 10}
GPUS = (1, 1, 1, 2, 4, 8)
MEDIAN_SECONDS = 60.0
#: Two thirds of all durations lie within a factor of e^0.8 of the median.
SPREAD = 0.8
LONGEST_SECONDS = 280.0


def check_rate(jobs_per_minute: float) -> float:
    """The rate itself. Raises ValueError unless it is 0 or between the lowest and the highest."""
    if jobs_per_minute and not LOWEST_RATE <= jobs_per_minute <= HIGHEST_RATE:
        raise ValueError(
            f"a rate is 0 (off) or {LOWEST_RATE:g} to {HIGHEST_RATE:g} jobs per minute, not {jobs_per_minute:g}"
        )
    return jobs_per_minute


def draw(random: random.Random) -> Specification:
    """One job of the mix. Durations are lognormal, and shorter than the default timeout."""
    chosen = random.choices(list(TYPES), list(TYPES.values()))[0]
    seconds = min(LONGEST_SECONDS, random.lognormvariate(math.log(MEDIAN_SECONDS), SPREAD))
    parameters = f'{{"after_seconds": {seconds / 2:.1f}, "probability": 0.5}}' if chosen == JobType.FAULT else "{}"
    return Specification(
        type=chosen,
        gpus=random.choice(GPUS),
        priority=random.choices(list(PRIORITIES), list(PRIORITIES.values()))[0],
        duration_seconds=round(seconds, 1),
        parameters=parameters,
        origin="workload",
    )


class Workload:
    """The rate is in the store, so a restart goes on with it."""

    def __init__(self, queue: Queue, random: random.Random) -> None:
        self._queue = queue
        self._random = random
        self._changed = asyncio.Event()
        self._rate = 0.0
        self._task: asyncio.Task[None] | None = None

    async def start(self, rate: float | None = None) -> None:
        """With `rate`, or with the one that was in force before."""
        if rate is not None:
            await self.set_rate(rate)
        self._rate = await self._queue.store.read(events.workload_rate)
        self._task = asyncio.create_task(self._run())

    async def stop(self) -> None:
        if self._task:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    async def set_rate(self, jobs_per_minute: float) -> None:
        """Raises ValueError where there is no such rate."""
        await self._queue.store.write(events.set_workload_rate, check_rate(jobs_per_minute))
        self._rate = jobs_per_minute
        self._changed.set()

    async def _run(self) -> None:
        loop = asyncio.get_running_loop()
        due = math.inf
        while True:
            # A Poisson stream has no memory: after a change of rate the wait is simply drawn anew.
            if self._changed.is_set() or due == math.inf:
                self._changed.clear()
                due = loop.time() + self._gap()
            try:
                async with asyncio.timeout_at(None if due == math.inf else due):
                    await self._changed.wait()
            except TimeoutError:
                # From when it was due, not from now: what submitting takes does not slow the stream.
                due += self._gap()
                try:
                    await self._queue.submit(draw(self._random))
                except (FullQueueError, UnavailableError) as error:
                    log.warning("the generator's job was refused", detail=str(error))
                except Exception:
                    log.exception("the generator could not submit a job")

    def _gap(self) -> float:
        return self._random.expovariate(self._rate / 60) if self._rate else math.inf
