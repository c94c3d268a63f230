"""The queue against a model of it: whatever is done in whatever order, the promises hold.

STETHOS_STEPS sets how many steps there are.
"""

import asyncio
import json
import os
import shutil
import tempfile
from collections import Counter
from collections.abc import Coroutine, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    rule,
    run_state_machine_as_test,
)

from scheduler.clock import now
from scheduler.cycle import Cycle, Settings
from scheduler.exposition import Metrics
from scheduler.jobs import TRANSITIONS, JobState, JobType, Outcome, Priority, Specification, TransitionError
from scheduler.nodes import WHOLE_NODE, Gpu, Node, Owner
from scheduler.queue import BusyNodeError, Queue
from scheduler.remediation import Policy
from scheduler.store import Store, Transaction, attempts, events, jobs, nodes
from scheduler.store.alerts import Alert
from scheduler.store.jobs import FullQueueError
from scheduler.store.reports import StaleReportError

T = TypeVar("T")
STEPS = int(os.environ.get("STETHOS_STEPS", "20000"))
STEPS_EACH = 50
NODES = ("a", "b", "c")
GPUS = 4
#: Jobs that may wait, and how many are submitted together.
LIMIT, AT_ONCE = 60, 3
#: How many GPUs automation may hold of the twelve.
BOUND = 6
node_names = st.sampled_from(NODES)
gpus = st.integers(0, GPUS - 1)
#: Which of what there is. What is drawn must not hang on the state: clocks and races differ when it is drawn again.
places = st.integers(0, 2**16)


@dataclass
class Tracked:
    """A job as the events have told of it."""

    state: JobState
    specification: Specification


@dataclass
class Agent:
    """A node's agent: the fences that it holds."""

    held: set[int] = field(default_factory=set)


@dataclass(frozen=True)
class Live:
    """What the store says is going on."""

    known: list[Node]
    #: (fence, node) → state.
    parts: dict[tuple[int, str], str]
    attempts: list[tuple[str, int]]
    told: list[dict[str, Any]]
    counts: dict[JobState, int]


def look(tx: Transaction, after: int) -> Live:
    known = nodes.get_all(tx)
    parts = {
        (part.fence, node): str(part.state) for node, parts in attempts.live_parts(tx, NODES).items() for part in parts
    }
    running = set(nodes.holders(tx).values())
    live = [(job, row["fence"]) for job in sorted(running) for row in tx.all("live_attempt", job=job)]
    return Live(known, parts, live, [json.loads(event.data) for event in events.after(tx, after)], jobs.counts(tx))


class Model(RuleBasedStateMachine):
    template: ClassVar[Path]
    steps: ClassVar[int] = 0

    def __init__(self) -> None:
        super().__init__()
        self.loop = asyncio.new_event_loop()
        self.home = Path(tempfile.mkdtemp(dir=self.template.parent))
        shutil.copy(self.template, self.home / "database")
        self.jobs: dict[str, Tracked] = {}
        self.agents = {name: Agent() for name in NODES}
        self.nodes: dict[str, Node] = {}
        self.fences: set[int] = set()
        self.sequence = 0
        self.parts: dict[tuple[int, str], str] = {}
        self._open()

    @initialize()
    def begin(self) -> None:
        for name in NODES:
            self.do(self.queue.register(name, None, "real", [Gpu(index) for index in range(GPUS)]))
            self.do(self.queue.heartbeat({name: frozenset()}, 0.0))

    def teardown(self) -> None:
        self.store.close()
        self.loop.close()
        shutil.rmtree(self.home)

    def _open(self) -> None:
        self.store = Store(self.home / "database")
        self.queue = Queue(self.store, Metrics(), Policy(canary_seconds=0.0, floor=BOUND), limit=LIMIT)
        self.cycle = Cycle(self.queue, None, Settings())

    def do(self, work: Coroutine[Any, Any, T]) -> T:
        return self.loop.run_until_complete(work)

    @rule(
        count=st.sampled_from([(1, 1), (1, 1), (2, 1), (4, 1), (4, 2), (6, 3), (9, 1)]),
        priority=st.sampled_from(Priority),
        retries=st.integers(0, 2),
        timeout=st.sampled_from([300.0, 1e-6]),
    )
    def submit(self, count: tuple[int, int], priority: Priority, retries: int, timeout: float) -> None:
        wanted = Specification(JobType.SLEEP, *count, priority=priority, retries=retries, timeout_seconds=timeout)
        self.do(self._submit(wanted))

    async def _submit(self, wanted: Specification) -> None:
        """A full queue refuses the job, and no other does."""
        try:
            job, _ = await self.queue.submit(wanted)
        except FullQueueError:
            waiting = sum(tracked.state == JobState.QUEUED for tracked in self.jobs.values())
            assert waiting >= LIMIT - AT_ONCE
        else:
            self.jobs[job.id] = Tracked(JobState.QUEUED, wanted)

    @rule(place=places)
    def cancel(self, place: int) -> None:
        if not self.jobs:
            return
        job = list(self.jobs)[place % len(self.jobs)]
        ended = self.jobs[job].state.final and self.jobs[job].state != JobState.CANCELLED
        try:
            assert self.do(self.queue.cancel(job)).state == JobState.CANCELLED
            assert not ended
        except TransitionError:
            assert ended

    @rule()
    def place(self) -> None:
        self.do(self.cycle.place())

    @rule(name=node_names, takes=st.booleans())
    def beat(self, name: str, takes: bool) -> None:
        """The agent says what it holds; it stops what it is told to, and begins what it is offered, or dies trying."""
        agent = self.agents[name]
        orders = self.do(self.queue.heartbeat({name: frozenset(agent.held)}, 0.0))
        assert (name in orders.unknown) == (name not in self.nodes)
        agent.held -= {fence for _, fence in orders.stop}
        if takes:
            agent.held |= {offer.part.fence for offer in orders.start}
            self.fences |= agent.held

    @rule(name=node_names)
    def restart_agent(self, name: str) -> None:
        self.agents[name].held.clear()

    @rule(name=node_names, outcome=st.sampled_from(Outcome), place=places)
    def report(self, name: str, outcome: Outcome, place: int) -> None:
        """Of any attempt there ever was, so most reports are late."""
        if not self.fences:
            return
        fence = sorted(self.fences)[place % len(self.fences)]
        state = self.parts.get((fence, name))
        welcome = state in ("assigned", "running") or (state == "stopping" and outcome == Outcome.STOPPED)
        try:
            self.do(self.queue.report(fence, name, outcome, "why", None))
            assert welcome
        except StaleReportError:
            assert not welcome
        self.agents[name].held.discard(fence)

    @rule(name=node_names)
    def lose(self, name: str) -> None:
        self.queue.heard[name] = now() - 60
        self.do(self.cycle.expire())

    @rule(starts_late=st.booleans())
    def expire(self, starts_late: bool) -> None:
        for name in NODES:
            self.queue.heard[name] = now()
        cycle = Cycle(self.queue, None, Settings(start_seconds=0.0)) if starts_late else self.cycle
        self.do(cycle.expire())

    @rule(name=node_names)
    def leave(self, name: str) -> None:
        self.do(self.queue.leave([name]))
        self.agents[name].held.clear()

    @rule(name=node_names)
    def register(self, name: str) -> None:
        self.do(self.queue.register(name, None, "real", [Gpu(index) for index in range(GPUS)]))

    @rule(name=node_names, force=st.booleans())
    def remove(self, name: str, force: bool) -> None:
        try:
            self.do(self.queue.remove(name, force))
        except BusyNodeError:
            assert not force
            assert self.nodes[name].held
        except nodes.UnknownNodeError:
            assert name not in self.nodes

    @rule(name=node_names, on=st.booleans())
    def drain(self, name: str, on: bool) -> None:
        try:
            self.do(self.queue.drain(name, "upkeep") if on else self.queue.undrain(name))
        except nodes.UnknownNodeError:
            assert name not in self.nodes

    @rule(name=node_names, on=st.booleans())
    def pause(self, name: str, on: bool) -> None:
        try:
            self.do(self.queue.pause(name, "a look", None) if on else self.queue.resume(name))
        except nodes.UnknownNodeError:
            assert name not in self.nodes

    @rule(name=node_names, gpu=gpus, on=st.booleans())
    def cordon(self, name: str, gpu: int, on: bool) -> None:
        try:
            self.do(self.queue.cordon(name, gpu, "fan") if on else self.queue.uncordon(name, gpu))
        except nodes.UnknownNodeError:
            assert name not in self.nodes

    @rule(name=node_names, gpu=st.none() | gpus, firing=st.booleans(), episode=st.integers(0, 3))
    def alert(self, name: str, gpu: int | None, firing: bool, episode: int) -> None:
        labels = {"alertname": "GpuXid", "severity": "critical", "node": name}
        labels |= {} if gpu is None else {"gpu": str(gpu)}
        status = "firing" if firing else "resolved"
        self.do(self.queue.receive([Alert(f"{name}/{gpu}", status, str(episode), labels, {})], 0))

    @rule(name=node_names)
    def drain_while_placing(self, name: str) -> None:
        """The drain commits first or the placement does, and both share commits with submissions."""

        async def together() -> None:
            placing = asyncio.create_task(self.cycle.place())
            more = [asyncio.create_task(self._submit(Specification(JobType.SLEEP, 1))) for _ in range(AT_ONCE)]
            if name in self.nodes:
                await self.queue.drain(name, "upkeep")
            await placing
            await asyncio.gather(*more)

        self.do(together())

    @rule()
    def restart(self) -> None:
        """All that was only in memory is gone."""
        self.store.close()
        self._open()

    @invariant()
    def holds(self) -> None:
        type(self).steps += 1
        live = self.do(self.store.read(look, self.sequence))
        self._follow(live.told)
        self.nodes = {node.name: node for node in live.known}
        self.parts = live.parts
        for node in live.known:
            assert node.held <= {gpu.index for gpu in node.gpus}
        assert sum(len(_automated(node)) for node in live.known) <= BOUND, "the circuit breaker"
        placed = {job for job, tracked in self.jobs.items() if tracked.state in (JobState.ASSIGNED, JobState.RUNNING)}
        live_jobs = [job for job, _ in live.attempts]
        assert len(set(live_jobs)) == len(live_jobs)
        assert placed <= set(live_jobs), "a placed job has a live attempt, and holds its GPUs"
        assert set(live_jobs) <= placed
        counted = Counter(tracked.state for tracked in self.jobs.values())
        assert live.counts == {state: counted[state] for state in JobState}

    def _follow(self, told: list[dict[str, Any]]) -> None:
        """Events alone must tell a story in which every step is allowed, without a gap in their numbers."""
        schedulable = {name: _placeable(node) for name, node in self.nodes.items()}
        for event in told:
            self.sequence += 1
            assert event["sequence"] == self.sequence
            kind, subject = event["type"], event["subject"]
            if kind.startswith("job."):
                self._moved(subject, JobState(event["state"]), kind)
                for share in event.get("placement", ()) if kind == "job.assigned" else ():
                    assert set(share["gpus"]) <= schedulable[share["node"]], event
            elif kind in ("node.draining", "node.unreachable", "node.removed", "node.held"):
                schedulable[subject] = set()
            elif kind == "gpu.cordoned":
                schedulable[event["node"]] -= {event["gpu"]}
            elif kind in ("node.undrained", "node.healthy", "node.released", "gpu.uncordoned", "node.registered"):
                schedulable[subject.partition("/")[0]] = set(range(GPUS))

    def _moved(self, job: str, state: JobState, kind: str) -> None:
        before = self.jobs[job].state
        if kind == "job.queued":
            assert before == JobState.QUEUED
            return
        assert state in TRANSITIONS[before], (job, before, state)
        self.jobs[job].state = state


def _automated(node: Node) -> set[int]:
    """The GPUs that are out of service by no person's will."""
    ours = {cordon.gpu for cordon in node.cordons if cordon.owner == Owner.STETHOS}
    return {gpu.index for gpu in node.gpus} if WHOLE_NODE in ours else ours


def _placeable(node: Node) -> set[int]:
    """The GPUs that new work may go to, worked out from the cordons and drains alone."""
    stopped = not node.reachable or node.drain or any(cordon.gpu == WHOLE_NODE for cordon in node.cordons)
    return set() if stopped else {gpu.index for gpu in node.gpus} - {cordon.gpu for cordon in node.cordons}


@pytest.fixture
def template(tmp_path: Path) -> Iterator[Path]:
    """An empty database, copied for each run; in memory where that can be, since no power fails here."""
    memory = Path("/dev/shm")  # noqa: S108
    home = Path(tempfile.mkdtemp(dir=memory if memory.is_dir() else tmp_path))
    Store(home / "template").close()
    yield home / "template"
    shutil.rmtree(home)


@pytest.mark.slow
def test_the_promises_hold_whatever_is_done(template: Path) -> None:
    Model.template = template
    Model.steps = 0
    run_state_machine_as_test(
        Model,
        settings=settings(
            max_examples=int(STEPS * 1.3 / STEPS_EACH),
            stateful_step_count=STEPS_EACH,
            deadline=None,
            database=None,
            # Made smaller, a failure that hangs on a race goes away; that would only take minutes.
            phases=[Phase.generate],
            suppress_health_check=list(HealthCheck),
        ),
    )
    assert Model.steps >= STEPS
