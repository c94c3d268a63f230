"""Alertmanager's webhook: repeated, mixed, late and broken notifications."""

from typing import Any

import pytest

from .processes import Json, Scheduler, until

STARTED = "2026-01-31T12:00:00.000Z"


def alert(status: str = "firing", fingerprint: str = "f1", started: str = STARTED, **labels: str) -> Json:
    return {
        "status": status,
        "labels": {"alertname": "GpuAnomalous", "severity": "warning", **labels},
        "annotations": {"summary": "GPU is going bad"},
        "startsAt": started,
        "endsAt": "0001-01-01T00:00:00Z",
        "generatorURL": "http://prometheus/graph",
        "fingerprint": fingerprint,
    }


def notify(scheduler: Scheduler, *alerts: Any) -> Json:
    body = {
        "version": "4",
        "groupKey": "{}:{}",
        "truncatedAlerts": 0,
        "status": "firing",
        "receiver": "scheduler",
        "externalURL": "http://alertmanager",
        "something": {"new": True},
        "alerts": list(alerts),
    }
    return scheduler.post("/v1/alerts", body)


def cordons(scheduler: Scheduler) -> list[str | None]:
    gpus = scheduler.get("/v1/nodes/n")["gpus"]
    return [gpu["cordon"] and gpu["cordon"]["owner"] for gpu in gpus]


def newest(scheduler: Scheduler) -> Json:
    found: Json = scheduler.get("/v1/alerts?limit=1")["alerts"][0]
    return found


@pytest.fixture
def node(scheduler: Scheduler) -> Json:
    return scheduler.node("n", gpus=2)


@pytest.mark.usefixtures("node")
class TestAlerts:
    def test_a_firing_gpu_alert_cordons_that_gpu_until_it_is_resolved(self, scheduler: Scheduler) -> None:
        notify(scheduler, alert(fingerprint="a1", node="n", gpu="1"))
        assert cordons(scheduler) == [None, "stethos"]
        assert newest(scheduler)["effect"] == "gpu cordoned"
        notify(scheduler, alert("resolved", fingerprint="a1", node="n", gpu="1"))
        assert cordons(scheduler) == [None, None]
        assert newest(scheduler)["effect"] == "gpu released"

    def test_a_repeated_alert_is_counted_not_doubled(self, scheduler: Scheduler) -> None:
        before = scheduler.get("/v1/fleet")["sequence"]
        for _ in range(3):
            notify(scheduler, alert(fingerprint="a2", node="n", gpu="0"))
        assert newest(scheduler)["notifications"] == 3
        assert scheduler.get("/v1/fleet")["sequence"] == before + 2  # one cordon, one alert
        notify(scheduler, alert("resolved", fingerprint="a2", node="n", gpu="0"))

    def test_a_late_firing_after_its_own_resolution_holds_nothing(self, scheduler: Scheduler) -> None:
        notify(scheduler, alert("resolved", fingerprint="a3", node="n", gpu="0"))
        notify(scheduler, alert(fingerprint="a3", node="n", gpu="0"))
        assert cordons(scheduler) == [None, None]
        notify(scheduler, alert(fingerprint="a3", started="2026-01-31T13:00:00Z", node="n", gpu="0"))
        assert cordons(scheduler) == ["stethos", None]

    def test_one_notification_may_fire_and_resolve(self, scheduler: Scheduler) -> None:
        notify(scheduler, alert(fingerprint="a4", node="n", gpu="0"))
        notify(
            scheduler,
            alert("resolved", fingerprint="a4", node="n", gpu="0"),
            alert(fingerprint="a5", node="n", gpu="1"),
        )
        assert cordons(scheduler) == [None, "stethos"]

    def test_two_alerts_on_one_gpu_hold_it_until_both_are_resolved(self, scheduler: Scheduler) -> None:
        xid = {"alertname": "GpuXid", "severity": "critical", "node": "n", "gpu": "0"}
        notify(scheduler, alert(fingerprint="a6", node="n", gpu="0"), alert(fingerprint="a7", **xid))
        notify(scheduler, alert("resolved", fingerprint="a6", node="n", gpu="0"))
        assert cordons(scheduler) == ["stethos", None]
        notify(scheduler, alert("resolved", fingerprint="a7", **xid))
        assert cordons(scheduler) == [None, None]

    def test_an_alert_leaves_the_cordon_of_a_person_alone(self, scheduler: Scheduler) -> None:
        scheduler.post("/v1/nodes/n/gpus/0/cordon", {"reason": "mine"})
        notify(scheduler, alert(fingerprint="a8", node="n", gpu="0"))
        notify(scheduler, alert("resolved", fingerprint="a8", node="n", gpu="0"))
        assert cordons(scheduler) == ["person", None]

    def test_a_critical_node_alert_holds_the_node(self, scheduler: Scheduler) -> None:
        down = {"alertname": "NodeHot", "severity": "critical", "node": "n"}
        notify(scheduler, alert(fingerprint="a9", **down))
        node = scheduler.get("/v1/nodes/n")
        assert (node["state"], node["placeable"], node["reason"]) == ("healthy", False, "GPU is going bad")
        waiting = scheduler.submit()
        until(lambda: "1 × GPU is going bad" in (scheduler.job(waiting["id"])["reason"] or ""))
        notify(scheduler, alert("resolved", fingerprint="a9", **down))
        scheduler.becomes(waiting, "assigned")

    def test_other_alerts_are_only_recorded(self, scheduler: Scheduler) -> None:
        notify(scheduler, alert(fingerprint="b1", alertname="DetectorStale", severity="critical"))
        assert newest(scheduler)["effect"] == "recorded"
        notify(scheduler, alert(fingerprint="b2", alertname="NodeWarm", node="n"))
        assert newest(scheduler)["effect"] == "recorded"
        assert scheduler.get("/v1/nodes/n")["placeable"] is True

    def test_a_missing_resolution_holds_nothing_for_ever(self, scheduler: Scheduler) -> None:
        """The shared server's alerts live for two seconds."""
        notify(scheduler, alert(fingerprint="b3", node="n", gpu="0"))
        assert cordons(scheduler) == ["stethos", None]
        until(lambda: cordons(scheduler) == [None, None], 6)

    def test_an_unknown_node_is_noted_and_counted(self, scheduler: Scheduler) -> None:
        notify(scheduler, alert(fingerprint="b4", node="elsewhere", gpu="0"))
        assert newest(scheduler)["effect"] == "unknown node"
        notify(scheduler, alert(fingerprint="b5", node="n", gpu="7"))
        assert newest(scheduler)["effect"] == "unknown node"
        lines = scheduler.http.get("/metrics").text.splitlines()
        assert "stethos_scheduler_alerts_unmatched_total 2.0" in lines

    def test_a_broken_alert_does_not_cost_the_others(self, scheduler: Scheduler) -> None:
        good = alert(fingerprint="b6", node="n", gpu="1")
        answer = notify(scheduler, None, {"status": "melting", "labels": {}}, {"labels": 5}, good)
        assert answer == {"accepted": 1, "invalid": 3}
        assert cordons(scheduler) == [None, "stethos"]

    @pytest.mark.parametrize("body", [[], {}, {"alerts": 5}, "x"])
    def test_what_is_no_notification_is_refused(self, scheduler: Scheduler, body: object) -> None:
        scheduler.post("/v1/alerts", body, 422)
