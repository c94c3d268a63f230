"""The loop: heartbeat, begin what is offered, stop what is over, report what has ended."""

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol

import httpx
import structlog

from .client import Cooled, Ending, NodeDescription, RefusedError, Report, Scheduler, Start
from .cooling import Cooler

log = structlog.get_logger()

HEARTBEAT_SECONDS = 2.0
LONGEST_PAUSE_SECONDS = 5.0


class Machines(Protocol):
    """Where work runs: this host, or a synthetic fleet."""

    async def nodes(self) -> Sequence[NodeDescription]:
        """The nodes that are up now."""

    async def gone(self) -> Sequence[str]:
        """Names of nodes that were there and will not come back."""

    async def adopt(self) -> Sequence[Start]:
        """Attempts that go on from before this agent was started, or whose end nobody was told."""

    async def settle(self, attempt: Start) -> None:
        """The attempt's report was taken, or nobody wants one."""

    async def execute(self, attempt: Start) -> Report:
        """Run an attempt to its end. When cancelled, whatever it started is stopped before it returns."""

    async def close(self) -> None: ...


@dataclass(slots=True)
class _Running:
    attempt: Start
    task: "asyncio.Task[None]"
    #: None: its node went down, and a dead node reports nothing.
    stopping: Report | None = field(default_factory=lambda: Report(Ending.STOPPED, "stopped on request"))


class Agent:
    def __init__(self, scheduler: Scheduler, machines: Machines, cooler: Cooler | None = None) -> None:
        self._scheduler = scheduler
        self._machines = machines
        self._cooler = cooler
        self._running: dict[tuple[str, int], _Running] = {}
        self._registered: dict[str, NodeDescription] = {}
        self._gpus: dict[tuple[str, int], asyncio.Lock] = {}

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set; then hand everything back."""
        stopping = asyncio.create_task(stop.wait())
        cooling = asyncio.create_task(self._cooler.run()) if self._cooler else None
        pause = 0.0
        for attempt in await self._machines.adopt():
            self._begin(attempt)
        while not stop.is_set():
            turn = asyncio.create_task(self._turn())
            await asyncio.wait({turn, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if not turn.done():
                turn.cancel()
                await asyncio.wait({turn})
                break
            try:
                turn.result()
                pause = 0.0
            except (httpx.TransportError, RefusedError) as error:
                # What runs goes on running: its report waits until the scheduler is back.
                if not pause:
                    log.warning("no answer from the scheduler; trying again", detail=str(error) or repr(error))
                pause = min(LONGEST_PAUSE_SECONDS, pause * 2 or 0.25)
                await asyncio.wait({stopping}, timeout=pause)
        stopping.cancel()
        if cooling:
            cooling.cancel()
        await self._hand_back()

    async def _turn(self) -> None:
        nodes = {node.name: node for node in await self._machines.nodes()}
        for name in await self._machines.gone():
            self._abandon(name)
            await self._scheduler.remove(name)
            self._registered.pop(name, None)
        for name in {name for name, _ in self._running} - nodes.keys():
            self._abandon(name)
        for name, node in nodes.items():
            if self._registered.get(name) != node:
                await self._scheduler.register(node)
                self._registered[name] = node
        if not nodes:
            await asyncio.sleep(HEARTBEAT_SECONDS)
            return
        held = {name: [fence for node, fence in self._running if node == name] for name in nodes}
        orders = await self._scheduler.heartbeat(held, HEARTBEAT_SECONDS, self._cooled())
        for name in orders.unknown:
            self._registered.pop(name, None)
        for order in orders.stop:
            if running := self._running.get((order.node, order.fence)):
                running.task.cancel()
        for start in orders.start:
            if (start.node, start.fence) not in self._running:
                self._begin(start)

    def _cooled(self) -> dict[str, list[Cooled]]:
        found: dict[str, list[Cooled]] = {}
        for claim in self._cooler.lowered() if self._cooler else ():
            told = Cooled(claim.gpu, claim.limit_watts, claim.usual_watts, claim.celsius)
            found.setdefault(claim.node, []).append(told)
        return found

    def _begin(self, attempt: Start) -> None:
        log.info("begin", job=attempt.job, name=attempt.name, node=attempt.node, gpus=attempt.gpus)
        task = asyncio.create_task(self._run(attempt))
        self._running[attempt.node, attempt.fence] = _Running(attempt, task)

    async def _run(self, attempt: Start) -> None:
        """One attempt, from its GPUs being free here to its report being taken."""
        key = attempt.node, attempt.fence
        locks = [self._gpus.setdefault((attempt.node, gpu), asyncio.Lock()) for gpu in sorted(attempt.gpus)]
        taken: list[asyncio.Lock] = []
        report: Report | None
        try:
            for lock in locks:
                await lock.acquire()
                taken.append(lock)
            report = await self._machines.execute(attempt)
        except asyncio.CancelledError:
            report = self._running[key].stopping
        except Exception as error:
            log.exception("an executor broke", job=attempt.job)
            report = Report(Ending.INFRASTRUCTURE, f"the agent could not run it: {error}")
        finally:
            for lock in taken:
                lock.release()
        try:
            if report:
                await self._report(attempt, report)
            await self._machines.settle(attempt)
        finally:
            del self._running[key]

    async def _report(self, attempt: Start, report: Report) -> None:
        pause = 0.25
        while True:
            try:
                taken = await self._scheduler.report(attempt, report)
                log.info("end", job=attempt.job, name=attempt.name, how=report.ending, taken=taken)
                return
            except httpx.TransportError:
                await asyncio.sleep(pause)
                pause = min(LONGEST_PAUSE_SECONDS, pause * 2)
            except RefusedError as error:
                log.error("a report was refused", job=attempt.job, detail=str(error))
                return

    def _abandon(self, node: str) -> None:
        for (name, _), running in self._running.items():
            if name == node and running.stopping is not None:
                running.stopping = None
                running.task.cancel()

    async def _hand_back(self) -> None:
        for running in self._running.values():
            running.stopping = None
            running.task.cancel()
        await asyncio.gather(*(running.task for running in self._running.values()), return_exceptions=True)
        if self._cooler:
            await self._cooler.stop()
        try:
            if self._registered:
                await self._scheduler.leave(self._registered)
        except (httpx.TransportError, RefusedError) as error:
            log.warning("left without a word: the scheduler does not answer", detail=str(error))
        await self._machines.close()
        await self._scheduler.close()
