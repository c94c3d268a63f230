"""The detector's metrics, made anew at every scrape: a score that is stale is not there."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from detector.state import Counts, Snapshot

STALE_STEPS = 3
_GPU = ["node", "gpu", "uuid"]


class DetectorCollector(Collector):
    """Exposes the newest snapshot while it is fresh, and the detector's own state always."""

    def __init__(
        self, newest: Callable[[], Snapshot | None], counts: Counts, step: float, clock: Callable[[], float] = time.time
    ) -> None:
        self._newest = newest
        self._counts = counts
        self._step = step
        self._clock = clock

    def collect(self) -> Iterator[Metric]:
        snapshot = self._newest()
        yield from self._about_itself(snapshot)
        if snapshot and self._clock() - snapshot.at <= STALE_STEPS * self._step:
            yield from _findings(snapshot)

    def _about_itself(self, snapshot: Snapshot | None) -> Iterator[Metric]:
        ticks = CounterMetricFamily("stethos_detector_ticks", "Looks at the fleet, by result.", labels=["result"])
        for result, count in self._counts.ticks.items():
            ticks.add_metric([result], count)
        yield ticks
        seconds = GaugeMetricFamily(
            "stethos_detector_tick_seconds", "Duration of the last tick's stages.", labels=["stage"]
        )
        for stage, duration in self._counts.seconds.items():
            seconds.add_metric([stage], duration)
        yield seconds
        if snapshot is None:
            return
        yield GaugeMetricFamily(
            "stethos_detector_last_success_timestamp_seconds", "The step that was judged last.", snapshot.at
        )
        yield GaugeMetricFamily(
            "stethos_detector_input_coverage_ratio",
            "Share of the known readings that the last step held.",
            snapshot.coverage,
        )
        gpus = GaugeMetricFamily("stethos_detector_gpus", "GPUs judged, by what they are judged by.", labels=["basis"])
        for basis, count in snapshot.basis.items():
            gpus.add_metric([basis], count)
        yield gpus
        model = GaugeMetricFamily(
            "stethos_detector_model_info", "The model in use and the stage of the start.", labels=["version", "stage"]
        )
        model.add_metric([snapshot.version, "peers" if snapshot.version == "none" else "model"], 1)
        yield model
        if snapshot.trained_at is not None:
            yield GaugeMetricFamily(
                "stethos_detector_model_trained_timestamp_seconds",
                "When the model in use was trained.",
                snapshot.trained_at,
            )


def _findings(snapshot: Snapshot) -> Iterator[Metric]:
    score = GaugeMetricFamily("stethos_anomaly_score", "0 and up; 1 is the alert threshold.", labels=_GPU)
    contribution = GaugeMetricFamily(
        "stethos_anomaly_contribution",
        "Share of the score that a signal has, the largest only.",
        labels=[*_GPU, "signal"],
    )
    cause = GaugeMetricFamily(
        "stethos_anomaly_cause", "What the leading signal of an anomalous GPU points to.", labels=[*_GPU, "cause"]
    )
    for gpu, verdict in snapshot.verdicts.items():
        labels = [gpu.node, gpu.gpu, gpu.uuid]
        score.add_metric(labels, verdict.score)
        for signal, share in verdict.contributions:
            contribution.add_metric([*labels, signal], share)
        if verdict.cause:
            cause.add_metric([*labels, verdict.cause], 1)
    yield score
    yield contribution
    yield cause
    group = GaugeMetricFamily(
        "stethos_group_anomaly_score", "Median score of a group's GPUs.", labels=["group_type", "group"]
    )
    for (kind, name), value in snapshot.groups.items():
        group.add_metric([kind, name], value)
    yield group
