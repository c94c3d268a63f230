"""The detector's metrics: its findings as one text, made once a tick, and its own state, made at every scrape."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import numpy as np
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from detector.findings import Findings
from detector.fleet import Fleet
from detector.lifecycle import LifeCycle
from detector.state import Counts, Snapshot
from detector.telemetry import Gpu

STALE_STEPS = 3


class Page:
    """Turns findings into the exposition format. A fleet's labels seldom change, so they are written once."""

    def __init__(self) -> None:
        self._gpus: tuple[Gpu, ...] = ()
        self._labels: list[str] = []

    def write(self, snapshot: Snapshot) -> bytes:
        found = snapshot.verdicts
        if found.gpus is not self._gpus:
            self._gpus, self._labels = found.gpus, [_labels(gpu) for gpu in found.gpus]
        lines = [
            *family("stethos_anomaly_score", "0 and up; 1 is the alert threshold."),
            *self._scores(found),
            *family("stethos_anomaly_contribution", "Share of the score that a signal has, the largest only."),
            *self._contributions(found),
            *family("stethos_anomaly_cause", "What the leading signal of an anomalous GPU points to."),
            *(
                f'stethos_anomaly_cause{{{self._labels[row]},cause="{_escaped(cause)}"}} 1'
                for row, cause in found.causes.items()
                if cause
            ),
            *family("stethos_group_anomaly_score", "Median score of a group's GPUs."),
            *(
                f"stethos_group_anomaly_score{{{_group(group)}}} {value:.7g}"
                for group, value in snapshot.groups.items()
            ),
            *family("stethos_group_anomaly_cause", "What the signals of an anomalous group point to."),
            *(
                f'stethos_group_anomaly_cause{{{_group(group)},cause="{_escaped(cause)}"}} 1'
                for group, cause in snapshot.group_causes.items()
            ),
        ]
        return ("\n".join(lines) + "\n").encode()

    def _scores(self, found: Findings) -> list[str]:
        rows = np.flatnonzero(~np.isnan(found.score)).tolist()
        labels, scores = self._labels, found.score.tolist()
        return [f"stethos_anomaly_score{{{labels[row]}}} {scores[row]:.7g}" for row in rows]

    def _contributions(self, found: Findings) -> list[str]:
        rows, ranks = np.nonzero((found.leading >= 0) & ~np.isnan(found.score)[:, None])
        names = [_escaped(name) for name in found.names]
        places, shares = found.leading[rows, ranks].tolist(), found.shares[rows, ranks].tolist()
        labels = self._labels
        return [
            f'stethos_anomaly_contribution{{{labels[row]},signal="{names[place]}"}} {share:.4g}'
            for row, place, share in zip(rows.tolist(), places, shares, strict=True)
        ]


class DetectorCollector(Collector):
    """The detector's own state. newest: what was found last; fresh: whether that still says how things are."""

    def __init__(self, newest: Callable[[], Snapshot | None], fresh: Callable[[], bool], counts: Counts) -> None:
        self._newest = newest
        self._fresh = fresh
        self._counts = counts

    def collect(self) -> Iterator[Metric]:
        counts = self._counts
        ticks = CounterMetricFamily("stethos_detector_ticks", "Looks at the fleet, by result.", labels=["result"])
        for result, count in counts.ticks.items():
            ticks.add_metric([result], count)
        yield ticks
        yield CounterMetricFamily(
            "stethos_detector_query_warnings", "Answers of Prometheus that were not complete.", counts.warnings
        )
        refusals = CounterMetricFamily(
            "stethos_detector_query_refusals",
            "Queries that Prometheus refused while it answered others.",
            labels=["query"],
        )
        for query, count in counts.refusals.items():
            refusals.add_metric([query], count)
        yield refusals
        yield GaugeMetricFamily(
            "stethos_detector_fed_queries",
            "Queries of the last tick that Prometheus had pushed the answer to.",
            counts.fed,
        )
        seconds = GaugeMetricFamily(
            "stethos_detector_tick_seconds", "Duration of the last tick's stages.", labels=["stage"]
        )
        for stage, duration in counts.seconds.items():
            seconds.add_metric([stage], duration)
        yield seconds
        snapshot = self._newest()
        if snapshot is not None:
            yield from _about(snapshot)
            if self._fresh():
                yield from _current(snapshot)


class LifeCollector(Collector):
    """The models: what serves, what is tried, and what became of the others."""

    def __init__(self, fleet: Fleet, life: LifeCycle | None) -> None:
        self._fleet = fleet
        self._life = life

    def collect(self) -> Iterator[Metric]:
        drift = GaugeMetricFamily(
            "stethos_detector_drift_ratio",
            "How much more often than at calibration a signal is far from what was expected.",
            labels=["signal"],
        )
        for signal, ratio in (self._fleet.drift.ratios() if self._fleet.drift else {}).items():
            drift.add_metric([signal], ratio)
        yield drift
        shift = GaugeMetricFamily(
            "stethos_detector_shift_ratio",
            "How far the whole fleet has lastingly left the level that was expected; at 1 a model is trained anew.",
            labels=["signal"],
        )
        for signal, ratio in (self._fleet.drift.shifts() if self._fleet.drift else {}).items():
            shift.add_metric([signal], ratio)
        yield shift
        trial = self._fleet.trial
        tallies = {"office": self._fleet.tally} | ({"shadow": trial.own} if trial else {})
        alarms = GaugeMetricFamily("stethos_detector_alarms", "Alarms since a model sits there.", labels=["stage"])
        hours = GaugeMetricFamily("stethos_detector_judged_gpu_hours", "In so many GPU-hours.", labels=["stage"])
        for stage, tally in tallies.items():
            alarms.add_metric([stage], tally.alarms)
            hours.add_metric([stage], tally.gpu_hours)
        yield from (alarms, hours)
        if trial:
            shadow = GaugeMetricFamily("stethos_detector_shadow_info", "The model on trial.", labels=["version"])
            shadow.add_metric([trial.version], 1)
            yield shadow
        if self._life:
            yield from _life(self._life)


def _life(life: LifeCycle) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "stethos_detector_budget_alarms_per_1000_gpu_hours", "False alarms that may be.", life.plan.budget
    )
    events = CounterMetricFamily(
        "stethos_detector_model_events", "What happened to models, by kind and result.", labels=["kind", "result"]
    )
    for kind in ("recalibrate", "retrain", "promote", "reject", "roll_back"):
        for result in ("ok", "failed") if kind in ("recalibrate", "retrain") else ("ok",):
            events.add_metric([kind, result], life.events.counts.get((kind, result), 0))
    yield events
    if life.events.recalibrated_at is not None:
        yield GaugeMetricFamily(
            "stethos_detector_recalibrated_timestamp_seconds",
            "When the thresholds were last refitted.",
            life.events.recalibrated_at,
        )


def _about(snapshot: Snapshot) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "stethos_detector_last_success_timestamp_seconds", "The step that was judged last.", snapshot.at
    )
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


def _current(snapshot: Snapshot) -> Iterator[Metric]:
    yield GaugeMetricFamily(
        "stethos_detector_input_coverage_ratio",
        "Share of the known readings that the last step held.",
        snapshot.coverage,
    )
    gpus = GaugeMetricFamily("stethos_detector_gpus", "GPUs judged, by what they are judged by.", labels=["basis"])
    for basis, count in snapshot.basis.items():
        gpus.add_metric([basis], count)
    yield gpus


def family(name: str, meaning: str) -> tuple[str, str]:
    return f"# HELP {name} {meaning}", f"# TYPE {name} gauge"


def _labels(gpu: Gpu) -> str:
    return f'node="{_escaped(gpu.node)}",gpu="{_escaped(gpu.gpu)}",uuid="{_escaped(gpu.uuid)}"'


def _group(group: tuple[str, str]) -> str:
    return f'group_type="{group[0]}",group="{_escaped(group[1])}"'


def _escaped(value: str) -> str:
    return value.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")
