"""Prometheus → window: the first look back, then only what is new."""

from __future__ import annotations

import json
import math
import re
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace

import numpy as np
import structlog
from numpy.typing import NDArray

from detector.feed import Feed
from detector.matrix import Labels, Matrix
from detector.promql import Prometheus, PrometheusError, RefusalError
from detector.refusals import Refusals
from detector.shard import Shard
from detector.signals import Query, Signal, Signals
from detector.stages import stage
from detector.telemetry import Gpu
from detector.window import Key, Rows, Window

log = structlog.get_logger()

_LABELS = "node, gpu, uuid, model, rack"
_SELECTOR = re.compile(r"([a-zA-Z_:][\w:]*)\s*(?:\{([^{}]*)\})?$")
_RECORDED = re.compile(r"\w*:[\w:]*\s*(?:\{[^{}]*\})?$")  # by convention only recorded series have colons
_NAME = re.compile(r"[a-zA-Z_:][\w:]*$")
_SEEK_EVERY = 60  # ticks
_JOBS, _ISLANDS, _SOFTWARE, _TARGETS = "jobs", "islands", "software", "targets"  # as in signals.yml
_JOBS_STAND = 60.0  # seconds that jobs are taken to go on while nobody says which there are
_AGAIN = 2  # steps read once more each time, for samples that came late
WHOLE = Shard()
_AT_ONCE = 4  # queries: enough to keep a server busy while an answer is parsed


@dataclass(frozen=True, slots=True)
class Intake:
    """One look at Prometheus.

    at: the newest step. steps: how many were new. scraped: the nodes it scrapes, None where it refused to say.
    answering: those that answer it. fed: how many of the queries it had pushed the answer to. unread: the signals whose
    queries it refused.
    """

    at: float
    steps: int
    scraped: frozenset[str] | None
    answering: frozenset[str]
    fed: int
    unread: frozenset[str]


@dataclass(frozen=True, slots=True)
class _Question:
    """A query of a stretch. name: how people know it. series: the bare name that may be pushed, if it is one."""

    name: str
    series: str
    promql: str
    start: float


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
        self._jobs_stood = 0.0  # seconds
        self._software_rows: tuple[tuple[Labels, ...], int, Rows, Rows] | None = None
        self._islands: tuple[tuple[Labels, ...], dict[Key, str]] = (), {}
        self.refusals = Refusals(question.name for question in self._questions(0, 0))

    def pull(self, now: float) -> Intake:
        """Bring the window up to `now`; what Prometheus refuses is absent.

        Raises PrometheusError where nothing at all is to be had, and then leaves the window as it was.
        """
        window, signals = self._window, self._signals
        end = newest_step(now, window.step)
        if window.newest is not None and end < window.newest - _AGAIN * window.step:
            log.warning("the clock was set back", seconds=window.newest - end)
            window.clear()
        behind = window.length if window.newest is None else round((end - window.newest) / window.step)
        start = end - (min(window.length, max(behind, 0) + _AGAIN) - 1) * window.step
        self._seek_nodes(end)
        fed = {name: self._pushed(name, start, end) for name in names_of(signals)}
        answers = self._ask(self._questions(start, end), end, fed)
        with stage("ingest"):
            moved = window.advance(end)
            unread = self._fill(answers[:-1], moved)
            up = None if answers[-1] is None else _up(answers[-1])
        scraped = None if up is None else frozenset(up)
        answering = frozenset(node for node, answers in (up or {}).items() if answers)
        return Intake(end, moved, scraped, answering, sum(answer is not None for answer in fed.values()), unread)

    def read(self, start: float, end: float) -> int:
        """Fill in a stretch of the window; returns the samples of the largest answer.

        Raises PrometheusError, also where only one query is refused.
        """
        self._until_sought = 0
        self._seek_nodes(end)
        answers = self._ask(self._questions(start, end)[:-1], end, {}, strict=True)
        with stage("ingest"):
            self._fill(answers, 0)
        return max(len(answer.values) for answer in answers if answer)

    def _questions(self, start: float, end: float) -> list[_Question]:
        """The signals' in their order, then those for the jobs, for the islands and the software if there are any, and
        for the targets."""
        signals = self._signals
        return [
            *(_Question(q.name, q.promql, expression(q, self._nodes), start) for q in signals.queries),
            _Question(_JOBS, signals.jobs, signals.jobs, start),
            *(_Question(_ISLANDS, promql, promql, end) for promql in (signals.islands,) if promql),
            *(_Question(_SOFTWARE, promql, promql, start) for promql in (signals.software,) if promql),
            _Question(_TARGETS, "", signals.targets, end),
        ]

    def _ask(
        self, questions: list[_Question], end: float, fed: Mapping[str, Matrix | None], strict: bool = False
    ) -> list[Matrix | None]:
        """The answers, None for what is refused. Raises PrometheusError, also where all signals are."""
        down = threading.Event()
        refusals: dict[str, RefusalError] = {}

        def ask(question: _Question) -> Matrix | None:
            if down.is_set():  # what failed once would only fail again, as much later
                return None
            try:
                known = fed.get(question.series)
                return known or self._prometheus.range(question.promql, question.start, end, self._window.step)
            except PrometheusError as error:
                if strict or not isinstance(error, RefusalError):
                    down.set()
                    raise
                refusals[question.name] = error
                return None

        with ThreadPoolExecutor(_AT_ONCE) as pool:
            answers = list(pool.map(ask, questions))
        if all(answer is None for answer in answers[: len(self._signals.queries)]):
            raise next(iter(refusals.values()))
        self.refusals.note(refusals)
        return answers

    def _fill(self, answers: Sequence[Matrix | None], moved: int) -> frozenset[str]:
        """Write the signals' answers, those of the jobs, islands and software; returns the signals that have none."""
        count = len(self._signals.queries)
        read, (jobs, *more) = answers[:count], answers[count:]
        islands = more.pop(0) if self._signals.islands else None
        software = more.pop(0) if self._signals.software else None
        unread: set[str] = set()
        if islands is not None:
            self._join(islands)
        for query, answer in zip(self._signals.queries, read, strict=True):
            if answer is not None:
                self._write(query, answer)
            elif query.signal:
                unread.add(query.signal.name)
            elif query.promql in self._placed:
                unread.update(signal.name for signal, _ in self._placed[query.promql].parts)
        if jobs is not None:
            self._jobs_stood = 0.0
            self._write_jobs(jobs)
        elif self._jobs_stood < _JOBS_STAND:
            self._jobs_stood += moved * self._window.step
            self._window.hold_jobs(moved)
        if software is not None:
            self._write_software(software)
        return frozenset(unread)

    def _pushed(self, name: str, start: float, end: float) -> Matrix | None:
        with stage("parse"):
            return self._feed.range(name, start, end, self._window.step) if self._feed else None

    def _seek_nodes(self, end: float) -> None:
        """Now and then, which nodes the shard has: so a new rack is found, and Prometheus is asked for no others."""
        if self._shard.of == 1:
            return
        if self._until_sought == 0:
            self._nodes = self._nodes_of(end)
            self._until_sought = _SEEK_EVERY
        self._until_sought -= 1

    def _nodes_of(self, at: float) -> frozenset[str]:
        """The nodes of the shard, by what reports any signal at that time. Raises PrometheusError."""
        gpus: list[Gpu] = []
        refused: list[RefusalError] = []
        for query in self._signals.queries:
            try:
                found = self._prometheus.range(f"group by (node, rack) ({query.promql})", at, at, self._window.step)
                gpus += map(_gpu, found.labels)
            except RefusalError as error:
                refused.append(error)
        if len(refused) == len(self._signals.queries):
            raise refused[0]
        nodes = frozenset(gpu.node for gpu in gpus if self._shard.has(gpu))
        # The nodes that only a refused query tells of are still there.
        return nodes | (self._nodes or frozenset()) if refused else nodes

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

    def _write_software(self, software: Matrix) -> None:
        known = self._software_rows
        if known is None or known[0] is not software.labels or known[1] != self._window.generation:
            rows = self._window.rows(_key(labels) for labels in software.labels)
            told = (" ".join(labels.get(name, "") for name in ("driver", "vbios")) for labels in software.labels)
            known = software.labels, self._window.generation, rows, self._window.release(told)
            self._software_rows = known
        rows, releases = known[2][software.series], known[3][software.series]
        self._window.write_software(rows, releases, software.timestamps)


def names_of(signals: Signals) -> frozenset[str]:
    """The series that are read by their bare name, so that it does not matter how they get here."""
    queries = [*(query.promql for query in signals.queries), signals.jobs, signals.islands, signals.software]
    return frozenset(promql for promql in queries if promql and _NAME.match(promql))


def newest_step(now: float, step: float) -> float:
    """The last full step before `now`: aligned, so that every detector of a fleet asks for the same times."""
    return math.floor(now / step) * step


def _up(targets: Matrix) -> dict[str, bool]:
    """Whether each node that is scraped answers, by the newest sample."""
    newest = {series: index for index, series in enumerate(targets.series.tolist())}
    return {targets.labels[series].get("node", ""): targets.values[index] == 1 for series, index in newest.items()}


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
