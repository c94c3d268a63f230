"""One look at the fleet: pull what is new, judge every GPU, sum up the groups."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import structlog
from numpy.typing import NDArray

from detector import changes, findings, groups, registry, rules, verdicts
from detector.calibration import HISTORY
from detector.changes import REACH
from detector.contexts import SETTLING
from detector.features import WINDOW
from detector.feed import Feed
from detector.ingest import WHOLE, Ingest, Intake
from detector.promql import Prometheus
from detector.registry import Card, RegistryError
from detector.residuals import Judge, ModelJudge, PeerJudge, Residuals
from detector.shard import Shard
from detector.signals import Signals
from detector.stages import stage
from detector.state import Counts, Snapshot
from detector.tally import Drift, Tally
from detector.telemetry import Floats, Gpu, Telemetry
from detector.trail import Trail
from detector.verdicts import MISSING
from detector.window import Window

log = structlog.get_logger()

_PAST = WINDOW + SETTLING + 1  # steps that a residual looks back, and a counter's first total
LENGTH = _PAST + REACH + HISTORY  # of the window
_FITS = 0.5  # share of a model's signals that the fleet must report for the model to serve


def here(model: ModelJudge) -> Judge:
    """The model as it is: its work is the processor's."""
    return model


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the operator wants otherwise.

    budget: false alarms per 1,000 GPU-hours, None for what the model was trained for. shard: the share of the fleet to
    judge. edges: kinds of peers, None for all. placed: where a model does its work.
    """

    budget: float | None = None
    shard: Shard = WHOLE
    edges: frozenset[str] | None = None
    placed: Callable[[ModelJudge], Judge] = here


DEFAULTS = Wishes()


class Fleet:
    """The detector's memory between ticks: the window, the judge in office, and its newest residuals."""

    def __init__(
        self,
        prometheus: Prometheus,
        signals: Signals,
        models: Path,
        step: float,
        wishes: Wishes = DEFAULTS,
        feed: Feed | None = None,
    ) -> None:
        self.counts = Counts()
        self._prometheus = prometheus
        self._signals = signals
        self._models = models
        self._window = Window(LENGTH, step)
        self._ingest = Ingest(prometheus, signals, self._window, wishes.shard, feed)
        self.counts.refusals = self._ingest.refusals.counts
        self._wishes = wishes
        self._now = 0.0
        self._cards: dict[str, Card | None] = {}  # by version; None for one that is refused
        self._unfit: set[str] = set()
        self._model: Judge | None = None
        self._card: Card | None = None
        self._chair = Chair()
        self._second: tuple[Judge, Chair] | None = None
        self.trial: Trial | None = None
        self.tally = Tally(step)
        self.drift: Drift | None = None
        self.in_office_since = 0.0

    @property
    def gpus(self) -> tuple[Gpu, ...]:
        """Those that are known."""
        return tuple(self._window.gpus.values())

    @property
    def office(self) -> Path | None:
        """Where the model in office lies."""
        return self._models / self._card.version if self._card else None

    def second(self, version: Path | None) -> None:
        """Let a second model judge the same steps, unseen; None ends that. Raises RegistryError."""
        self.trial, self._second = None, None
        if version is not None:
            model, card = registry.read(version)
            self._second = self._as_wished(model), Chair()
            self.trial = Trial(version.name, card, self._now, Tally(self._window.step), Tally(self._window.step))

    def tick(self, now: float) -> Snapshot:
        """Judge the newest full step before `now`. Raises PrometheusError."""
        self._now = now
        try:
            intake = self._ingest.pull(now)
        finally:
            self.counts.warnings = self._prometheus.warnings
        self.counts.fed = intake.fed
        self._forget(intake)
        self._begin_anew(intake.steps)
        self._newest_model()
        telemetry = replace(self._window.telemetry(), edges=self._wishes.edges)
        if not telemetry.gpus:
            return Snapshot.empty(intake.at)
        judge = self._judge(telemetry)
        with stage("model"):
            residuals = self._chair.judge(judge, telemetry, intake.steps)
        with stage("score"):
            answering = np.array([gpu.node in intake.answering for gpu in telemetry.gpus])
            silence = self._window.silence()
            watched = answering & rules.missing(silence, telemetry.gpus) & self._window.heard_without(intake.unread)
            errors = rules.errors(telemetry.newest(rules.MEMORY), rules.MEMORY - 1)
            together, ratios = groups.weigh(judge, residuals, telemetry)
            found = findings.find(
                telemetry.gpus, residuals.own, ratios, judge.signals, judge.own, silence, watched, errors
            )
            scraped = np.array([gpu.node in (intake.scraped or ()) for gpu in telemetry.gpus])
            down = groups.silent(silence, scraped & ~answering, telemetry.gpus, self._window.step)
            missing = sum(cause == MISSING for cause in found.causes.values())
        if intake.steps and judge is self._model:
            self._count(judge, residuals, verdicts.worst(ratios), telemetry, intake.steps)
        served = self._card if self._card and judge is self._model else None
        return Snapshot(
            at=float(telemetry.timestamps[-1]),
            verdicts=found,
            groups=together.scores | down.scores,
            group_causes=together.causes | down.causes,
            basis={"model": 0, "peers": 0, "rules": missing} | {judge.basis: len(found) - missing},
            coverage=self._window.coverage(),
            version=served.version if served else "none",
            trained_at=served.trained_at.timestamp() if served else None,
        )

    def _count(
        self,
        judge: Judge,
        residuals: Residuals,
        score: Floats,
        telemetry: Telemetry,
        steps: int,
    ) -> None:
        """Keep the accounts of the model in office, and of the one beside it over the same steps."""
        at = float(telemetry.timestamps[-1])
        self.tally.add(telemetry.gpus, score, at)
        if self.drift is None:
            self.drift = Drift(judge.signals)
        self.drift.add(residuals.own[: len(judge.signals), :, -1])
        if self._second and self.trial:
            with stage("shadow"):
                other, chair = self._second
                theirs = chair.judge(other, telemetry, steps)
                ratios = groups.weigh(other, theirs, telemetry)[1]
                self.trial.own.add(telemetry.gpus, verdicts.worst(ratios), at)
            self.trial.office.add(telemetry.gpus, score, at)

    def _forget(self, intake: Intake) -> None:
        """GPUs long silent on nodes that nobody scrapes any more have left the fleet."""
        silent = np.flatnonzero(self._window.silence() >= self._window.length).tolist()
        keys = list(self._window.gpus) if silent else []
        gone = {keys[row] for row in silent if intake.scraped is not None and keys[row][0] not in intake.scraped}
        if gone:
            log.info("GPUs left the fleet", gpus=sorted("/".join(key) for key in gone))
            self._window.forget(gone)

    def _begin_anew(self, steps: int) -> None:
        """A GPU whose limit or driver is another is another GPU: its own past says nothing, its peers still do."""
        changed = self._window.begin_anew(steps)
        if len(changed):
            keys = list(self._window.gpus)
            log.info("own history begins anew", gpus=sorted("/".join(keys[row]) for row in changed.tolist()))
            self._chair.forget(changed)
            if self._second:
                self._second[1].forget(changed)

    def _newest_model(self) -> None:
        """Take up the newest version that loads and knows this fleet; else the one before it serves."""
        for version in registry.versions(self._models):
            try:
                if not self._suits(version):
                    continue
                if self._card and version.name == self._card.version:
                    return
                model, self._card = registry.read(version)
            except RegistryError as error:
                self._cards[version.name] = None
                log.error("model refused", error=str(error))
            else:
                self._model = self._as_wished(model)
                self.tally, self.drift, self.in_office_since = Tally(self._window.step), None, self._now
                log.info("model in use", version=version.name)
                return

    def _suits(self, version: Path) -> bool:
        """Whether a version is not refused and knows what is reported now. Raises RegistryError."""
        if version.name not in self._cards:
            self._cards[version.name] = self._looked_at(version)
        card = self._cards[version.name]
        if card is None:
            return False
        suits = not self._window.reported() or self._knows(card)
        if not suits and version.name not in self._unfit:
            self._unfit.add(version.name)
            log.warning("a model does not know this fleet's signals or GPU models", version=version.name)
        return suits

    def _looked_at(self, version: Path) -> Card:
        card = registry.card_of(version)
        if card.version != version.name:
            raise RegistryError(f"model {version}: its card is that of {card.version}")
        if not math.isclose(card.step_seconds, self._window.step, rel_tol=0.01):
            steps = {"learned_from": card.step_seconds, "here": self._window.step}
            log.warning("a model's steps are of another length", version=version.name, **steps)
        return card

    def _knows(self, card: Card) -> bool:
        """Whether the fleet reports enough of what the model learned from."""
        reported = self._window.reported()
        known = sum(signal.name in reported for signal in card.signals) >= _FITS * len(card.signals)
        return known and not set(card.models).isdisjoint(gpu.model for gpu in self._window.gpus.values())

    def _as_wished(self, model: ModelJudge) -> Judge:
        return self._wishes.placed(model if self._wishes.budget is None else model.within(self._wishes.budget))

    def _judge(self, telemetry: Telemetry) -> Judge:
        if self._model and self._card and self._knows(self._card):
            return self._model
        previous = self._chair.sitting
        if isinstance(previous, PeerJudge) and previous.signals == telemetry.signals:
            return previous
        return PeerJudge(telemetry.signals, (self._signals.activity, self._signals.effort))


@dataclass(frozen=True, slots=True)
class Trial:
    """A second model on the live steps since a time (Unix seconds): its accounts, and the office's meanwhile."""

    version: str
    card: Card
    since: float
    own: Tally
    office: Tally


class Chair:
    """Where a judge sits, with its newest residuals: only steps not judged before are computed."""

    def __init__(self) -> None:
        self._judged: _Judged | None = None

    @property
    def sitting(self) -> Judge | None:
        return self._judged.judge if self._judged else None

    def forget(self, rows: NDArray[np.int64]) -> None:
        """Drop the residuals of these GPUs."""
        if self._judged:
            for trail in self._judged.trails:
                trail.forget(rows[rows < len(self._judged.gpus)])

    def judge(self, judge: Judge, telemetry: Telemetry, steps: int) -> Residuals:
        """The newest HISTORY residuals, `steps` of them new."""
        known = self._judged if self._judged and self._judged.judge is judge and steps < HISTORY else None
        if known is None:
            residuals = judge.residuals(telemetry.newest(LENGTH), _PAST)
            plain = changes.compared(judge, residuals)
            whole = changes.added(judge, residuals, plain, telemetry, HISTORY)
            trails = Trail(whole.own), Trail(whole.shared), Trail(plain)
        else:
            trails = known.of(telemetry.gpus)
            if steps:
                residuals = judge.residuals(telemetry.newest(_PAST + steps), _PAST)
                trails[2].add(changes.compared(judge, residuals))
                whole = changes.added(judge, residuals, trails[2].values, telemetry, steps)
                trails[0].add(whole.own)
                trails[1].add(whole.shared)
        self._judged = _Judged(judge, telemetry.gpus, trails)
        return Residuals(trails[0].values, trails[1].values)


@dataclass(frozen=True, slots=True)
class _Judged:
    """The newest residuals: by whom, and of which GPUs.

    trails: own and shared of the newest HISTORY steps, and what changes are seen by, for REACH steps more.
    """

    judge: Judge
    gpus: tuple[Gpu, ...]
    trails: tuple[Trail, Trail, Trail]

    def of(self, gpus: tuple[Gpu, ...]) -> tuple[Trail, Trail, Trail]:
        """The same for another fleet: who is new, or was exchanged, has no past."""
        if gpus == self.gpus:
            return self.trails
        rows = {gpu: row for row, gpu in enumerate(self.gpus)}
        here = np.array([rows.get(gpu, -1) for gpu in gpus], np.int64)
        own, shared, plain = self.trails
        return own.of(here), shared.of(here), plain.of(here)
