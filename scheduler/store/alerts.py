"""Alerts as received, and the cordons that follow from them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from ..nodes import SCORE, WHOLE_NODE, gpu_named
from ..remediation import Policy
from . import nodes, remediation
from .attempts import Ended
from .connection import Row
from .transaction import Transaction

GPU_ALERT = "GpuAnomalous"

#: Characters of a text from outside that an index or a reason takes.
LONGEST = 500


class Action(StrEnum):
    """What an alert asks for: only to be noted, to keep new work off, or to take away what runs there, too."""

    OBSERVE = "observe"
    CORDON = "cordon"
    DRAIN = "drain"


@dataclass(frozen=True, slots=True)
class Alert:
    """One alert of a notification. `starts_at` stays the text it came as: it is part of its identity."""

    fingerprint: str
    status: str
    starts_at: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]

    @property
    def name(self) -> str:
        return self.labels.get("alertname", "")

    @property
    def severity(self) -> str | None:
        return self.labels.get("severity")

    @property
    def node(self) -> str | None:
        return self.labels.get("node")

    @property
    def gpu(self) -> int | None:
        return gpu_named(self.labels.get("gpu", ""))

    @property
    def source(self) -> str:
        return f"alert:{self.fingerprint}"

    @property
    def action(self) -> Action:
        """What its label `action` asks for; without one a critical alert, and one about a score, cordons."""
        named = self.labels.get("action", "")
        if named in set(Action):
            return Action(named)
        return Action.CORDON if self.severity == "critical" or self.name == GPU_ALERT else Action.OBSERVE

    @property
    def place(self) -> int | None:
        """What it takes out of service: a GPU, the WHOLE_NODE, or None: it is only recorded."""
        if self.action == Action.OBSERVE:
            return None
        if "gpu" in self.labels:
            return self.gpu
        return None if self.name == GPU_ALERT else WHOLE_NODE


@dataclass(frozen=True, slots=True)
class Received:
    alert: Alert
    effect: str
    received_at: float
    notifications: int


@dataclass(frozen=True, slots=True)
class Effect:
    """What followed from an alert, in words, and the jobs that ended by it."""

    text: str
    ended: tuple[Ended, ...] = ()


def receive(tx: Transaction, alert: Alert, ttl_seconds: float, policy: Policy) -> Effect:
    """Note an alert and do what follows from it. The same again changes nothing, but renews what a firing one holds."""
    identity = {"fingerprint": alert.fingerprint, "starts_at": alert.starts_at}
    known = tx.one("alert", **identity, status=alert.status)
    over = alert.status == "firing" and tx.one("alert", **identity, status="resolved") is not None
    effect = Effect("recorded") if over else _act(tx, alert, ttl_seconds, policy, new=known is None)
    if known:
        kept = known["effect"] if effect.text == "recorded" else effect.text
        tx.change("repeat_alert", **identity, status=alert.status, received_at=tx.now, effect=kept)
        return effect
    place = {"node": alert.node, "gpu": alert.gpu}
    tx.change(
        "add_alert",
        **identity,
        status=alert.status,
        name=alert.name,
        severity=alert.severity,
        labels=json.dumps(dict(alert.labels)),
        annotations=json.dumps(dict(alert.annotations)),
        effect=effect.text,
        received_at=tx.now,
        **place,
    )
    told = {"status": alert.status, "severity": alert.severity, "effect": effect.text}
    tx.event("alert.received", alert.name[:LONGEST], **told, **place)
    return effect


def recent(tx: Transaction, limit: int) -> list[Received]:
    return [_received(row) for row in tx.all("recent_alerts", limit=limit)]


def _act(tx: Transaction, alert: Alert, ttl_seconds: float, policy: Policy, new: bool) -> Effect:
    gpu = alert.place
    if alert.node is None or gpu is None:
        return Effect("recorded")
    try:
        node = nodes.get(tx, alert.node)
        if alert.status == "resolved":
            remediation.forget_overrule(tx, node.name, gpu, alert.source)
            lifted = remediation.release(tx, policy, node.name, gpu, alert.source, f"{alert.name} resolved")
            return Effect(("node released" if gpu == WHOLE_NODE else "gpu released") if lifted else "recorded")
        if new:
            # Overruled was the alert as it fired before; this is another time.
            remediation.forget_overrule(tx, node.name, gpu, alert.source)
        reason = (alert.annotations.get("summary") or f"alert {alert.name}")[:LONGEST]
        evict = alert.action == Action.DRAIN
        kin = SCORE if alert.name == GPU_ALERT else None
        until = tx.now + ttl_seconds
        held = remediation.hold(tx, policy, node, gpu, alert.source, reason, until, evict, kin)
        return Effect(held.effect, held.ended)
    except nodes.UnknownNodeError:
        return Effect("unknown node")


def _received(row: Row) -> Received:
    alert = Alert(
        row["fingerprint"],
        row["status"],
        row["starts_at"],
        json.loads(row["labels"]),
        json.loads(row["annotations"]),
    )
    return Received(alert, row["effect"], row["received_at"], row["notifications"])
