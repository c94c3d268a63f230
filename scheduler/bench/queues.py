"""Jobs through the whole queue on one PostgreSQL: ours, and procrastinate's where it is installed."""

import asyncio
import importlib.util
import itertools
import time
from collections.abc import Awaitable, Callable
from contextlib import closing
from pathlib import Path

from ..cycle import Cycle, Settings
from ..exposition import Metrics
from ..jobs import JobType, Outcome, Specification
from ..nodes import Gpu
from ..queue import Queue
from ..remediation import Policy
from ..store import Store

NODES, GPUS = 16, 8


#: Seconds by the clock, and of this process's processor time, which other load on the machine does not stretch.
Taken = tuple[float, float]


def _since(started: Taken = (0.0, 0.0)) -> Taken:
    return time.perf_counter() - started[0], time.process_time() - started[1]


async def gather(count: int, width: int, work: Callable[[int], Awaitable[object]]) -> Taken:
    """Do `work` so many times, `width` at a time."""
    numbers = iter(range(count))

    async def line() -> None:
        for number in numbers:
            await work(number)

    started = _since()
    await asyncio.gather(*(line() for _ in range(width)))
    return _since(started)


async def ours(database: Path | str, count: int, width: int) -> dict[str, float]:
    """Accepted, placed, begun and ended, each told by an event; without HTTP."""
    with closing(Store(database)) as store:
        queue = Queue(store, Metrics(), Policy())
        cycle = Cycle(queue, None, Settings())
        names = [f"bench-{index:02}" for index in range(NODES)]
        for name in names:
            await queue.register(name, None, "real", [Gpu(index) for index in range(GPUS)])
        await queue.heartbeat(dict.fromkeys(names, frozenset()), 0.0)
        wanted = Specification(JobType.SLEEP, 1)
        accepting = await gather(count, width, lambda _: queue.submit(wanted))
        started = _since()
        done = 0
        while done < count:
            await cycle.place()
            orders = await queue.heartbeat(dict.fromkeys(names, frozenset()), 0.0)
            ends = [(offer.part.fence, offer.part.node) for offer in orders.start]

            async def end(number: int, ends: list[tuple[int, str]] = ends) -> None:
                fence, node = ends[number]
                await queue.report(fence, node, Outcome.SUCCEEDED, None, None)

            await gather(len(ends), width, end)
            done += len(ends)
        return _figures(count, accepting, _since(started))


async def procrastinate(database: str, count: int, width: int) -> dict[str, float] | None:
    """The same number of tasks that do nothing; None where the library is not installed."""
    if importlib.util.find_spec("procrastinate") is None:
        return None
    import procrastinate as library  # type: ignore[import-not-found,unused-ignore]

    app = library.App(connector=library.PsycopgConnector(conninfo=database, min_size=width, max_size=width + 4))
    ran = itertools.count()

    @app.task(name="nothing")  # type: ignore[untyped-decorator,unused-ignore]
    async def nothing() -> None:
        next(ran)

    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        accepting = await gather(count, width, lambda _: nothing.defer_async())
        started = _since()
        await app.run_worker_async(concurrency=width, wait=False, install_signal_handlers=False)
        ending = _since(started)
    if (found := next(ran)) != count:
        raise RuntimeError(f"procrastinate ran {found} of {count} tasks")
    return _figures(count, accepting, ending)


def _figures(count: int, accepting: Taken, ending: Taken) -> dict[str, float]:
    return {
        "accepted_per_second": round(count / accepting[0], 1),
        "placed_and_ended_per_second": round(count / ending[0], 1),
        "whole_way_per_second": round(count / (accepting[0] + ending[0]), 1),
        "client_cpu_ms_each": round(1000 * (accepting[1] + ending[1]) / count, 2),
    }
