"""One look at the fleet: pull what is new, judge every GPU, sum up the groups."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import structlog

from detector import findings, groups, registry, verdicts
from detector.calibration import HISTORY
from detector.contexts import SETTLING
from detector.features import WINDOW
from detector.ingest import Ingest, Intake
from detector.promql import Prometheus
from detector.registry import Card, RegistryError
from detector.residuals import Judge, PeerJudge, Residuals
from detector.signals import Signals
from detector.stages import stage
from detector.state import Counts, Snapshot
from detector.telemetry import Gpu, Telemetry
from detector.verdicts import MISSING
from detector.window import Window

log = structlog.get_logger()

_PAST = WINDOW + SETTLING + 1  # steps that a residual looks back, and a counter's first total
LENGTH = _PAST + HISTORY  # of the window
_FITS = 0.5  # share of a model's signals that the fleet must report for the model to serve


class Fleet:
    """The detector's memory between ticks: the window, the judge in office, and its newest residuals."""

    def __init__(self, prometheus: Prometheus, signals: Signals, models: Path, step: float) -> None:
        self.counts = Counts()
        self._signals = signals
        self._models = models
        self._window = Window(LENGTH, step)
        self._ingest = Ingest(prometheus, signals, self._window)
        self._refused: set[str] = set()
        self._model: Judge | None = None
        self._card: Card | None = None
        self._judged: _Judged | None = None

    def tick(self, now: float) -> Snapshot:
        """Judge the newest full step before `now`. Raises PrometheusError."""
        intake = self._ingest.pull(now)
        self._forget(intake)
        self._newest_model()
        telemetry = self._window.telemetry()
        if not telemetry.gpus:
            return Snapshot.empty(intake.at)
        judge = self._judge(telemetry)
        residuals = self._judge_new_steps(judge, telemetry, intake.steps)
        with stage("score"):
            watched = np.array([gpu.node in intake.answering for gpu in telemetry.gpus])
            silence = self._window.silence()
            found = findings.find(telemetry.gpus, residuals.own, judge.signals, judge.own, silence, watched)
            missing = sum(cause == MISSING for cause in found.causes.values())
            shared = verdicts.ratios(residuals.shared, judge.signals, judge.shared)
            return Snapshot(
                at=float(telemetry.timestamps[-1]),
                verdicts=found,
                groups=groups.scores(shared, telemetry),
                basis={"model": 0, "peers": 0, "rules": missing} | {judge.basis: len(found) - missing},
                coverage=self._window.coverage(),
                version=self._card.version if self._card and judge is self._model else "none",
                trained_at=self._card.trained_at.timestamp() if self._card and judge is self._model else None,
            )

    def _forget(self, intake: Intake) -> None:
        """GPUs long silent on nodes that nobody scrapes any more have left the fleet."""
        silent = np.flatnonzero(self._window.silence() >= self._window.length).tolist()
        keys = list(self._window.gpus) if silent else []
        gone = {keys[row] for row in silent if keys[row][0] not in intake.scraped}
        if gone:
            log.info("GPUs left the fleet", gpus=sorted("/".join(key) for key in gone))
            self._window.forget(gone)

    def _newest_model(self) -> None:
        """Take up the newest version that loads. A damaged one is refused once, and the one before serves."""
        for version in registry.versions(self._models):
            if self._card and version.name <= self._card.version:
                return
            if version.name in self._refused:
                continue
            try:
                self._model, self._card = registry.read(version)
            except RegistryError as error:
                self._refused.add(version.name)
                log.error("model refused", error=str(error))
            else:
                log.info("model in use", version=version.name)
                return

    def _judge(self, telemetry: Telemetry) -> Judge:
        reported = self._window.reported()
        model = self._model
        if model and self._card:
            known = sum(signal.name in reported for signal in model.signals) >= _FITS * len(model.signals)
            if known and {gpu.model for gpu in telemetry.gpus} & set(self._card.models):
                return model
        previous = self._judged.judge if self._judged else None
        if isinstance(previous, PeerJudge) and previous.signals == telemetry.signals:
            return previous
        return PeerJudge(telemetry.signals, (self._signals.activity, self._signals.effort))

    def _judge_new_steps(self, judge: Judge, telemetry: Telemetry, steps: int) -> Residuals:
        """The newest HISTORY residuals; only steps not judged before are computed."""
        known = self._judged
        same = known is not None and known.judge is judge
        new = min(steps, HISTORY) if same else HISTORY
        with stage("model"):
            residuals = judge.residuals(telemetry.newest(_PAST + new), _PAST) if new else None
        if known and new < HISTORY:
            past = known.of(telemetry.gpus)
            residuals = past.followed_by(residuals, HISTORY) if residuals else past
        assert residuals is not None
        self._judged = _Judged(judge, telemetry.gpus, residuals)
        return residuals


@dataclass(frozen=True, slots=True)
class _Judged:
    """The newest residuals: by whom, and of which GPUs."""

    judge: Judge
    gpus: tuple[Gpu, ...]
    residuals: Residuals

    def of(self, gpus: tuple[Gpu, ...]) -> Residuals:
        """The same for another fleet: who is new, or was exchanged, has no past."""
        if gpus == self.gpus:
            return self.residuals
        rows = {gpu: row for row, gpu in enumerate(self.gpus)}
        here = np.array([rows.get(gpu, -1) for gpu in gpus], np.int64)
        own, shared = (
            np.where(here[:, None] >= 0, past[:, here], np.float32(np.nan))
            for past in (self.residuals.own, self.residuals.shared)
        )
        return Residuals(own, shared)
