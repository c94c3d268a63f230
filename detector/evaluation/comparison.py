"""All methods on all cases of one kind of data, and the report that comes of it."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from detector import recording
from detector.calibration import BLOCK
from detector.evaluation import contamination, datasets, measures, rules
from detector.evaluation.case import Case, build
from detector.evaluation.datasets import DatasetError, Synthetic
from detector.evaluation.events import bin_maxima
from detector.evaluation.measures import Unit
from detector.evaluation.methods import ABLATIONS, METHODS, STETHOS, Method, Outcome, Setup, scored
from detector.evaluation.stress import STRESS
from detector.fleet import LENGTH
from detector.residuals import Judge
from detector.signals import Signals

_CHANCE = "random"
# The same whatever the seed.
_CERTAIN = frozenset(METHODS) - {_CHANCE, "kmeans_windows", "isolation_forest", "cnn_forecast", "gdn", STETHOS}
COMPARED_WITH = "linear_one_hop"  # the model to beat: differences are drawn against it
Progress = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Plan:
    """data: synthetic, asd, smd or a folder. chosen: methods; none for all. folder: for recordings. source: where the
    public sets lie. quiet_gpu_hours: of fault-free fleets, over all seeds."""

    data: str
    seeds: Sequence[int]
    chosen: Sequence[str]
    ablations: bool
    stress: bool
    contamination: bool
    shape: Synthetic
    quiet_gpu_hours: float
    source: Path | None
    folder: Path


@dataclass(slots=True)
class Collected:
    """One method's units and times over the seeds."""

    units: list[list[Unit]]
    train_seconds: list[float]
    score_seconds: list[float]

    def add(self, units: list[Unit], outcome: Outcome) -> None:
        self.units.append(units)
        self.train_seconds.append(outcome.train_seconds)
        self.score_seconds.append(outcome.score_seconds)


def compare(plan: Plan, signals: Signals, setup: Setup, progress: Progress) -> Iterator[dict[str, object]]:
    """The report, ready for JSON, after each seed with all seeds so far.

    Raises DatasetError, RecordingError, TrainingError.
    """
    methods = _chosen(plan)
    collected: dict[str, Collected] = {}
    cases: list[Case] = []
    for seed in plan.seeds:
        again = bool(cases) and plan.data != "synthetic"
        if not again:
            progress(f"{plan.data}: reading" if plan.data != "synthetic" else f"seed {seed}: recording")
            cases.append(_case(plan, seed, signals))
        case, prepared = cases[-1], replace(setup, settings=replace(setup.settings, seed=seed))
        seeded = "" if plan.data == "synthetic" else f", seed {seed}"
        for name, method in methods.items():
            if again and name in _CERTAIN:
                continue
            progress(f"{case.name}{seeded}: {name}")
            outcome = method(case, prepared)
            found = measures.units(case, outcome)
            if name == STETHOS:
                assert outcome.judge is not None
                _quiet(plan, seed, signals, outcome.judge, found, progress)
                for label, harder in STRESS.items() if plan.stress else ():
                    progress(f"{case.name}{seeded}: {label}")
                    stressed = harder(case, seed)
                    again_scored = scored(stressed, outcome.judge, outcome.train_seconds)
                    _add(collected, label, measures.units(stressed, again_scored), again_scored)
            _add(collected, name, found, outcome)
        if plan.contamination:
            for label, dirty in contamination.cases(plan.shape, seed, plan.folder, case, signals):
                progress(f"{case.name}{seeded}: {label}")
                outcome = METHODS[STETHOS](dirty, prepared)
                _add(collected, label, measures.units(dirty, outcome), outcome)
        yield _report(plan, seed, cases, collected)


def _chosen(plan: Plan) -> dict[str, Method]:
    known = METHODS | ABLATIONS
    for name in plan.chosen:
        if name not in known:
            raise DatasetError(f"there is no method {name!r}; there are {', '.join(known)}")
    usual = METHODS | (ABLATIONS if plan.ablations else {})
    if plan.chosen and STETHOS not in plan.chosen and (plan.stress or plan.quiet_gpu_hours):
        raise DatasetError(f"stress and quiet hours are for {STETHOS}, which is not among the chosen methods")
    if plan.data != "synthetic" and (plan.contamination or plan.quiet_gpu_hours):
        raise DatasetError("contamination and quiet hours need synthetic fleets")
    # No table without what chance gets.
    return {name: known[name] for name in dict.fromkeys((_CHANCE, *plan.chosen))} if plan.chosen else usual


def _case(plan: Plan, seed: int, signals: Signals) -> Case:
    if plan.data == "synthetic":
        return datasets.synthetic(plan.shape, seed, plan.folder, signals)
    if plan.data in datasets.SERVERS:
        return datasets.servers(plan.data, plan.source, plan.folder, signals)
    return datasets.fleet(Path(plan.data), signals, Path(plan.data).name)


def _quiet(plan: Plan, seed: int, signals: Signals, judge: Judge, found: list[Unit], progress: Progress) -> None:
    """False alarms of a fleet in which nothing is wrong and everything else happens, into the unit's figures."""
    if not plan.quiet_gpu_hours or plan.data != "synthetic":
        return
    progress(f"seed {seed}: {plan.quiet_gpu_hours / len(plan.seeds):.0f} GPU-hours without a fault")
    gpus, past = plan.shape.nodes * plan.shape.gpus_per_node, LENGTH * plan.shape.step / 3600.0
    hours = math.ceil(plan.quiet_gpu_hours / len(plan.seeds) / gpus + past)
    shape = replace(plan.shape, faults=0, history_hours=0.0, hours=hours)
    folder = datasets.record(shape, seed, plan.folder / f"quiet-{seed}")
    telemetry = datasets.without(recording.read(folder / "recording.parquet", signals), frozenset({rules.PENDING}))
    nothing = np.zeros((len(telemetry.gpus), len(telemetry.timestamps) - LENGTH), np.bool_)
    case = build("quiet", telemetry, LENGTH, [], BLOCK, nothing, fleet=True)
    outcome = scored(case, judge, 0.0)
    found[0].figures["quiet_gpu_hours"] = case.gpu_hours
    assert outcome.own is not None
    bins = {"": measures.alarm_bins(case, outcome, BLOCK), "_of_gpus": bin_maxima(outcome.own, case.excused, BLOCK)}
    for name, maxima in bins.items():
        alarms = int((maxima >= 1).sum())
        found[0].figures[f"quiet_false_alarms{name}_per_1000h"] = 1000 * alarms / case.gpu_hours


def _add(collected: dict[str, Collected], name: str, units: list[Unit], outcome: Outcome) -> None:
    collected.setdefault(name, Collected([], [], [])).add(units, outcome)


def _report(plan: Plan, newest: int, cases: list[Case], collected: dict[str, Collected]) -> dict[str, object]:
    over = {name: list(_over_seeds(plan, each.units)) for name, each in collected.items()}
    reference = over.get(COMPARED_WITH)
    methods: dict[str, dict[str, object]] = {}
    for name, each in collected.items():
        found = measures.interval(over[name])
        figures: dict[str, object] = {figure: _plain(value) for figure, value in found.items()}
        if reference and name != COMPARED_WITH and len(reference) == len(over[name]):
            figures["vus_pr_difference"] = _plain(measures.difference(over[name], reference, "vus_pr"))
        figures["train_seconds"] = float(np.mean(each.train_seconds))
        figures["score_seconds"] = float(np.mean(each.score_seconds))
        methods[name] = figures
    return {
        "data": plan.data,
        "seeds": [seed for seed in plan.seeds if seed <= newest],
        "base_rate": float(np.mean([case.base_rate for case in cases])),
        "events": sum(len(case.events) for case in cases),
        "entity_hours": sum(case.gpu_hours for case in cases),
        "step_seconds": cases[0].telemetry.step,
        "buffer_steps": cases[0].buffer,
        "difference_from": COMPARED_WITH,
        "methods": methods,
    }


def _plain(figures: Mapping[str, float]) -> dict[str, float | None]:
    """JSON knows no NaN: what has no value is null."""
    return {name: None if math.isnan(value) else value for name, value in figures.items()}


def _over_seeds(plan: Plan, by_seed: list[list[Unit]]) -> Iterator[Unit]:
    """Fleets as they are; of servers, each one's mean over the seeds."""
    if plan.data == "synthetic" or len(by_seed) == 1:
        yield from (unit for units in by_seed for unit in units)
        return
    for same in zip(*by_seed, strict=True):
        yield replace(same[0], figures=measures.mean([replace(unit, hours=0.0) for unit in same]))
