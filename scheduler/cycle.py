"""The periodic work: place, expire leases and timeouts, read health. APScheduler keeps the time."""

import asyncio
import json
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime

import structlog
from apscheduler.schedulers.asyncio import AsyncIOScheduler

from . import placement
from .clock import now, rfc3339
from .health import HealthUnavailableError, Place, Prometheus, Reading, Thresholds, Verdict, judge
from .jobs import Job, JobState
from .nodes import SCORE, Node
from .queue import Queue
from .remediation import Policy
from .store import Transaction, UnavailableError, attempts, jobs, nodes, remediation, retention
from .store.retention import Keep

log = structlog.get_logger()

LOOK = tuple(each.name for each in fields(placement.Look))

#: Placements in one transaction: whoever else wants to write waits for no more.
TOGETHER = 25

#: An assignment with its explanation, as JSON.
Explained = tuple[placement.Assignment, str]


@dataclass(frozen=True, slots=True)
class Settings:
    """All in seconds, but for the batch: placements in one pass."""

    lost_seconds: float = 10.0
    start_seconds: float = 30.0
    place_every: float = 1.0
    expire_every: float = 1.0
    health_every: float = 5.0
    watch_every: float = 2.0
    batch: int = 200
    #: Between two passes, so that a burst of submissions is placed together.
    place_gap: float = 0.02
    keep: Keep = field(default_factory=Keep)
    thresholds: Thresholds = field(default_factory=Thresholds)
    policy: Policy = field(default_factory=Policy)


@dataclass(frozen=True, slots=True)
class Judged:
    """A reading's verdicts, and why automation left GPUs alone that it would have held."""

    verdicts: dict[Place, Verdict] = field(default_factory=dict)
    left_alone: dict[Place, str] = field(default_factory=dict)


class Cycle:
    def __init__(self, queue: Queue, prometheus: Prometheus | None, settings: Settings) -> None:
        self.settings = settings
        self.reading = Reading.none("off" if prometheus is None else "unreachable")
        self.reasons: Mapping[placement.Demand, placement.Reason] = {}
        self._queue = queue
        self._prometheus = prometheus
        self.judged = Judged()
        self._ticked_at = now()
        self._scheduler = AsyncIOScheduler(
            timezone="UTC",
            job_defaults={"coalesce": True, "max_instances": 1, "misfire_grace_time": 30},
        )
        self._placing: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Needs a running event loop."""
        add = self._scheduler.add_job
        add(self._queue.kicked.set, "interval", seconds=self.settings.place_every, id="place")
        add(_calmly, "interval", args=[self.expire], seconds=self.settings.expire_every, id="expire")
        add(_calmly, "interval", args=[self.watch], seconds=self.settings.watch_every, id="watch")
        if self._prometheus:
            add(
                _calmly,
                "interval",
                args=[self.read_health],
                seconds=self.settings.health_every,
                id="health",
                next_run_time=datetime.now(UTC),
            )
        self._scheduler.start()
        self._placing = asyncio.create_task(self._place_when_kicked())

    async def stop(self) -> None:
        self._scheduler.shutdown(wait=False)
        if self._placing:
            self._placing.cancel()
            await asyncio.gather(self._placing, return_exceptions=True)
        if self._prometheus:
            await self._prometheus.close()

    @property
    def idle_seconds(self) -> float:
        """Since the last complete placement pass."""
        return now() - self._ticked_at

    async def _place_when_kicked(self) -> None:
        while True:
            await self._queue.kicked.wait()
            self._queue.kicked.clear()
            try:
                await self.place()
                await asyncio.sleep(self.settings.place_gap)
            except UnavailableError as error:
                log.warning("no placement: the database cannot be used", detail=str(error))
                await asyncio.sleep(self.settings.place_every)
            except Exception:
                log.exception("a placement pass failed; the next one tries again")
                await asyncio.sleep(self.settings.place_every)

    async def place(self) -> None:
        """One pass. Others go on writing while it decides; what they have changed by then is not placed on."""
        store, batch = self._queue.store, self.settings.batch
        with self._queue.metrics.placement_seconds.time():
            plan, explained, versions = await store.read(_plan, self.scores(), batch)
            placed: list[placement.Assignment] = []
            for start in range(0, len(explained), TOGETHER):
                placed += await store.write(_place, explained[start : start + TOGETHER], versions)
        self.reasons = plan.reasons
        self._ticked_at = now()
        self._queue.metrics.decided(len(placed), [reason.obstacle for reason in plan.reasons.values()])
        if placed:
            self._queue.wake({share.node for assignment in placed for share in assignment.shares})
        if len(placed) == batch or len(placed) < len(plan.assignments):
            self._queue.kicked.set()

    async def expire(self) -> None:
        """Nodes not heard, jobs out of time."""
        queue = self._queue
        lost = self.settings.lost_seconds
        silent = [
            (node.name, now() - queue.heard.get(node.name, queue.started_at))
            for node in await queue.store.read(nodes.get_all)
            if node.reachable and now() - queue.heard.get(node.name, queue.started_at) > lost
        ]
        ended = await queue.store.write(_expire, silent, self.settings)
        for name, seconds in silent:
            log.warning("node lost", node=name, silent_seconds=round(seconds, 1))
        queue.count(ended)
        if ended or silent:
            queue.wake()
            queue.kicked.set()

    async def read_health(self) -> None:
        """One reading; what it makes of each GPU becomes or lifts a cordon."""
        assert self._prometheus is not None
        before = self.reading.state
        try:
            scores = await self._prometheus.scores()
            # A score that nobody can explain counts as well.
            anomalies = await self._prometheus.anomalies() if scores else {}
            self.reading = Reading("fresh", now(), scores, anomalies)
        except HealthUnavailableError as error:
            self._queue.metrics.health_errors.inc()
            self.reading = replace(self.reading, state="unreachable")
            if before != "unreachable":
                log.warning("no health from Prometheus; work goes on without an opinion", detail=str(error))
        if before != "fresh" and self.reading.state == "fresh":
            log.info("health is read from Prometheus", scores=len(self.reading.scores))
        left_alone = self.judged.left_alone
        self.judged = await self._queue.store.write(_judge, self.judged.verdicts, self.scores(), self.settings)
        for place, why in self.judged.left_alone.items():
            if left_alone.get(place) != why:
                log.warning("a bad GPU is left in service", node=place[0], gpu=place[1], why=why)
        self._queue.kicked.set()

    async def watch(self) -> None:
        """Cordons not renewed, nodes that swallow jobs, and places on their way back into service."""
        settings, queue = self.settings, self._queue
        clear = settings.thresholds.clear
        found = await queue.store.write(remediation.watch, settings.policy, self.scores(), clear)
        queue.metrics.canaries.labels("passed").inc(found.passed)
        queue.metrics.canaries.labels("failed").inc(found.failed)
        if found.wake or found.passed:
            queue.wake(found.wake)
            queue.kicked.set()

    def scores(self) -> dict[Place, float]:
        """The scores that are an opinion now."""
        stale = self.settings.thresholds.stale_seconds
        found = ((place, self.reading.at(place, stale)) for place in self.reading.scores)
        return {place: health.score for place, health in found if health}


async def _calmly(work: Callable[[], Awaitable[None]]) -> None:
    """Periodic work that the database cannot take now is done the next time."""
    try:
        await work()
    except UnavailableError as error:
        log.warning("the database cannot be used", work=getattr(work, "__name__", ""), detail=str(error))


def candidates(tx: Transaction, known: list[Node], scores: dict[Place, float]) -> list[placement.Candidate]:
    risks = {
        row["node"]: placement.risk(row["attempts"], row["infrastructure_failures"]) for row in tx.all("failed_nodes")
    }
    return [placement.candidate(node, scores, risks.get(node.name, 0.0)) for node in known]


def _plan(
    tx: Transaction, scores: dict[Place, float], batch: int
) -> tuple[placement.Plan, list[Explained], dict[str, int]]:
    """What to place where and why, and the versions of the nodes that it was decided on."""
    known = nodes.get_all(tx)
    able = candidates(tx, known, scores)
    free = sum(len(node.free) for node in able if node.why_not is None)
    waiting = jobs.waiting(tx, batch, free)
    plan = placement.plan(waiting, able, batch) if waiting else placement.Plan((), {})
    explained = [(assignment, _explanation(tx, assignment)) for assignment in plan.assignments]
    return plan, explained, {node.name: node.version for node in known}


def _explanation(tx: Transaction, assignment: placement.Assignment) -> str:
    looks = [{name: getattr(look, name) for name in LOOK} for look in assignment.why.looks]
    return json.dumps({"time": rfc3339(tx.now), "candidates": looks, "counts": assignment.why.counts})


def _place(tx: Transaction, explained: Sequence[Explained], versions: Mapping[str, int]) -> list[placement.Assignment]:
    """Those that still hold: the job waits, and nothing was decided about its nodes meanwhile."""
    current = {row["name"]: row["version"] for row in tx.all("node_versions")}
    found = jobs.find(tx, [assignment.job for assignment, _ in explained])
    waiting = {job.id: job for job in found if job.state == JobState.QUEUED}
    chosen = [
        (assignment, why)
        for assignment, why in explained
        if assignment.job in waiting
        and all(current.get(share.node) == versions[share.node] for share in assignment.shares)
    ]
    attempts.place(tx, [attempts.Placement(waiting[each.job], each.shares, why) for each, why in chosen])
    return [assignment for assignment, _ in chosen]


def _expire(tx: Transaction, silent: list[tuple[str, float]], settings: Settings) -> list[attempts.Ended]:
    ended = attempts.expire(tx, settings.start_seconds)
    for name, seconds in silent:
        reason = f"not heard for {seconds:.0f} s"
        nodes.set_reachable(tx, name, False, reason)
        ended += attempts.lose_node(tx, name, f"node lost: {name} was {reason}")
    tx.change("forget_answers", before=tx.now - 86_400)
    retention.prune(tx, settings.keep)
    return ended


def _judge(tx: Transaction, before: dict[Place, Verdict], scores: dict[Place, float], settings: Settings) -> Judged:
    """Bring the score cordons in line with the verdicts. After a restart the cordons are the memory."""
    judged = Judged()
    overruled = remediation.overruled(tx, SCORE)
    for node in nodes.get_all(tx):
        blocked = {cordon.gpu for cordon in node.cordons if cordon.source == SCORE}
        for gpu in node.gpus:
            place = node.name, gpu.index
            score = scores.get(place)
            old = before.get(place) or Verdict(blocked=gpu.index in blocked)
            judged.verdicts[place] = new = judge(old, score, tx.now, settings.thresholds)
            if new.blocked and gpu.index not in blocked:
                why = "no score" if score is None else f"score {score:.2f}"
                held = remediation.hold(tx, settings.policy, node, gpu.index, SCORE, why)
                if not held.done:
                    judged.left_alone[place] = held.effect
            elif gpu.index in blocked and not new.blocked:
                why = "no score for long" if score is None else f"score {score:.2f}"
                remediation.release(tx, settings.policy, *place, SCORE, why)
            elif place in overruled and not new.blocked:
                remediation.forget_overrule(tx, *place, SCORE)
    return judged


def why_waiting(job: Job, reasons: Mapping[placement.Demand, placement.Reason]) -> str | None:
    """Why a queued job waits, by the last pass; else what is stored (why it was queued again)."""
    wanted = job.specification
    reason = reasons.get((wanted.gpus, wanted.nodes))
    return reason.text if reason else job.reason
