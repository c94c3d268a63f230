"""The queue as its callers see it: submit, cancel, heartbeat, report. Truth is in the store alone."""

import asyncio
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass
from types import MappingProxyType

import structlog

from .clock import now
from .exposition import Metrics
from .jobs import Job, Outcome, Part, Reconciliation, Specification, reconcile
from .nodes import WHOLE_NODE, Gpu, Node, Owner
from .remediation import Policy
from .store import Store, Transaction, alerts, attempts, cooling, jobs, nodes, remediation, reports
from .store.alerts import Alert
from .store.cooling import Cooling, Lowered
from .store.jobs import Submission
from .store.reports import Report, StaleReportError

log = structlog.get_logger()

#: The versions of a node that a change is meant for; None is any.
Versions = frozenset[int] | None


class BusyNodeError(ValueError):
    """The node cannot be removed: it has jobs."""


class BusyKeyError(ValueError):
    """Another request with the same Idempotency-Key is under way."""


@dataclass(frozen=True, slots=True)
class Offer:
    """An attempt that an agent is to begin on one node."""

    part: Part
    job: Job


@dataclass(frozen=True, slots=True)
class Orders:
    """The answer to a heartbeat."""

    start: tuple[Offer, ...]
    stop: tuple[tuple[str, int], ...]
    unknown: tuple[str, ...]


class Queue:
    def __init__(
        self,
        store: Store,
        metrics: Metrics,
        policy: Policy,
        alert_ttl_seconds: float = 900.0,
        limit: int | None = None,
    ) -> None:
        self.store = store
        self.policy = policy
        self.limit = limit
        self.alert_ttl_seconds = alert_ttl_seconds
        self.metrics = metrics
        #: Set whenever a placement pass could find something new to do.
        self.kicked = asyncio.Event()
        #: When each node was last heard; in memory, because a lease is about elapsed time, not about dates.
        self.heard: dict[str, float] = {}
        self.started_at = now()
        self._keys: set[str] = set()
        self._sleepers: dict[str, set[asyncio.Event]] = {}

    async def submit(self, wanted: Specification, key: str | None = None, fingerprint: str = "") -> tuple[Job, bool]:
        """Once this returns, the job is on disk. Raises BusyKeyError, FullQueueError, ReusedKeyError."""
        with nullcontext() if key is None else self._only_one(key):
            asked = Submission(wanted, key, fingerprint, self.limit)
            job, repeated = await self.store.together(jobs.accept, asked)
        self.kicked.set()
        return job, repeated

    @contextmanager
    def _only_one(self, key: str) -> Iterator[None]:
        if key in self._keys:
            raise BusyKeyError("a request with this Idempotency-Key is being answered; wait for that answer")
        self._keys.add(key)
        try:
            yield
        finally:
            self._keys.discard(key)

    async def cancel(self, name: str) -> Job:
        job = await self.store.write(attempts.cancel, name)
        self.wake(share.node for share in job.placement)
        self.kicked.set()
        return job

    async def report(self, fence: int, node: str, outcome: Outcome, reason: str | None, result: str | None) -> None:
        """Raises StaleReportError, after having noted that the late attempt's GPUs are free."""
        try:
            happened = await self.store.together(reports.take, Report(fence, node, outcome, reason, result))
        except StaleReportError as error:
            log.warning("late report refused", fence=fence, node=node, outcome=outcome, detail=str(error))
            await self.store.write(reports.release_stopped, fence, node)
            raise
        finally:
            self.kicked.set()
        self.count(happened)
        self.wake()

    def count(self, happened: Iterable[attempts.Happened]) -> None:
        """Note it in the metrics."""
        for each in happened:
            match each:
                case attempts.Started():
                    self.metrics.job_started(each.priority, each.waited_seconds)
                case attempts.Ended():
                    self.metrics.job_ended(each.state, each.seconds)

    async def register(self, name: str, rack: str | None, kind: str, gpus: list[Gpu]) -> Node:
        node = await self.store.write(nodes.register, name, rack, kind, gpus)
        self.kicked.set()
        return node

    async def remove(self, name: str, force: bool, versions: Versions = None) -> None:
        """Raises BusyNodeError while jobs run there, unless forced: then they are queued again."""
        self.count(await self.store.write(_remove, name, force, versions))
        self.heard.pop(name, None)
        self.kicked.set()

    async def drain(self, name: str, reason: str, versions: Versions = None) -> Node:
        """This and the next raise ChangedNodeError unless the node has one of `versions`."""
        return await self.store.write(_drain, name, reason, versions)

    async def undrain(self, name: str, versions: Versions = None) -> Node:
        node = await self.store.write(_undrain, name, versions)
        self.kicked.set()
        return node

    async def pause(self, name: str, reason: str, seconds: float | None, versions: Versions = None) -> Node:
        """No new work for so many seconds, or until it is resumed; what runs goes on."""
        return await self.store.write(_pause, name, reason, seconds, versions)

    async def resume(self, name: str, versions: Versions = None) -> Node:
        """The pause goes, and what automation holds the whole node for; a drain stays."""
        node = await self.store.write(_resume, name, versions)
        self.kicked.set()
        return node

    async def mended(self, name: str) -> Node:
        """A person has mended the machine: nothing that automation knew of it holds it or its GPUs any more."""
        node = await self.store.write(_mended, name)
        self.wake([name])
        self.kicked.set()
        return node

    async def cordon(self, name: str, gpu: int, reason: str, versions: Versions = None) -> Node:
        return await self.store.write(_cordon, name, gpu, reason, versions)

    async def uncordon(self, name: str, gpu: int, versions: Versions = None) -> Node:
        node = await self.store.write(_uncordon, name, gpu, versions)
        self.wake([name])
        self.kicked.set()
        return node

    async def receive(self, received: list[Alert], invalid: int) -> None:
        """All of a notification in one commit. Once this returns, nothing of it is lost."""
        effects = await self.store.write(_receive, received, self.alert_ttl_seconds, self.policy)
        for alert, effect in zip(received, effects, strict=True):
            self.metrics.alerts.labels(alert.status).inc()
            self.count(effect.ended)
            if effect.text == "unknown node":
                self.metrics.unmatched_alerts.inc()
        self.wake()
        if invalid:
            self.metrics.alerts.labels("invalid").inc(invalid)
        self.kicked.set()

    async def heartbeat(
        self,
        held: Mapping[str, frozenset[int]],
        wait_seconds: float,
        cooled: Mapping[str, Sequence[Lowered]] = MappingProxyType({}),
    ) -> Orders:
        """Note what an agent's nodes hold, and which GPUs are `cooled` by a lower power limit; answer with what to
        start and stop, waiting until there is some.
        """
        self.heard.update(dict.fromkeys(held, now()))
        states = await self.store.read(_look, tuple(held))
        unknown = tuple(name for name in held if name not in states)
        for name in unknown:
            self.heard.pop(name, None)
        held = {name: fences for name, fences in held.items() if name in states}
        cooled = {name: [each for each in cooled.get(name, ()) if each.gpu in states[name].gpus] for name in held}
        if any(
            not state.reachable or _news(state.parts, held[name]) or cooling.differs(state.cooled, cooled.get(name, ()))
            for name, state in states.items()
        ):
            self.count(await self.store.write(_note, held, cooled))
            self.kicked.set()
        orders = await self.store.read(_orders, held, unknown)
        if orders.start or orders.stop or unknown or not wait_seconds:
            return orders
        await self._sleep(tuple(held), wait_seconds)
        return await self.store.read(_orders, held, unknown)

    async def leave(self, names: Iterable[str]) -> None:
        """The agent of these nodes stops: no new work there, and what it had goes back to the queue."""
        await self.store.write(_leave, tuple(names))
        self.kicked.set()

    def wake(self, names: Iterable[str] | None = None) -> None:
        """Answer the waiting heartbeats of these nodes, or of all."""
        for name in list(self._sleepers) if names is None else names:
            for sleeper in self._sleepers.get(name, ()):
                sleeper.set()

    async def _sleep(self, names: tuple[str, ...], seconds: float) -> None:
        sleeper = asyncio.Event()
        for name in names:
            self._sleepers.setdefault(name, set()).add(sleeper)
        try:
            async with asyncio.timeout(seconds):
                await sleeper.wait()
        except TimeoutError:
            pass
        finally:
            for name in names:
                self._sleepers[name].discard(sleeper)
                if not self._sleepers[name]:
                    del self._sleepers[name]


@dataclass(frozen=True, slots=True)
class _NodeLook:
    reachable: bool
    gpus: frozenset[int]
    parts: list[Part]
    cooled: dict[int, Cooling]


def _look(tx: Transaction, names: tuple[str, ...]) -> dict[str, _NodeLook]:
    known = {row["name"]: row for row in tx.all("nodes")}
    cooled = cooling.get_all(tx)
    parts = attempts.live_parts(tx, names)
    return {
        name: _NodeLook(
            bool(known[name]["reachable"]),
            frozenset(gpu.index for gpu in nodes.described(known[name]["gpus"])),
            parts[name],
            cooled.get(name, {}),
        )
        for name in names
        if name in known
    }


def _news(parts: list[Part], held: frozenset[int]) -> bool:
    found: Reconciliation = reconcile(parts, held)
    return bool(found.began or found.released or found.missing)


def _note(
    tx: Transaction, held: Mapping[str, frozenset[int]], cooled: Mapping[str, Sequence[Lowered]]
) -> list[attempts.Happened]:
    happened: list[attempts.Happened] = []
    cooling_now = cooling.get_all(tx)
    for name, fences in held.items():
        if not nodes.get(tx, name).reachable:
            nodes.set_reachable(tx, name, True)
        cooling.note(tx, name, cooling_now.get(name, {}), cooled.get(name, ()))
        happened += attempts.apply(tx, name, fences)
    return happened


def _leave(tx: Transaction, names: tuple[str, ...]) -> None:
    cooling_now = cooling.get_all(tx)
    for name in names:
        if tx.one("node", name=name):
            nodes.set_reachable(tx, name, False, "its agent was stopped")
            cooling.note(tx, name, cooling_now.get(name, {}), ())
            attempts.leave_node(tx, name)


def _orders(tx: Transaction, held: Mapping[str, frozenset[int]], unknown: tuple[str, ...]) -> Orders:
    offered: list[Part] = []
    stop: list[tuple[str, int]] = []
    for name, parts in attempts.live_parts(tx, tuple(held)).items():
        found = reconcile(parts, held[name])
        offered += [part for part in parts if part.fence in found.offer]
        stop += [(name, fence) for fence in sorted(found.stop)]
    wanted = jobs.find(tx, [part.job for part in offered])
    start = [Offer(part, job) for part, job in zip(offered, wanted, strict=True)]
    return Orders(tuple(start), tuple(stop), unknown)


def _receive(tx: Transaction, received: list[Alert], ttl_seconds: float, policy: Policy) -> list[alerts.Effect]:
    return [alerts.receive(tx, alert, ttl_seconds, policy) for alert in received]


def _remove(tx: Transaction, name: str, force: bool, versions: Versions) -> list[attempts.Ended]:
    nodes.expect(tx, name, versions)
    nodes.get(tx, name)
    held = nodes.holders(tx, name)
    if held and not force:
        raise BusyNodeError(f"node {name} has {len(set(held.values()))} jobs; drain it first, or use force=true")
    ended = attempts.lose_node(tx, name, f"node {name} was removed")
    nodes.remove(tx, name)
    return ended


def _drain(tx: Transaction, name: str, reason: str, versions: Versions) -> Node:
    nodes.expect(tx, name, versions)
    return nodes.drain(tx, name, reason, Owner.PERSON)


def _cordon(tx: Transaction, name: str, gpu: int, reason: str, versions: Versions) -> Node:
    nodes.expect(tx, name, versions)
    nodes.cordon(tx, name, gpu, Owner.PERSON, reason)
    return nodes.get(tx, name)


def _undrain(tx: Transaction, name: str, versions: Versions) -> Node:
    """A person's word: the drain goes, and what automation holds the whole node for."""
    nodes.expect(tx, name, versions)
    nodes.undrain(tx, name, Owner.PERSON)
    return remediation.overrule(tx, name, WHOLE_NODE)


def _pause(tx: Transaction, name: str, reason: str, seconds: float | None, versions: Versions) -> Node:
    nodes.expect(tx, name, versions)
    nodes.cordon(tx, name, WHOLE_NODE, Owner.PERSON, reason, None if seconds is None else tx.now + seconds)
    return nodes.get(tx, name)


def _resume(tx: Transaction, name: str, versions: Versions) -> Node:
    nodes.expect(tx, name, versions)
    return remediation.overrule(tx, name, WHOLE_NODE)


def _mended(tx: Transaction, name: str) -> Node:
    for gpu in sorted({cordon.gpu for cordon in nodes.get(tx, name).cordons if cordon.owner == Owner.STETHOS}):
        remediation.overrule(tx, name, gpu, "the node was reset")
    tx.event("node.reset", name, owner=Owner.PERSON)
    return nodes.get(tx, name)


def _uncordon(tx: Transaction, name: str, gpu: int, versions: Versions) -> Node:
    nodes.expect(tx, name, versions)
    nodes.require(nodes.get(tx, name), gpu)
    return remediation.overrule(tx, name, gpu)
