"""Alerts as received, and the cordons that follow from them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass

from ..nodes import WHOLE_NODE, Node
from . import nodes
from .connection import Row
from .transaction import Transaction

GPU_ALERT = "GpuAnomalous"


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
        gpu = self.labels.get("gpu", "")
        return int(gpu) if gpu.isascii() and gpu.isdigit() and len(gpu) < 5 else None

    @property
    def source(self) -> str:
        return f"alert:{self.fingerprint}"

    @property
    def place(self) -> int | None:
        """What it takes out of service: a GPU, the WHOLE_NODE, or None: it is only recorded."""
        if self.gpu is not None and (self.name == GPU_ALERT or self.severity == "critical"):
            return self.gpu
        if "gpu" not in self.labels and self.severity == "critical":
            return WHOLE_NODE
        return None


@dataclass(frozen=True, slots=True)
class Received:
    alert: Alert
    effect: str
    received_at: float
    notifications: int


def receive(tx: Transaction, alert: Alert, ttl_seconds: float) -> str:
    """Note an alert and do what follows from it; the effect in words. The same again changes nothing,
    but renews what a firing one holds."""
    identity = {"fingerprint": alert.fingerprint, "starts_at": alert.starts_at}
    known = tx.one("alert", **identity, status=alert.status)
    over = alert.status == "firing" and tx.one("alert", **identity, status="resolved") is not None
    effect = "recorded" if over else _act(tx, alert, ttl_seconds)
    if known:
        kept = known["effect"] if effect == "recorded" else effect
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
        effect=effect,
        received_at=tx.now,
        **place,
    )
    told = {"status": alert.status, "severity": alert.severity, "effect": effect}
    tx.event("alert.received", alert.name, **told, **place)
    return effect


def recent(tx: Transaction, limit: int) -> list[Received]:
    return [_received(row) for row in tx.all("recent_alerts", limit=limit)]


def _act(tx: Transaction, alert: Alert, ttl_seconds: float) -> str:
    place = alert.place
    if alert.node is None or place is None:
        return "recorded"
    try:
        node: Node = nodes.get(tx, alert.node)
        whole = place == WHOLE_NODE
        if alert.status == "resolved":
            lifted = nodes.uncordon(tx, node.name, place, alert.source, f"{alert.name} resolved")
            return ("node released" if whole else "gpu released") if lifted else "recorded"
        reason = alert.annotations.get("summary") or f"alert {alert.name}"
        nodes.cordon(tx, node.name, place, alert.source, reason, tx.now + ttl_seconds)
        return "node held" if whole else "gpu cordoned"
    except nodes.UnknownNodeError:
        return "unknown node"


def _received(row: Row) -> Received:
    alert = Alert(
        row["fingerprint"],
        row["status"],
        row["starts_at"],
        json.loads(row["labels"]),
        json.loads(row["annotations"]),
    )
    return Received(alert, row["effect"], row["received_at"], row["notifications"])
