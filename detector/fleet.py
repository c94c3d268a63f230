"""One look at the fleet: pull what is new, judge every GPU, sum up the groups."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import structlog

from detector import groups, ingest, registry, verdicts
from detector.calibration import HISTORY
from detector.contexts import SETTLING
from detector.features import WINDOW
from detector.ingest import Intake
from detector.promql import Prometheus
from detector.registry import Card, RegistryError
from detector.residuals import Judge, PeerJudge, Residuals
from detector.signals import Signals
from detector.state import Counts, Snapshot
from detector.telemetry import Floats, Gpu, Telemetry
from detector.verdicts import MISSING_STEPS, Verdict
from detector.window import Window

log = structlog.get_logger()

LENGTH = WINDOW + SETTLING + HISTORY + 1  # of the window: every residual with its past, and a counter's first total
_FITS = 0.5  # share of a model's signals that the fleet must report for the model to serve


class Fleet:
    """The detector's memory between ticks: the window, the judge in office, and its newest residuals."""

    def __init__(self, prometheus: Prometheus, signals: Signals, models: Path, step: float) -> None:
        self.counts = Counts()
        self._prometheus = prometheus
        self._signals = signals
        self._models = models
        self._window = Window(LENGTH, step)
        self._refused: set[str] = set()
        self._model: Judge | None = None
        self._card: Card | None = None
        self._judged: tuple[tuple[Judge, tuple[Gpu, ...]], Residuals] | None = None

    def tick(self, now: float) -> Snapshot:
        """Judge the newest full step before `now`. Raises PrometheusError."""
        with self._timed("ingest"):
            intake = ingest.pull(self._prometheus, self._signals, self._window, now)
            self._forget(intake)
        with self._timed("model"):
            self._newest_model()
            telemetry = self._window.telemetry()
            if not telemetry.gpus:
                return Snapshot.empty(intake.at)
            judge = self._judge(telemetry)
            residuals = self._judge_new_steps(judge, telemetry, intake.steps)
        with self._timed("verdict"):
            found, basis = self._verdicts(judge, residuals.own, telemetry, intake)
            shared = verdicts.ratios(residuals.shared, judge.signals, judge.shared)
            return Snapshot(
                at=float(telemetry.timestamps[-1]),
                verdicts=found,
                groups=groups.scores(shared, telemetry),
                basis=basis,
                coverage=_coverage(telemetry),
                version=self._card.version if self._card and judge is self._model else "none",
                trained_at=self._card.trained_at.timestamp() if self._card and judge is self._model else None,
            )

    def _forget(self, intake: Intake) -> None:
        """GPUs long silent on nodes that nobody scrapes any more have left the fleet."""
        silence = self._window.silence()
        gone = {key for key, steps in silence.items() if steps >= self._window.length and key[0] not in intake.scraped}
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
        reported = {
            signal.name
            for signal, values in zip(telemetry.signals, telemetry.values, strict=True)
            if not np.isnan(values).all()
        }
        model = self._model
        if model and self._card:
            known = sum(signal.name in reported for signal in model.signals) >= _FITS * len(model.signals)
            if known and {gpu.model for gpu in telemetry.gpus} & set(self._card.models):
                return model
        previous = self._judged[0][0] if self._judged else None
        if isinstance(previous, PeerJudge) and previous.signals == telemetry.signals:
            return previous
        return PeerJudge(telemetry.signals, (self._signals.activity, self._signals.effort))

    def _judge_new_steps(self, judge: Judge, telemetry: Telemetry, steps: int) -> Residuals:
        """The newest HISTORY residuals; only steps not judged before are computed."""
        known = self._judged
        office = judge, telemetry.gpus
        new = min(steps, HISTORY) if known and known[0][0] is judge and known[0][1] == telemetry.gpus else HISTORY
        residuals = judge.residuals(telemetry, LENGTH - new) if new else None
        if known and new < HISTORY:
            residuals = known[1].followed_by(residuals, HISTORY) if residuals else known[1]
        assert residuals is not None
        self._judged = office, residuals
        return residuals

    def _verdicts(
        self, judge: Judge, own: Floats, telemetry: Telemetry, intake: Intake
    ) -> tuple[dict[Gpu, Verdict], dict[str, int]]:
        """A verdict for every GPU that reports, and for those that are missed. The others get no score at all."""
        silence = self._window.silence()
        basis = {"model": 0, "peers": 0, "rules": 0}
        found: dict[Gpu, Verdict] = {}
        judged = verdicts.judge(own, judge.signals, judge.own)
        for gpu, verdict in zip(telemetry.gpus, judged, strict=True):
            silent = silence[gpu.node, gpu.gpu]
            if silent >= MISSING_STEPS:
                if gpu.node in intake.answering:
                    found[gpu] = verdicts.missing(silent)
                    basis["rules"] += 1
            else:
                found[gpu] = verdict or Verdict(0.0)
                basis[judge.basis if verdict else "rules"] += 1
        return found, basis

    @contextmanager
    def _timed(self, stage: str) -> Iterator[None]:
        begin = time.perf_counter()
        yield
        self.counts.seconds[stage] = time.perf_counter() - begin


def _coverage(telemetry: Telemetry) -> float:
    """Of the readings that came within the window, the share that came in the newest step."""
    ever = ~np.isnan(telemetry.values).all(axis=-1)
    now = ~np.isnan(telemetry.values[..., -1])
    return float(now.sum() / ever.sum()) if ever.any() else 0.0
