"""Prometheus → window: the first look back, then only what is new."""

from __future__ import annotations

import math
from dataclasses import dataclass

from detector.promql import Prometheus, Series
from detector.signals import Query, Signal, Signals
from detector.telemetry import Gpu, Telemetry
from detector.window import Key, Window

_LABELS = "node, gpu, uuid, model, rack"
_PIECE = 5000  # steps per query: Prometheus refuses more than 11,000 points a series
_AGAIN = 2  # steps read once more each time, for samples that came late


@dataclass(frozen=True, slots=True)
class Intake:
    """One look at Prometheus: the newest step, how many were new, the nodes it scrapes, and those that answer."""

    at: float
    steps: int
    scraped: frozenset[str]
    answering: frozenset[str]


def newest_step(now: float, step: float) -> float:
    """The last full step before `now`: aligned, so that every detector of a fleet asks for the same times."""
    return math.floor(now / step) * step


def pull(prometheus: Prometheus, signals: Signals, window: Window, now: float) -> Intake:
    """Bring the window up to `now`. Raises PrometheusError, and then leaves the window as it was."""
    end = newest_step(now, window.step)
    behind = window.length if window.newest is None else round((end - window.newest) / window.step)
    start = end - (min(window.length, behind + _AGAIN) - 1) * window.step
    read = [(query, prometheus.range(_aggregated(query), start, end, window.step)) for query in signals.queries]
    jobs = prometheus.range(signals.jobs, start, end, window.step)
    targets = prometheus.range(signals.targets, end, end, window.step)

    moved = window.advance(end)
    found = [(signal, _gpu(series), series) for query, rows in read for signal, series in _named(query, rows)]
    window.include((signal for signal, _, _ in found), (gpu for _, gpu, _ in found))
    for signal, gpu, series in found:
        window.write(signal.name, (gpu.node, gpu.gpu), series.timestamps, series.values)
    for series in jobs:
        window.write_job(_key(series), series.labels.get("job", ""), series.timestamps)
    up = {series.labels.get("node", ""): series.values[-1] == 1 for series in targets}
    return Intake(end, moved, frozenset(up), frozenset(node for node, answers in up.items() if answers))


def history(prometheus: Prometheus, signals: Signals, start: float, end: float, step: float) -> Telemetry:
    """A stretch of the past as telemetry, to train on or to score. Raises PrometheusError."""
    steps = int((end - start) / step) + 1
    window = Window(steps, step)
    for first in range(0, steps, _PIECE):
        last = min(first + _PIECE, steps) - 1
        piece = Window(last - first + 1, step)
        pull(prometheus, signals, piece, newest_step(start, step) + last * step)
        _append(window, piece)
    return window.telemetry()


def _append(window: Window, piece: Window) -> None:
    telemetry = piece.telemetry()
    window.advance(float(telemetry.timestamps[-1]))
    window.include(telemetry.signals, telemetry.gpus)
    for row, signal in enumerate(telemetry.signals):
        for column, gpu in enumerate(telemetry.gpus):
            window.write(signal.name, (gpu.node, gpu.gpu), telemetry.timestamps, telemetry.values[row, column])
    for column, gpu in enumerate(telemetry.gpus):
        for index, name in enumerate(telemetry.jobs):
            at = telemetry.timestamps[telemetry.job[column] == index]
            if len(at):
                window.write_job((gpu.node, gpu.gpu), name, at)


def _aggregated(query: Query) -> str:
    """The query with every label aggregated away that the detector does not use: answers stay small."""
    labels = f"{_LABELS}, {query.expand}" if query.expand else _LABELS
    return f"max by ({labels}) ({query.promql})"


def _named(query: Query, rows: list[Series]) -> list[tuple[Signal, Series]]:
    if query.signal is not None:
        return [(query.signal, series) for series in rows]
    return [(Signal(series.labels.get(query.expand or "", "")), series) for series in rows]


def _gpu(series: Series) -> Gpu:
    label = series.labels.get
    return Gpu(label("node", ""), label("gpu", ""), label("uuid", ""), label("model", ""), label("rack", ""))


def _key(series: Series) -> Key:
    return series.labels.get("node", ""), series.labels.get("gpu", "")
