"""/v1/alerts: Alertmanager's webhook (version 4), and what came through it."""

import hashlib
import json
from typing import Annotated, Literal

import structlog
from pydantic import BaseModel, ConfigDict, Field, JsonValue, ValidationError
from starlette.requests import Request
from starlette.responses import Response

from ..auth import Scope
from ..clock import rfc3339
from ..store import alerts as stored
from .context import context
from .endpoint import Answer, Endpoint, Parameters, answer, parse, parse_query

log = structlog.get_logger()


class Webhook(BaseModel):
    """Only what is read of it; Alertmanager adds fields with time."""

    model_config = ConfigDict(extra="ignore")

    alerts: list[JsonValue]
    truncatedAlerts: Annotated[int, Field(strict=True, ge=0)] = 0  # noqa: N815 - Alertmanager's own name


class WebhookAlert(BaseModel):
    model_config = ConfigDict(extra="ignore")

    status: Literal["firing", "resolved"]
    labels: dict[str, str]
    annotations: dict[str, str] = {}
    startsAt: Annotated[str, Field(max_length=100)] = ""  # noqa: N815
    fingerprint: Annotated[str, Field(max_length=100)] = ""

    def alert(self) -> stored.Alert:
        identity = json.dumps(self.labels, sort_keys=True).encode()
        fingerprint = self.fingerprint or hashlib.sha256(identity).hexdigest()[:16]
        return stored.Alert(fingerprint, self.status, self.startsAt, self.labels, self.annotations)


class Taken(Answer):
    accepted: int
    invalid: Annotated[int, Field(description="Alerts that could not be read; they are logged and left out.")]


class AlertAnswer(Answer):
    name: str
    status: str
    severity: str | None
    node: str | None
    gpu: int | None
    labels: dict[str, str]
    annotations: dict[str, str]
    starts_at: str
    received_at: str
    notifications: int
    effect: str

    @classmethod
    def of(cls, received: stored.Received) -> "AlertAnswer":
        alert = received.alert
        return cls(
            name=alert.name,
            status=alert.status,
            severity=alert.severity,
            node=alert.node,
            gpu=alert.gpu,
            labels=dict(alert.labels),
            annotations=dict(alert.annotations),
            starts_at=alert.starts_at,
            received_at=rfc3339(received.received_at),
            notifications=received.notifications,
            effect=received.effect,
        )


class AlertQuery(Parameters):
    limit: Annotated[int, Field(ge=1, le=1000)] = 50


class AlertList(Answer):
    alerts: list[AlertAnswer]


async def receive(request: Request) -> Response:
    """One bad alert does not cost the others: only what cannot be stored is an error, and is sent again."""
    webhook = await parse(request, Webhook)
    alerts, invalid = [], 0
    for given in webhook.alerts:
        try:
            alerts.append(WebhookAlert.model_validate(given).alert())
        except ValidationError as error:
            invalid += 1
            log.warning("an alert that cannot be read", errors=error.error_count(), detail=str(error)[:300])
    if webhook.truncatedAlerts:
        log.warning("Alertmanager left alerts out of its notification", truncated=webhook.truncatedAlerts)
    await context(request).queue.receive(alerts, invalid)
    return answer(Taken(accepted=len(alerts), invalid=invalid))


async def list_alerts(request: Request) -> Response:
    limit = parse_query(request, AlertQuery).limit
    found = await context(request).queue.store.read(stored.recent, limit)
    return answer(AlertList(alerts=[AlertAnswer.of(received) for received in found]))


ENDPOINTS = [
    Endpoint(
        "POST",
        "/v1/alerts",
        receive,
        "Alertmanager's webhook, version 4. Repeats are harmless; unknown fields are ignored.",
        body=Webhook,
        answer=Taken,
        scope=Scope.ALERTS,
    ),
    Endpoint("GET", "/v1/alerts", list_alerts, "Alerts received, newest first.", query=AlertQuery, answer=AlertList),
]
