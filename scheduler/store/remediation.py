"""What automation does to the fleet, as stored: hold a place, take work away, let go after a canary's success."""

import json
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from ..jobs import JobState, JobType, Priority, Share, Specification
from ..nodes import FAST_FAIL, PROBATION, WHOLE_NODE, Cordon, Node, NodeState, Owner
from ..remediation import FAST_SECONDS, FAST_WINDOW_SECONDS, Breaker, Policy, Record, black_holes
from . import attempts, jobs, nodes
from .attempts import CANARY
from .connection import Row
from .transaction import Transaction


@dataclass(frozen=True, slots=True)
class Held:
    """What became of a wish to hold a place. `effect`: in words; `done`: whether it is held now."""

    effect: str
    done: bool
    ended: tuple[attempts.Ended, ...] = ()


@dataclass(slots=True)
class Watched:
    """What one look at the places on their way back has led to."""

    #: Nodes with something new for their agents.
    wake: set[str] = field(default_factory=set)
    passed: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Reliability:
    """How a node has served: attempts placed, those that its machine failed, and returns to service."""

    attempts: int = 0
    infrastructure_failures: int = 0
    repairs: int = 0


@dataclass(frozen=True, slots=True)
class Probation:
    """A place on its way back: failed canaries and relapses so far, and the canary job that runs, if one does."""

    node: str
    gpu: int
    strikes: int
    canary: str | None


def probations(tx: Transaction) -> list[Probation]:
    """The places whose evidence has gone, and that are tried out."""
    trying = {(row["node"], row["gpu"]) for row in tx.all("cordons") if row["source"] == PROBATION}
    return [
        Probation(row["node"], row["gpu"], row["strikes"], row["canary"])
        for row in tx.all("probations")
        if (row["node"], row["gpu"]) in trying
    ]


def hold(
    tx: Transaction,
    policy: Policy,
    node: Node,
    gpu: int,
    source: str,
    reason: str,
    expires_at: float | None = None,
    evict: bool = False,
    kin: str | None = None,
) -> Held:
    """Keep new work off a GPU (or WHOLE_NODE), and with `evict` take away what runs there, if that may be done.

    The same again only renews. A person's word stands against it (`overrule`; `kin` names a source that tells of the
    same thing), then the circuit breaker, then dry run.
    """
    what = "node held" if gpu == WHOLE_NODE else "gpu cordoned"
    if any((cordon.gpu, cordon.source) == (gpu, source) for cordon in node.cordons):
        nodes.cordon(tx, node.name, gpu, source, reason, expires_at, evict)
        return Held(what, True, tuple(_evict(tx, node.name, gpu, reason)) if evict else ())
    if {source, kin} & {row["source"] for row in tx.all("overruled_at", node=node.name, gpu=gpu)}:
        return Held("overruled by a person", False)
    if why_not := breaker(tx, policy).admit(node.rack, _more_gpus(node, gpu)):
        return Held(f"held back by the {why_not}", False)
    if policy.dry_run:
        return Held(f"dry run: would be {what.split()[1]}", False)
    nodes.cordon(tx, node.name, gpu, source, reason, expires_at, evict)
    return Held(what, True, tuple(_evict(tx, node.name, gpu, reason)) if evict else ())


def release(tx: Transaction, policy: Policy, name: str, gpu: int, source: str, why: str) -> bool:
    """One source holds a place no longer. When it was the last that held it, probation begins."""
    node = nodes.get(tx, name)
    mine = [cordon for cordon in node.cordons if cordon.gpu == gpu]
    last = all(cordon.source in (source, Owner.PERSON) for cordon in mine)
    if last and policy.canary_seconds > 0 and any(cordon.source == source for cordon in mine):
        row = tx.one("probation", node=name, gpu=gpu)
        strikes = row["strikes"] if row else 0
        due = tx.now + (policy.retry_after(strikes) if strikes else 0.0)
        tx.change("put_probation", node=name, gpu=gpu, strikes=strikes, canary=None, due=due)
        nodes.cordon(tx, name, gpu, PROBATION, f"probation after: {why}")
    return nodes.uncordon(tx, name, gpu, source, why)


def overrule(tx: Transaction, name: str, gpu: int, mended: str | None = None) -> Node:
    """A person puts a place back into service: everybody's cordon goes, and what the automation knew of does not
    bring it back. New evidence may. Where it was `mended`, as told there, only the automation's cordons go.
    """
    mine = [cordon for cordon in nodes.get(tx, name).cordons if cordon.gpu == gpu]
    for cordon in mine:
        if cordon.evidence:
            tx.change("overrule", node=name, gpu=gpu, source=cordon.source, now=tx.now)
        if mended and cordon.owner == Owner.STETHOS:
            nodes.uncordon(tx, name, gpu, cordon.source, mended)
    if not mended:
        nodes.uncordon(tx, name, gpu)
    if row := tx.one("probation", node=name, gpu=gpu):
        _stop(tx, row["canary"])
        tx.change("forget_probation", node=name, gpu=gpu)
    return nodes.get(tx, name)


def forget_overrule(tx: Transaction, name: str, gpu: int, source: str) -> None:
    """What a person had overruled is over; when it comes again, it counts again."""
    tx.change("forget_overrule", node=name, gpu=gpu, source=source)


def overruled(tx: Transaction, source: str) -> set[tuple[str, int]]:
    """The places where a person has overruled this source."""
    return {(row["node"], row["gpu"]) for row in tx.all("overruled") if row["source"] == source}


def breaker(tx: Transaction, policy: Policy) -> Breaker:
    """The circuit breaker as the cordons have it now."""
    out: dict[str, tuple[str, set[int], int]] = {}
    for row in tx.all("automatic_cordons"):
        _, gpus, _ = out.setdefault(row["node"], (row["rack"], set(), row["gpu_count"]))
        gpus.add(row["gpu"])
    racks = {row["rack"]: (int(row["gpus"]), 0) for row in tx.all("rack_sizes")}
    for rack, gpus, count in out.values():
        size, held = racks[rack]
        racks[rack] = size, held + (count if WHOLE_NODE in gpus else len(gpus))
    return Breaker(policy, racks)


def reliability(tx: Transaction) -> dict[str, Reliability]:
    return {
        row["node"]: Reliability(row["attempts"], row["infrastructure_failures"], row["repairs"])
        for row in tx.all("reliability")
    }


def watch(tx: Transaction, policy: Policy, scores: Mapping[tuple[str, int], float], clear: float) -> Watched:
    """Let go what nobody renewed, hold black holes, and bring places on probation further.

    `clear`: a canary counts only if the score of its GPUs is below that, or there is none.
    """
    found = Watched()
    for row in tx.all("expired_cordons", now=tx.now):
        place = row["node"], row["gpu"], row["source"]
        if row["source"] == Owner.PERSON:
            nodes.uncordon(tx, *place, "the pause is over")
        else:
            release(tx, policy, *place, "not renewed in time")
    tx.change("forget_old_overrules", source=FAST_FAIL, before=tx.now - FAST_WINDOW_SECONDS)
    _hold_black_holes(tx, policy)
    for row in tx.all("probations"):
        _go_on(tx, policy, row, scores, clear, found)
    return found


def _hold_black_holes(tx: Transaction, policy: Policy) -> None:
    since = tx.now - FAST_WINDOW_SECONDS
    failed = {
        row["node"]: row["jobs"] for row in tx.all("recent_fast_failures", since=since, fast_seconds=FAST_SECONDS)
    }
    if not failed:
        return
    ended = {row["node"]: row["ended"] for row in tx.all("recent_ends", since=since)}
    for name in black_holes({name: Record(count, failed.get(name, 0)) for name, count in ended.items()}):
        try:
            node = nodes.get(tx, name)
        except nodes.UnknownNodeError:
            continue
        if all(cordon.source != FAST_FAIL for cordon in node.cordons):
            reason = f"{failed[name]} jobs failed there within {FAST_SECONDS:g} s of their start"
            hold(tx, policy, node, WHOLE_NODE, FAST_FAIL, reason, tx.now + FAST_WINDOW_SECONDS)


def _go_on(
    tx: Transaction, policy: Policy, row: Row, scores: Mapping[tuple[str, int], float], clear: float, found: Watched
) -> None:
    """One place on probation, one step further."""
    name, gpu = row["node"], row["gpu"]
    node = nodes.get(tx, name)
    if gpu != WHOLE_NODE and gpu not in {each.index for each in node.gpus}:
        return  # the node came back with fewer GPUs: it is out of service until that one is there again
    mine = [cordon for cordon in node.cordons if cordon.gpu == gpu]
    if any(cordon.evidence for cordon in mine):
        _relapse(tx, row, any(cordon.source == PROBATION for cordon in mine))
        return
    canary = jobs.get(tx, row["canary"]) if row["canary"] else None
    if canary is None:
        gpus = tuple(each.index for each in node.gpus) if gpu == WHOLE_NODE else (gpu,)
        if tx.now >= row["due"] and _able(node, mine) and node.held.isdisjoint(gpus):
            tx.change(
                "put_probation", **_place(row), strikes=row["strikes"], canary=_start(tx, policy, node, gpus), due=0
            )
            found.wake.add(name)
    elif canary.state == JobState.SUCCEEDED:
        if _worst(scores, node, gpu) < clear:
            nodes.uncordon(tx, name, gpu, PROBATION, "a canary job succeeded")
            tx.change("forget_probation", **_place(row))
            attempts.count(tx, [name], repairs=1)
            found.passed += 1
    elif canary.state == JobState.CANCELLED:
        # Handed back, or cancelled by a person: that says nothing about the GPU.
        again = tx.now + policy.retry_seconds
        tx.change("put_probation", **_place(row), strikes=row["strikes"], canary=None, due=again)
    elif canary.state.final:
        strikes = row["strikes"] + 1
        wait = policy.retry_after(strikes)
        tx.change("put_probation", **_place(row), strikes=strikes, canary=None, due=tx.now + wait)
        told = {"node": name, "gpu": None if gpu == WHOLE_NODE else gpu, "reason": canary.reason}
        tx.event("canary.failed", canary.id, **told, strikes=strikes, next_seconds=wait)
        found.failed += 1


def _relapse(tx: Transaction, row: Row, on_probation: bool) -> None:
    """The evidence is back before the canary was through: that is a strike."""
    if on_probation:
        _stop(tx, row["canary"])
        tx.change("put_probation", **_place(row), strikes=row["strikes"] + 1, canary=None, due=tx.now)
        nodes.uncordon(tx, row["node"], row["gpu"], PROBATION, "the evidence is back")


def _able(node: Node, mine: Iterable[Cordon]) -> bool:
    """Whether a canary may go to a node: it lives, and no person keeps it."""
    return node.state == NodeState.HEALTHY and all(cordon.owner != Owner.PERSON for cordon in (*mine, *node.holds))


def _start(tx: Transaction, policy: Policy, node: Node, gpus: tuple[int, ...]) -> str:
    """A canary job, on exactly these GPUs. It has no retries: it would try others."""
    seconds = policy.canary_seconds
    where = f"{node.name}-{gpus[0]}" if len(gpus) == 1 else node.name
    wanted = Specification(
        type=JobType.MATRIX,
        gpus=len(gpus),
        priority=Priority.CRITICAL,
        name=f"canary-{where}",
        timeout_seconds=3 * seconds + 60,
        retries=0,
        duration_seconds=seconds,
        origin=CANARY,
    )
    job = jobs.submit(tx, wanted)
    explanation = json.dumps({"canary": f"{node.name} is on probation", "candidates": []})
    attempts.place(tx, [attempts.Placement(job, (Share(node.name, gpus),), explanation)])
    return job.id


def _stop(tx: Transaction, canary: str | None) -> None:
    if canary and not jobs.get(tx, canary).state.final:
        attempts.cancel(tx, canary, "the probation it was for is over")


def _worst(scores: Mapping[tuple[str, int], float], node: Node, gpu: int) -> float:
    gpus = [each.index for each in node.gpus] if gpu == WHOLE_NODE else [gpu]
    return max((scores.get((node.name, index), 0.0) for index in gpus), default=0.0)


def _more_gpus(node: Node, gpu: int) -> int:
    """How many GPUs more would be out of service."""
    out = {cordon.gpu for cordon in node.cordons if cordon.owner == Owner.STETHOS}
    if WHOLE_NODE in out or gpu in out:
        return 0
    return len(node.gpus) - len(out) if gpu == WHOLE_NODE else 1


def _evict(tx: Transaction, name: str, gpu: int, reason: str) -> list[attempts.Ended]:
    held = tx.all("live_holdings_of", node=name, gpu=gpu)
    ended = [attempts.take_back(tx, row["fence"], name, f"taken from {name}: {reason}") for row in held]
    return [end for end in ended if end]


def _place(row: Row) -> dict[str, str | int]:
    return {"node": row["node"], "gpu": row["gpu"]}
