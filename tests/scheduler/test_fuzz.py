"""Whatever is sent, the answer is never a crash. STETHOS_EXAMPLES sets how many bodies each path gets."""

import os
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from .processes import Json, Scheduler

EXAMPLES = int(os.environ.get("STETHOS_EXAMPLES", "60"))

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4),
    max_leaves=12,
)


def some(needed: dict[str, st.SearchStrategy[Any]], *optional: str) -> st.SearchStrategy[Any]:
    """An object with what is needed and some of the rest, or something else altogether."""
    return st.fixed_dictionaries(needed, optional=dict.fromkeys(optional, values)) | values


words = values | st.sampled_from(["n", "0", "1", "critical", "GpuAnomalous"])
labels = st.fixed_dictionaries({}, optional=dict.fromkeys(("node", "gpu", "severity", "alertname"), words))
statuses = st.sampled_from(["firing", "resolved"]) | values
alerts = some({"status": statuses, "labels": labels | values}, "annotations", "startsAt", "fingerprint", "endsAt")
sleep = {"type": st.just("sleep"), "gpus": st.just(1)}
bodies = {
    "/v1/alerts": some({"alerts": st.lists(alerts, max_size=5) | values}, "truncatedAlerts"),
    "/v1/jobs": some(
        sleep, "nodes", "priority", "name", "timeout_seconds", "retries", "duration_seconds", "parameters"
    ),
    "/v1/nodes": some({"node": st.just("n"), "gpus": values}, "rack", "model"),
    "/v1/nodes/n/drain": some({"reason": values}),
    "/v1/nodes/n/pause": some({"reason": st.just("fans") | values}, "seconds"),
    "/v1/nodes/n/gpus/0/cordon": some({"reason": values}),
    "/v1/heartbeats": some({"nodes": values}, "leaving"),
    "/v1/attempts/999999999999999999/report": some({"node": st.text(), "outcome": st.just("failed")}),
}


@pytest.mark.parametrize("path", bodies)
def test_no_body_is_a_crash(scheduler: Scheduler, path: str) -> None:
    scheduler.node("n", gpus=2)

    @settings(max_examples=EXAMPLES, deadline=None, database=None, suppress_health_check=list(HealthCheck))
    @given(bodies[path])
    def send(body: Json) -> None:
        answer = scheduler.http.post(path, json=body)
        assert answer.status_code < 500, answer.text
        if answer.status_code >= 400:
            assert answer.headers["content-type"] == "application/problem+json"

    send()
