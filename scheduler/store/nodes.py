"""Nodes, drains and cordons as stored."""

import json
from collections.abc import Iterable
from functools import lru_cache

from ..nodes import (
    PROBATION,
    WHOLE_NODE,
    Cordon,
    Drain,
    Gpu,
    Node,
    NodeState,
    Owner,
    may_drain,
    may_undrain,
)
from .connection import Row
from .transaction import Transaction

NONE: frozenset[int] = frozenset()


class UnknownNodeError(LookupError):
    """There is no such node, or it has no such GPU."""


class ChangedNodeError(ValueError):
    """The node is not as the caller has seen it."""


def register(tx: Transaction, name: str, rack: str | None, kind: str, gpus: Iterable[Gpu]) -> Node:
    """Make a node known, or renew what is known of it; drains, cordons and jobs stay as they are."""
    text = json.dumps([{"gpu": gpu.index, "uuid": gpu.uuid, "model": gpu.model} for gpu in gpus])
    before = tx.one("node", name=name)
    if before is None or (before["gpus"], before["rack"], before["kind"]) != (text, rack, kind):
        count = len(described(text))
        tx.change("put_node", name=name, rack=rack, kind=kind, gpus=text, gpu_count=count, now=tx.now)
        tx.event("node.registered", name)
    return get(tx, name)


def expect(tx: Transaction, name: str, versions: frozenset[int] | None) -> None:
    """Raises ChangedNodeError unless the node has one of these versions; None is any."""
    if versions is not None and (found := get(tx, name).version) not in versions:
        expected = " or ".join(str(version) for version in sorted(versions)) or "any that is given"
        raise ChangedNodeError(f"node {name} has changed: it is at version {found}, not at {expected}")


def get(tx: Transaction, name: str) -> Node:
    row = tx.one("node", name=name)
    if row is None:
        raise UnknownNodeError(f"there is no node {name!r}")
    held = frozenset(row["gpu"] for row in tx.all("holdings_of", node=name))
    return _node(row, tuple(_cordon(row) for row in tx.all("cordons_of", node=name)), held)


def get_all(tx: Transaction) -> list[Node]:
    cordons: dict[str, list[Cordon]] = {}
    for row in tx.all("cordons"):
        cordons.setdefault(row["node"], []).append(_cordon(row))
    held: dict[str, frozenset[int]] = {}
    for row in tx.all("held_gpus"):
        held[row["node"]] = held.get(row["node"], NONE) | _gpus(row["word"], int(row["bits"]))
    return [_node(row, tuple(cordons.get(row["name"], ())), held.get(row["name"], NONE)) for row in tx.all("nodes")]


def holders(tx: Transaction, node: str | None = None) -> dict[tuple[str, int], str]:
    """(node, GPU) → the id of the job that holds it; on one node, or on all."""
    rows = tx.all("holdings") if node is None else tx.all("holdings_of", node=node)
    return {(row["node"], row["gpu"]): row["job"] for row in rows}


def remove(tx: Transaction, name: str) -> None:
    for statement in ("forget_cordons", "forget_probations", "forget_overrules", "forget_coolings"):
        tx.change(statement, node=name)
    tx.change("remove_node", name=name)
    tx.event("node.removed", name)


def set_reachable(tx: Transaction, name: str, reachable: bool, reason: str | None = None) -> None:
    tx.change("set_reachable", name=name, reachable=int(reachable), reason=reason)
    if reachable:
        tx.event("node.healthy", name)
    else:
        tx.event("node.unreachable", name, reason=reason)


def drain(tx: Transaction, name: str, reason: str, owner: Owner) -> Node:
    """No new work; what runs goes on. A person's drain is never overwritten by Stethos."""
    node = get(tx, name)
    if not may_drain(node.drain, owner):
        return node
    since = node.drain.since if node.drain else tx.now
    tx.change("set_drain", name=name, reason=reason, owner=owner, since=since)
    if node.drain != Drain(reason, owner, since):
        tx.event("node.draining", name, reason=reason, owner=owner)
        tell_if_drained(tx, name)
    return get(tx, name)


def undrain(tx: Transaction, name: str, owner: Owner) -> Node:
    """Take work again. Stethos lifts only its own drains; a person lifts any."""
    node = get(tx, name)
    if not may_undrain(node.drain, owner):
        return node
    tx.change("set_drain", name=name, reason=None, owner=None, since=None)
    tx.event("node.undrained", name, owner=owner)
    return get(tx, name)


def tell_if_drained(tx: Transaction, name: str) -> None:
    """Called when the last work may have left: drained is a state of its own, and is told."""
    row = tx.one("node", name=name)
    if row and row["drain_owner"] and get(tx, name).state == NodeState.DRAINED:
        tx.event("node.drained", name, reason=row["drain_reason"], owner=row["drain_owner"])


def cordon(
    tx: Transaction,
    name: str,
    gpu: int,
    source: str,
    reason: str,
    expires_at: float | None = None,
    evict: bool = False,
) -> bool:
    """Keep new work off a GPU (or WHOLE_NODE). Whether it is new; a known one is only renewed."""
    node = get(tx, name)
    require(node, gpu)
    reasons = {(known.gpu, known.source): known.reason for known in node.cordons}
    new = (gpu, source) not in reasons
    if reasons.get((gpu, source)) != reason:
        tx.change("touch_node", name=name)
    tx.change(
        "put_cordon",
        node=name,
        gpu=gpu,
        source=source,
        reason=reason,
        since=tx.now,
        expires_at=expires_at,
        evict=int(evict),
    )
    if new:
        owner = Owner.PERSON if source == Owner.PERSON else Owner.STETHOS
        if gpu == WHOLE_NODE:
            told = "node.probation" if source == PROBATION else "node.held"
            tx.event(told, name, reason=reason, owner=owner)
        else:
            told = "gpu.probation" if source == PROBATION else "gpu.cordoned"
            tx.event(told, f"{name}/{gpu}", node=name, gpu=gpu, reason=reason, owner=owner)
    return new


def uncordon(tx: Transaction, name: str, gpu: int, source: str | None = None, reason: str | None = None) -> bool:
    """Lift one source's cordon, or everybody's. Told only when it was the last."""
    if source is None:
        require(get(tx, name), gpu)
        lifted = tx.all("lift_all_cordons", node=name, gpu=gpu)
    else:
        lifted = tx.all("lift_cordon", node=name, gpu=gpu, source=source)
    if lifted:
        tx.change("touch_node", name=name)
    if not lifted or any(row["gpu"] == gpu for row in tx.all("cordons_of", node=name)):
        return bool(lifted)
    owner = Owner.PERSON if source is None else Owner.STETHOS
    if gpu == WHOLE_NODE:
        tx.event("node.released", name, owner=owner, reason=reason)
    else:
        tx.event("gpu.uncordoned", f"{name}/{gpu}", node=name, gpu=gpu, owner=owner, reason=reason)
    return True


def require(node: Node, gpu: int) -> None:
    """Raises UnknownNodeError unless the node has that GPU (or it is WHOLE_NODE)."""
    if gpu != WHOLE_NODE and gpu not in {known.index for known in node.gpus}:
        raise UnknownNodeError(f"node {node.name} has no GPU {gpu}")


def _cordon(row: Row) -> Cordon:
    return Cordon(
        row["node"], row["gpu"], row["source"], row["reason"], row["since"], row["expires_at"], bool(row["evict"])
    )


def _node(row: Row, cordons: tuple[Cordon, ...], held: frozenset[int]) -> Node:
    drain = None
    if row["drain_owner"]:
        drain = Drain(row["drain_reason"], Owner(row["drain_owner"]), row["drain_since"])
    return Node(
        row["name"],
        row["rack"],
        row["kind"],
        described(row["gpus"]),
        bool(row["reachable"]),
        row["reason"],
        drain,
        cordons,
        held,
        row["version"],
    )


@lru_cache(maxsize=16_384)
def _gpus(word: int, bits: int) -> frozenset[int]:
    """The GPUs of a row of `held_gpus`."""
    return frozenset(30 * word + bit for bit in range(30) if bits >> bit & 1)


@lru_cache(maxsize=16_384)
def described(text: str) -> tuple[Gpu, ...]:
    """A node's GPUs. Read once for each node, since they hardly ever change."""
    return tuple(Gpu(gpu["gpu"], gpu["uuid"], gpu["model"]) for gpu in json.loads(text))
