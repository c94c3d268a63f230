"""The scheduler's own metrics: counters kept here, everything else read when Prometheus asks."""

from collections.abc import Iterable, Iterator

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

from .fleet import Fleet
from .jobs import JobState, Priority
from .placement import Obstacle

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"


class Metrics:
    """What happened since the process started."""

    def __init__(self) -> None:
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self.placements = Counter(
            "stethos_scheduler_placements",
            "Placement decisions, by result: placed, or unplaceable (a shape of job that fits nowhere now).",
            ["result"],
            registry=self.registry,
        )
        self.unplaceable = Counter(
            "stethos_scheduler_unplaceable",
            "Shapes of job that fitted nowhere when they were looked at, by what stood in the way: too_large for the "
            "nodes that there are, nodes unavailable, GPUs cordoned, kept for a job that has waited longer, free GPUs "
            "fragmented over the nodes, or all busy.",
            ["reason"],
            registry=self.registry,
        )
        self.alerts = Counter(
            "stethos_scheduler_alerts_received",
            "Alerts taken from Alertmanager's webhook, repeated ones too.",
            ["status"],
            registry=self.registry,
        )
        self.unmatched_alerts = Counter(
            "stethos_scheduler_alerts_unmatched",
            "Alerts that name a node or GPU that is not registered.",
            registry=self.registry,
        )
        self.health_errors = Counter(
            "stethos_scheduler_health_read_errors",
            "Readings of the scores that failed.",
            registry=self.registry,
        )
        self.canaries = Counter(
            "stethos_scheduler_canaries",
            "Canary jobs of GPUs on probation, by how they ended.",
            ["result"],
            registry=self.registry,
        )
        self.waits = Histogram(
            "stethos_scheduler_job_wait_seconds",
            "Time from the acceptance of a job to the first start of it; canary jobs do not count.",
            ["priority"],
            buckets=(0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 600, 1800, 3600, 7200, 21600, 86400),
            registry=self.registry,
        )
        self.durations = Histogram(
            "stethos_scheduler_job_duration_seconds",
            "Run time of ended jobs, from the start of their last attempt, by how they ended.",
            ["state"],
            buckets=(1, 2.5, 5, 10, 25, 50, 100, 250, 500, 1000, 2500, 5000, 10000),
            registry=self.registry,
        )
        self.placement_seconds = Histogram(
            "stethos_scheduler_placement_seconds",
            "One placement pass, reading and commit included.",
            buckets=(0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1),
            registry=self.registry,
        )

        # What is known beforehand begins at 0, so that the first of each counts as growth.
        for obstacle in Obstacle:
            self.unplaceable.labels(obstacle)
        for priority in Priority:
            self.waits.labels(priority.name)

    def decided(self, placed: int, unplaceable: Iterable[Obstacle]) -> None:
        """One placement pass: how many jobs have a place now, and why each other shape has none."""
        self.placements.labels("placed").inc(placed)
        for obstacle in unplaceable:
            self.placements.labels("unplaceable").inc()
            self.unplaceable.labels(obstacle).inc()

    def job_started(self, priority: Priority, waited_seconds: float) -> None:
        self.waits.labels(priority.name).observe(waited_seconds)

    def job_ended(self, state: JobState, seconds: float) -> None:
        self.durations.labels(state).observe(seconds)

    def expose(self, fleet: Fleet) -> bytes:
        """The text for one scrape: the counters, and gauges made afresh so that what is gone vanishes."""
        now = CollectorRegistry()
        now.register(_Snapshot(fleet))
        return generate_latest(self.registry) + generate_latest(now)


class _Snapshot(Collector):
    def __init__(self, fleet: Fleet) -> None:
        self._fleet = fleet

    def collect(self) -> Iterator[GaugeMetricFamily]:
        fleet = self._fleet
        prefix = "stethos_scheduler_"
        for name, text, counts in (
            ("jobs", "Jobs by state.", fleet.job_counts),
            ("nodes", "Nodes by state.", fleet.node_counts),
            ("gpus", "GPUs by state: free, busy, cordoned, unavailable.", fleet.gpu_counts),
            ("gpu_health", "GPUs by where they stand between healthy and out of service.", fleet.health_counts),
        ):
            family = GaugeMetricFamily(prefix + name, text, labels=["state"])
            for state, count in counts.items():
                family.add_metric([state], count)
            yield family
        running = GaugeMetricFamily(
            "stethos_job_gpu_info", "1 for each GPU of each running job.", labels=["job_id", "node", "gpu"]
        )
        for job, node, gpu in fleet.running:
            running.add_metric([job, node, str(gpu)], 1)
        yield running
        domains = fleet.stored.domains
        for name, text, values in (
            ("breaker_held_gpus", "GPUs that automation holds out of service.", [each.held for each in domains]),
            ("breaker_bound_gpus", "GPUs that automation may hold at once.", [each.bound for each in domains]),
            ("breaker_open", "1 while automation may hold no GPU more.", [int(each.open) for each in domains]),
        ):
            family = GaugeMetricFamily(prefix + name, text, labels=["domain"])
            for domain, value in zip(domains, values, strict=True):
                family.add_metric([domain.name], value)
            yield family
        yield GaugeMetricFamily(
            prefix + "queue_oldest_seconds", "How long the oldest job in the queue waits.", fleet.oldest_seconds
        )
        yield GaugeMetricFamily(
            prefix + "health_up",
            "Whether the last reading of the scores succeeded.",
            int(fleet.health.state == "fresh"),
        )
        if fleet.health.read_at is not None:
            yield GaugeMetricFamily(
                prefix + "health_read_timestamp_seconds",
                "When the scores were last read from Prometheus.",
                fleet.health.read_at,
            )
