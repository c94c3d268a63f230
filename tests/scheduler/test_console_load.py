"""The load that the slider and the presets ask for is the load that comes."""

import asyncio
import math
import random
import selectors
import time
from datetime import datetime
from itertools import accumulate
from pathlib import Path

import pytest
from playwright.sync_api import expect

from scheduler.exposition import Metrics
from scheduler.jobs import Specification
from scheduler.queue import Queue
from scheduler.remediation import Policy
from scheduler.store import Store
from scheduler.workload import PRESETS, Workload

from .browser import console, launched
from .processes import Scheduler

#: The presets, and both ends of the slider.
RATES = sorted({0.1, 50.0} | set(PRESETS.values()) - {0.0})
#: One in a million runs may fail by chance.
CHANCE = 1e-6
JOBS = 2000


def bounds(expected: float, chance: float = CHANCE) -> tuple[int, int]:
    """The least and the most that a Poisson count with this mean has, but for `chance` on each side."""
    most = int(expected + 12 * math.sqrt(expected)) + 30
    sums = list(accumulate(math.exp(k * math.log(expected) - expected - math.lgamma(k + 1)) for k in range(most)))
    least, most = (next(k for k, share in enumerate(sums) if share > limit) for limit in (chance, 1 - chance))
    return least, most


class Skipping(selectors.DefaultSelector):
    """A selector for a clock that goes on to the next timer instead of waiting for it."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        if timeout is None:
            return super().select(None)  # a thread works on the store
        self.now += max(0.0, timeout)
        return super().select(0)


class Counting(Queue):
    """Counts jobs instead of keeping them, and tells when there were so many."""

    def __init__(self, store: Store) -> None:
        super().__init__(store, Metrics(), Policy())
        self.left = JOBS
        self.full = asyncio.Event()

    async def submit(self, wanted: Specification, *_: object) -> None:  # type: ignore[override]
        self.left -= 1
        if not self.left:
            self.full.set()


async def minutes_for_jobs(store: Store, rate: float) -> float:
    queue = Counting(store)
    workload = Workload(queue, random.Random(rate))
    await workload.start(rate)
    loop = asyncio.get_running_loop()
    began = loop.time()
    await queue.full.wait()
    took = loop.time() - began
    await workload.stop()
    return took / 60


@pytest.mark.parametrize("rate", RATES)
def test_the_generator_keeps_each_rate(tmp_path: Path, rate: float) -> None:
    selector = Skipping()
    loop = asyncio.SelectorEventLoop(selector)
    loop.time = lambda: selector.now  # type: ignore[method-assign]
    store = Store(tmp_path / "db")
    try:
        minutes = loop.run_until_complete(minutes_for_jobs(store, rate))
    finally:
        store.close()
        loop.close()
    least, most = bounds(rate * minutes)
    assert least <= JOBS <= most, f"{JOBS / minutes:.2f} jobs a minute"


@pytest.mark.slow
def test_the_presets_and_the_slider_bring_the_jobs_that_they_say(tmp_path: Path) -> None:
    """On a real clock, and so with less statistics."""
    seconds = 30.0
    server = Scheduler(tmp_path)
    try:
        with launched() as browser, console(browser, server) as page:
            for name, rate in (("MAXIMUM 50", 50.0), ("High 10", 10.0), ("slider", 50.0), ("Extreme 25", 25.0)):
                before = {job["id"] for job in server.get("/v1/jobs?limit=1000")["jobs"]}
                if name == "slider":
                    page.get_by_label("Jobs submitted per minute").press("End")
                else:
                    page.get_by_role("button", name=name).click()
                expect(page.locator("#rate-shown")).to_have_text(f"{rate:g}")
                began = datetime.fromisoformat(server.get("/v1/fleet")["time"])
                time.sleep(seconds)
                page.get_by_role("button", name="Off 0").click()
                expect(page.locator("#rate-shown")).to_have_text("off")
                ended = datetime.fromisoformat(server.get("/v1/fleet")["time"])
                came = [job for job in server.get("/v1/jobs?limit=1000")["jobs"] if job["id"] not in before]
                assert all(job["origin"] == "workload" for job in came)
                least, most = bounds(rate * (ended - began).total_seconds() / 60)
                assert least <= len(came) <= most, name
    finally:
        server.close()


def test_the_bounds_are_those_of_a_poisson_count() -> None:
    """Against the closed form for few events, and the normal approximation for many."""
    assert bounds(1.0, 0.3) == (0, 1)  # P(0) = 0.37 > 0.3; P(0 or 1) = 0.74 > 0.7
    assert bounds(400.0, 0.1587) == pytest.approx((380, 420), abs=1)
