"""Every method as one call: train on the first part of a case, score the rest."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from unittest import mock

import numpy as np

from detector import features, groups, scoring, training, verdicts
from detector.evaluation.baselines import BASELINES
from detector.evaluation.baselines.series import prepare
from detector.evaluation.case import Case, part
from detector.residuals import Judge, PeerJudge
from detector.telemetry import IDLE, Floats, Telemetry
from detector.topology import KINDS
from detector.training import Settings

STETHOS = "stethos"
Groups = dict[tuple[str, str], Floats]


@dataclass(frozen=True, slots=True)
class Outcome:
    """A method's scores of the test part, [gpus, steps], and what else it says.

    blame: how much of it each signal has, [signals, gpus, steps]. calibrated: 1 is the alert threshold. causes:
    (gpu, step) → cause. own: the scores without those of groups. groups: (type, name) → scores, [steps]. judge: what
    scored, to score more with.
    """

    scores: Floats
    train_seconds: float
    score_seconds: float
    blame: Floats | None = None
    calibrated: bool = False
    own: Floats | None = None
    causes: dict[tuple[int, int], str] = field(default_factory=dict)
    groups: Groups = field(default_factory=dict)
    judge: Judge | None = None


@dataclass(frozen=True, slots=True)
class Setup:
    """How our method is trained. state: the activity and effort signals."""

    settings: Settings
    state: tuple[str, str]


Method = Callable[[Case, Setup], Outcome]


def baseline(name: str) -> Method:
    def run(case: Case, setup: Setup) -> Outcome:
        series = prepare(case.telemetry, case.split, by_model=case.fleet)
        method = BASELINES[name](setup.settings.seed)
        begin = time.perf_counter()
        method.fit(series)
        fitted = time.perf_counter()
        parts = method.score(series)
        done = time.perf_counter()
        blame = None if parts.shape[2] == 1 else _by_signal(parts, series.names, case.telemetry)
        return Outcome(parts.mean(axis=2), fitted - begin, done - fitted, blame)

    return run


def _by_signal(parts: Floats, names: Sequence[str], telemetry: Telemetry) -> Floats:
    """[gpus, steps, some signals] → [signals, gpus, steps], 0 for those that the method was not given."""
    blame = np.zeros((len(telemetry.signals), *parts.shape[:2]), np.float32)
    for row, signal in enumerate(telemetry.signals):
        if signal.name in names:
            blame[row] = parts[..., names.index(signal.name)]
    return blame


def stethos(case: Case, setup: Setup) -> Outcome:
    """The code of the service: its training, its residuals, its verdicts, its groups."""
    judge, seconds = trained(case, setup)
    return scored(case, judge, seconds)


def trained(case: Case, setup: Setup) -> tuple[Judge, float]:
    begin = time.perf_counter()
    judge, _ = training.train([part(case.telemetry, 0, case.split)], setup.state, setup.settings, lambda *_: None)
    return judge, time.perf_counter() - begin


def scored(case: Case, judge: Judge, train_seconds: float) -> Outcome:
    """The judge's findings at every test step."""
    telemetry = case.telemetry
    shape = len(telemetry.gpus), len(telemetry.timestamps) - case.split
    own, shared = np.full(shape, np.nan, np.float32), np.full(shape, np.nan, np.float32)
    blame = None if case.fleet else np.zeros((len(telemetry.signals), *shape), np.float32)
    rows = [[signal.name for signal in telemetry.signals].index(signal.name) for signal in judge.signals]
    causes: dict[tuple[int, int], str] = {}
    by_group: Groups = {}
    begin = time.perf_counter()
    for step in scoring.score(telemetry, judge, case.split):
        at = step.index - case.split
        own[:, at] = step.findings.score
        shared[:, at] = scoring.common_mode(telemetry, step)
        for group, cause in step.group_causes.items():
            members = np.flatnonzero(groups.members(group, telemetry, step.index))
            causes |= {(gpu, at): cause for gpu in members.tolist()}
        causes |= {(gpu, at): cause for gpu, cause in step.findings.causes.items() if cause}
        for group, value in step.groups.items():
            by_group.setdefault(group, np.zeros(shape[1], np.float32))[at] = value
        if blame is not None:
            blame[rows, :, at] = np.maximum(verdicts.ratios(step.own, judge.signals, judge.own), 0)
    seconds = time.perf_counter() - begin
    return Outcome(np.fmax(own, shared), train_seconds, seconds, blame, True, own, causes, by_group, judge)


def cold(case: Case, setup: Setup) -> Outcome:
    """What the service says before anything is trained."""
    known = np.any(~np.isnan(case.telemetry.values[..., : case.split]), axis=(1, 2))
    signals = tuple(signal for signal, kept in zip(case.telemetry.signals, known, strict=True) if kept)
    return scored(case, PeerJudge(signals, setup.state), 0.0)


def without_labels(case: Case, setup: Setup) -> Outcome:
    """Nobody says which GPUs work together; they have to be known by it."""
    telemetry = case.telemetry
    return stethos(replace(case, telemetry=replace(telemetry, job=np.full_like(telemetry.job, IDLE))), setup)


def without_jobs(case: Case, setup: Setup) -> Outcome:
    """No job edges: nobody says which GPUs work together, and nobody finds out."""
    kinds = frozenset(KINDS) - {"job"}
    return without_labels(replace(case, telemetry=replace(case.telemetry, edges=kinds)), setup)


def without_peers(case: Case, setup: Setup) -> Outcome:
    """No edges at all: one model for everybody, but nobody to compare with."""
    return stethos(replace(case, telemetry=replace(case.telemetry, edges=frozenset())), setup)


def without_mask(case: Case, setup: Setup) -> Outcome:
    """No presence mask: an absent reading is the last one before."""
    values = case.telemetry.values
    last = np.maximum.accumulate(np.where(np.isnan(values), 0, np.arange(values.shape[2])), axis=2)
    filled = np.take_along_axis(values, last, axis=2)
    return stethos(replace(case, telemetry=replace(case.telemetry, values=filled)), setup)


def without_common_mode(case: Case, setup: Setup) -> Outcome:
    """Only what sets a GPU apart from its peers."""
    found = stethos(case, setup)
    assert found.own is not None
    return replace(found, scores=found.own, groups={})


def without_lags(case: Case, setup: Setup) -> Outcome:
    """The present only: the slower time scales show it too."""
    with mock.patch.object(features, "MEMORY", (0.0,) * len(features.MEMORY)):
        return stethos(case, setup)


METHODS: dict[str, Method] = {
    **{name: baseline(name) for name in BASELINES},
    "stethos_cold_start": cold,
    STETHOS: stethos,
}
ABLATIONS: dict[str, Method] = {
    "stethos_no_peers": without_peers,
    "stethos_no_job_labels": without_labels,
    "stethos_no_job_edges": without_jobs,
    "stethos_no_lags": without_lags,
    "stethos_no_presence_mask": without_mask,
    "stethos_no_common_mode": without_common_mode,
}
