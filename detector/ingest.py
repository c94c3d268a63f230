"""Prometheus → window: the first look back, then only what is new."""

from __future__ import annotations

import json
import math
import re
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime

import numpy as np
import structlog
from numpy.typing import NDArray

from detector.feed import Feed
from detector.matrix import Labels, Matrix
from detector.promql import Prometheus, PrometheusError
from detector.shard import Shard
from detector.signals import Query, Signal, Signals
from detector.stages import stage
from detector.telemetry import IDLE, Gpu, Telemetry
from detector.window import Key, Rows, Window

log = structlog.get_logger()

_LABELS = "node, gpu, uuid, model, rack"
_SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\s*(?:\{([^{}]*)\})?$")
_RECORDED = re.compile(r"\w*:[\w:]*\s*(?:\{[^{}]*\})?$")  # by convention only recorded series have colons
_NAME = re.compile(r"[a-zA-Z_:][\w:]*$")
_SEEK_EVERY = 60  # ticks
_PIECE = 5000  # steps per query: Prometheus refuses more than 11,000 points a series
_AGAIN = 2  # steps read once more each time, for samples that came late
WHOLE = Shard()
_AT_ONCE = 4  # queries: enough to keep a server busy while an answer is parsed


@dataclass(frozen=True, slots=True)
class Intake:
    """One look at Prometheus.

    at: the newest step. steps: how many were new. scraped: the nodes it scrapes. answering: those that answer it.
    fed: how many of the queries it had pushed the answer to.
    """

    at: float
    steps: int
    scraped: frozenset[str]
    answering: frozenset[str]
    fed: int


@dataclass(frozen=True, slots=True)
class _Placed:
    """Where the series of an answer belong: valid for the same label sets and the same numbering of the window."""

    labels: tuple[Labels, ...]
    generation: int
    parts: tuple[tuple[Signal, NDArray[np.bool_] | None], ...]  # the series of each signal; None is all of them
    rows: Rows


class Ingest:
    """Keeps a window up to date with a Prometheus."""

    def __init__(
        self,
        prometheus: Prometheus,
        signals: Signals,
        window: Window,
        shard: Shard = WHOLE,
        feed: Feed | None = None,
    ) -> None:
        self._feed = feed
        self._shard = shard
        self._prometheus = prometheus
        self._signals = signals
        self._window = window
        self._placed: dict[str, _Placed] = {}
        self._nodes: frozenset[str] | None = None  # those of the shard, None for all
        self._until_sought = 0
        self._job_rows: tuple[tuple[Labels, ...], int, Rows] | None = None
        self._islands: tuple[tuple[Labels, ...], dict[Key, str]] = (), {}

    def pull(self, now: float) -> Intake:
        """Bring the window up to `now`. Raises PrometheusError, and then leaves the window as it was."""
        window, signals = self._window, self._signals
        end = newest_step(now, window.step)
        if window.newest is not None and end < window.newest - _AGAIN * window.step:
            log.warning("the clock was set back", seconds=window.newest - end)
            window.clear()
        behind = window.length if window.newest is None else round((end - window.newest) / window.step)
        start = end - (min(window.length, max(behind, 0) + _AGAIN) - 1) * window.step
        self._seek_nodes(end)
        fed = {name: self._pushed(name, start, end) for name in names_of(signals)}
        asked = [(query.promql, expression(query, self._nodes), start) for query in signals.queries]
        asked += [(signals.jobs, signals.jobs, start), ("", signals.targets, end)]
        asked += [(promql, promql, end) for promql in (signals.islands,) if promql]
        with ThreadPoolExecutor(_AT_ONCE) as pool:
            answers = list(
                pool.map(lambda one: fed.get(one[0]) or self._prometheus.range(one[1], one[2], end, window.step), asked)
            )
        with stage("ingest"):
            read, (jobs, targets, *islands) = answers[: len(signals.queries)], answers[len(signals.queries) :]
            moved = window.advance(end)
            for answer in islands:
                self._join(answer)
            for query, answer in zip(signals.queries, read, strict=True):
                self._write(query, answer)
            self._write_jobs(jobs)
            up = _up(targets)
        answering = frozenset(node for node, answers in up.items() if answers)
        return Intake(end, moved, frozenset(up), answering, sum(answer is not None for answer in fed.values()))

    def _pushed(self, name: str, start: float, end: float) -> Matrix | None:
        with stage("parse"):
            return self._feed.range(name, start, end, self._window.step) if self._feed else None

    def _seek_nodes(self, end: float) -> None:
        """Now and then, which nodes the shard has: so a new rack is found, and Prometheus is asked for no others."""
        if self._shard.of == 1:
            return
        if self._until_sought == 0:
            self._nodes = nodes_of(self._prometheus, self._signals, end, self._window.step, self._shard)
            self._until_sought = _SEEK_EVERY
        self._until_sought -= 1

    def _write(self, query: Query, answer: Matrix) -> None:
        if not answer.labels:
            return
        placed = self._placed.get(query.promql)
        if placed is None or placed.labels is not answer.labels or placed.generation != self._window.generation:
            placed = self._placed[query.promql] = self._place(query, answer.labels)
        rows = placed.rows[answer.series]
        for signal, mine in placed.parts:
            if mine is None:
                self._window.write(signal.name, rows, answer.timestamps, answer.values)
            else:
                of = mine[answer.series]
                self._window.write(signal.name, rows[of], answer.timestamps[of], answer.values[of])

    def _join(self, islands: Matrix) -> None:
        """Note in which NVLink island GPUs are. One that this is not said of for now has not left its own."""
        if islands.labels and islands.labels is not self._islands[0]:
            known = self._islands[1] | {_key(labels): labels.get("island", "") for labels in islands.labels}
            self._islands = islands.labels, known
            self._window.include(
                (), [replace(gpu, island=known.get(key, "")) for key, gpu in self._window.gpus.items()]
            )

    def _place(self, query: Query, labels: tuple[Labels, ...]) -> _Placed:
        islands = self._islands[1]
        gpus = [replace(_gpu(each), island=islands.get(_key(each), "")) for each in labels]
        if query.signal is not None:
            parts: tuple[tuple[Signal, NDArray[np.bool_] | None], ...] = ((query.signal, None),)
        else:
            names = np.array([each.get(query.expand or "", "") for each in labels])
            parts = tuple((Signal(str(name)), names == name) for name in dict.fromkeys(names.tolist()))
        self._window.include((signal for signal, _ in parts), filter(self._shard.has, gpus))
        rows = self._window.rows((gpu.node, gpu.gpu) for gpu in gpus)
        return _Placed(labels, self._window.generation, parts, rows)

    def _write_jobs(self, jobs: Matrix) -> None:
        known = self._job_rows
        if known is None or known[0] is not jobs.labels or known[1] != self._window.generation:
            rows = self._window.rows(_key(labels) for labels in jobs.labels)
            known = self._job_rows = jobs.labels, self._window.generation, rows
        numbers = self._window.number((labels.get("job", ""), labels.get("role", "")) for labels in jobs.labels)
        self._window.write_job(known[2][jobs.series], numbers[jobs.series], jobs.timestamps)


def names_of(signals: Signals) -> frozenset[str]:
    """The series that are read by their bare name, so that it does not matter how they get here."""
    queries = (*(query.promql for query in signals.queries), signals.jobs, signals.islands or "")
    return frozenset(promql for promql in queries if _NAME.match(promql))


def newest_step(now: float, step: float) -> float:
    """The last full step before `now`: aligned, so that every detector of a fleet asks for the same times."""
    return math.floor(now / step) * step


def history(
    prometheus: Prometheus, signals: Signals, start: float, end: float, step: float, shard: Shard = WHOLE
) -> Telemetry:
    """A stretch of the past as telemetry, from its first reading on. Raises PrometheusError, also if there is none."""
    steps = int((end - start) / step) + 1
    window = Window(steps, step)
    for first in range(0, steps, _PIECE):
        last = min(first + _PIECE, steps) - 1
        piece = Window(last - first + 1, step)
        Ingest(prometheus, signals, piece, shard).pull(newest_step(start, step) + last * step)
        _append(window, piece)
    telemetry = window.telemetry()
    heard = np.zeros(steps, np.bool_)
    for plane in telemetry.values:
        heard |= ~np.isnan(plane).all(axis=0)
    if not heard.any():
        stretch = " to ".join(f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}" for at in (start, end))
        raise PrometheusError(f"{prometheus.url} holds no reading of any signal from {stretch}")
    return telemetry.newest(steps - int(heard.argmax()))


def _append(window: Window, piece: Window) -> None:
    telemetry = piece.telemetry()
    window.advance(float(telemetry.timestamps[-1]))
    window.include(telemetry.signals, telemetry.gpus)
    rows = window.rows((gpu.node, gpu.gpu) for gpu in telemetry.gpus)
    for signal, plane in zip(telemetry.signals, telemetry.values, strict=True):
        row, step = np.nonzero(~np.isnan(plane))
        window.write(signal.name, rows[row], telemetry.timestamps[step], plane[row, step].astype(np.float64))
    row, step = np.nonzero(telemetry.job != IDLE)
    window.write_job(rows[row], window.number(piece.jobs)[telemetry.job[row, step]], telemetry.timestamps[step])


def _up(targets: Matrix) -> dict[str, bool]:
    """Whether each node that is scraped answers, by the newest sample."""
    newest = {series: index for index, series in enumerate(targets.series.tolist())}
    return {targets.labels[series].get("node", ""): targets.values[index] == 1 for series, index in newest.items()}


def nodes_of(prometheus: Prometheus, signals: Signals, at: float, step: float, shard: Shard) -> frozenset[str]:
    """The nodes of a shard, by what reports any signal at that time. Raises PrometheusError."""
    labels = [
        labels
        for query in signals.queries
        for labels in prometheus.range(f"group by (node, rack) ({query.promql})", at, at, step).labels
    ]
    return frozenset(gpu.node for gpu in map(_gpu, labels) if shard.has(gpu))


def expression(query: Query, nodes: frozenset[str] | None = None) -> str:
    """The query with every label aggregated away that the detector does not use: answers stay small.

    A recorded series has no labels to lose, and aggregating costs Prometheus more than all the rest of the answer.
    """
    promql = query.promql if nodes is None else _narrowed(query.promql, nodes)
    if _RECORDED.match(promql.strip()):
        return promql
    labels = f"{_LABELS}, {query.expand}" if query.expand else _LABELS
    return f"max by ({labels}) ({promql})"


def _narrowed(promql: str, nodes: frozenset[str]) -> str:
    """The expression for these nodes only: by a matcher where it is a plain selector, else by joining."""
    matcher = f"node=~{json.dumps('|'.join(map(re.escape, sorted(nodes) or ['none of them'])))}"
    plain = _SELECTOR.match(promql.strip())
    if plain:
        others = f"{plain[2].strip().rstrip(',')}," if plain[2] and plain[2].strip() else ""
        return f"{plain[1]}{{{others}{matcher}}}"
    return f"({promql}) and on (node) group by (node) (up{{{matcher}}})"


def _gpu(labels: Labels) -> Gpu:
    label = labels.get
    return Gpu(label("node", ""), label("gpu", ""), label("uuid", ""), label("model", ""), label("rack", ""))


def _key(labels: Labels) -> Key:
    return labels.get("node", ""), labels.get("gpu", "")
