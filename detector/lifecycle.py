"""The life of a model: recalibrated daily, retrained on a cadence and on drift, tried beside the one in office.

Training runs in a process of its own at low priority, so that no tick waits for it. Where a version is tells what it
is: in the models' folder those that served or serve (the newest does), in `shadow` the candidate, in `rejected` what
was turned down or rolled back, with the reason. So a restart goes on where it was.
"""

from __future__ import annotations

import math
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import structlog

from detector import registry
from detector.budget import broken
from detector.fleet import Fleet
from detector.ingest import WHOLE
from detector.promql import CREDENTIALS
from detector.registry import RegistryError
from detector.shard import Shard
from detector.topology import KINDS

SHADOW, REJECTED = "shadow", "rejected"
_LEARNED_FROM = 2_200_000  # GPU-steps: 256 GPUs for a day at 10 s, which takes 4 GB
_HOUR = 3600.0

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Plan:
    """When a model is renewed, and from what. Hours; 0 turns recalibration or retraining off.

    edges: kinds of peers, None for all. history: how far back a training looks. first: how long a fleet without any
    model is watched before it gets one. trial: how long a candidate judges beside the model in office. guard: how
    long the predecessor judges beside a new one. keep: versions that stay on disk.
    """

    url: str
    signals_file: Path
    models: Path
    step: float
    budget: float
    shard: Shard = WHOLE
    edges: frozenset[str] | None = None
    recalibrate: float = 24.0
    retrain: float = 168.0
    history: float = 24.0
    first: float = 1.0
    trial: float = 1.0
    guard: float = 6.0
    keep: int = 10
    iterations: int = 1000
    niceness: int = 15  # of the training's process
    credentials: str | None = field(default=None, repr=False)  # for Prometheus


@dataclass(slots=True)
class Events:
    """What happened since the process started, by kind and result."""

    counts: dict[tuple[str, str], int] = field(default_factory=dict)
    recalibrated_at: float | None = None

    def add(self, kind: str, result: str) -> None:
        self.counts[kind, result] = self.counts.get((kind, result), 0) + 1


class LifeCycle:
    """Starts trainings, and decides what becomes of their results."""

    def __init__(self, fleet: Fleet, plan: Plan, clock: Callable[[], float] = time.time) -> None:
        self.events = Events()
        self.plan = plan
        self._fleet = fleet
        self._clock = clock
        self._child: tuple[str, subprocess.Popen[bytes]] | None = None
        self._drift_told = False
        self._starting = threading.Lock()
        self._began = clock()
        self._asked: dict[str, float] = {}  # Unix seconds of the last attempt
        self._trained: dict[str, float] = {}  # by version, when its network was

    def renew(self) -> None:
        """Start what is due by the age of the versions on disk: a restart neither puts it off nor repeats it."""
        trained, fitted = self._ages()
        if self._due("retrain", self.plan.retrain, trained, self._began + self.plan.first * _HOUR):
            self.retrain("the cadence" if trained else "there is no model yet")
        elif self._due("recalibrate", self.plan.recalibrate, fitted, math.inf):
            self.recalibrate()

    def _due(self, kind: str, hours: float, last: float | None, without: float) -> bool:
        """Whether it is time; `without` is when it is for who never had any. A failure is tried again an hour later."""
        due = without if last is None else last + hours * _HOUR
        return hours > 0 and self._clock() >= max(due, self._asked.get(kind, -math.inf) + min(hours, 1.0) * _HOUR)

    def _ages(self) -> tuple[float | None, float | None]:
        """When a network was last trained, and thresholds last fitted, served or not; Unix seconds."""
        folders = self.plan.models, self.plan.models / SHADOW, self.plan.models / REJECTED
        found = [version for folder in folders for version in registry.versions(folder)]
        for version in found:
            if version.name not in self._trained:
                with suppress(RegistryError):
                    parent = registry.card_of(version).parent
                    self._trained[version.name] = registry.made_at(parent or version.name)
        trained = [self._trained[version.name] for version in found if version.name in self._trained]
        fitted = [registry.made_at(version.name) for version in found]
        return max(trained, default=None), max(fitted, default=None)

    def recalibrate(self) -> None:
        """Refit scales and thresholds of the version in office on recent history."""
        office = self._fleet.office
        if office:
            self._start("recalibrate", "--recalibrate", str(office), "--out", str(self.plan.models))

    def retrain(self, reason: str = "the cadence") -> None:
        """Train a candidate; it is tried before it serves."""
        log.info("retraining", reason=reason)
        office = self._fleet.office
        against = ["--against", str(office)] if office else []
        self._start(
            "retrain", "--iterations", str(self.plan.iterations), "--threads", "1", *against,
            "--out", str(self.plan.models / SHADOW),
        )  # fmt: skip

    def review(self) -> None:
        """Look at what is going on; called between ticks, and never waits."""
        self._reap()
        drifted = self._fleet.drift.drifted() if self._fleet.drift else None
        if drifted is None:
            self._drift_told = False
        elif not self._drift_told and self._child is None:
            self._drift_told = True
            self.retrain(f"{drifted} has drifted")
        candidates = registry.versions(self.plan.models / SHADOW)
        if candidates:
            self._try(candidates[0])
            for older in candidates[1:]:
                self._reject(older, "a newer candidate is there")
        else:
            self._guard()

    def close(self) -> None:
        """End a training that is under way; its checkpoint stays."""
        if self._child:
            self._child[1].terminate()
            self._child[1].communicate()
            self._child = None

    def _start(self, kind: str, *what: str) -> None:
        with self._starting:  # what is due and what has drifted come from two threads
            if self._child:
                log.info("a training is under way already", asked=kind)
            else:
                self._child = kind, self._begun(kind, *what)

    def _begun(self, kind: str, *what: str) -> subprocess.Popen[bytes]:
        plan, now = self.plan, self._clock()
        self._asked[kind] = now
        stretch = [f"{datetime.fromtimestamp(at, UTC):%Y-%m-%dT%H:%M:%SZ}" for at in (now - plan.history * _HOUR, now)]
        options = ["--prometheus", plan.url, "--start", stretch[0], "--end", stretch[1], "--step", f"{plan.step:g}"]
        options += ["--budget", f"{plan.budget:g}", "--signals", str(plan.signals_file)]
        options += [f"--no-edges={each}" for each in KINDS if plan.edges is not None and each not in plan.edges]
        # A large fleet is learned from a share of its racks: the rest would teach the same at more cost.
        most = max(1, round(_LEARNED_FROM * plan.step / (plan.history * _HOUR)))
        share = plan.shard.part(self._fleet.gpus, most)
        options += ["--shard", f"{share.index}/{share.of}"]
        # Anybody on the machine can read a command line, and only the owner the environment.
        environment = os.environ | ({CREDENTIALS: plan.credentials} if plan.credentials else {})
        child = subprocess.Popen(  # noqa: S603
            [sys.executable, "-m", "detector", "train", *what, *options],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            env=environment,
        )
        os.setpriority(os.PRIO_PROCESS, child.pid, plan.niceness)
        return child

    def _reap(self) -> None:
        if self._child is None or self._child[1].poll() is None:
            return
        kind, child = self._child
        self._child = None
        said = (child.communicate()[0] or b"").decode(errors="replace").strip().splitlines()
        result = "ok" if child.returncode == 0 else "failed"
        self.events.add(kind, result)
        if result == "ok" and kind == "recalibrate":
            self.events.recalibrated_at = self._clock()
            registry.prune(self.plan.models, self.plan.keep)
        (log.info if result == "ok" else log.error)(f"{kind} {result}", said=said[-1] if said else "")

    def _try(self, candidate: Path) -> None:
        """Decide about the candidate when its trial is over, or at once where its card says enough."""
        trial = self._fleet.trial
        if trial is None or trial.version != candidate.name:
            try:
                self._fleet.second(candidate)
            except RegistryError as error:
                self._reject(candidate, str(error))
            return None
        now, before = trial.card.rebuild_error, trial.card.rebuild_error_before
        if now is not None and before is not None and now >= before:
            return self._reject(candidate, f"rebuilds no better: {now:.4g} against {before:.4g}")
        own, office = trial.own, trial.office
        if broken(own.alarms, own.gpu_hours, self.plan.budget) and own.alarms > office.alarms:
            return self._reject(candidate, f"{own.alarms} alarms in {own.gpu_hours:.0f} GPU-hours break the budget")
        nobody = self._fleet.office is None  # to compare with
        if nobody or self._clock() - trial.since >= self.plan.trial * _HOUR:
            self._fleet.second(None)
            registry.move(candidate, self.plan.models)
            self.events.add("promote", "ok")
            log.info("model promoted", version=candidate.name)
            registry.prune(self.plan.models, self.plan.keep)
        return None

    def _guard(self) -> None:
        """Hold a new version against its predecessor, and go back if it alone breaks the budget."""
        versions = registry.versions(self.plan.models)
        trial, office = self._fleet.trial, self._fleet.office
        if office is None or len(versions) < 2 or office != versions[0]:
            return
        if trial is None or trial.version != versions[1].name:
            if self._clock() - self._fleet.in_office_since < self.plan.guard * _HOUR:
                try:
                    self._fleet.second(versions[1])
                except RegistryError as error:
                    log.error("no predecessor to go back to", error=str(error))
            return
        new, old, budget = trial.office, trial.own, self.plan.budget
        if broken(new.alarms, new.gpu_hours, budget) and not broken(old.alarms, old.gpu_hours, budget):
            self._fleet.second(None)
            reason = f"{new.alarms} alarms in {new.gpu_hours:.0f} GPU-hours, {old.alarms} by {versions[1].name}"
            self._reject(office, reason)
            self.events.add("roll_back", "ok")
        elif self._clock() - trial.since >= self.plan.guard * _HOUR:
            self._fleet.second(None)

    def _reject(self, version: Path, reason: str) -> None:
        self._fleet.second(None)
        registry.reject(version, self.plan.models / REJECTED, reason)
        self.events.add("reject", "ok")
        log.warning("model rejected", version=version.name, reason=reason)
        registry.prune(self.plan.models / REJECTED, self.plan.keep)
