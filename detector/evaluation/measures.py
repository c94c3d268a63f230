"""A method's outcome on a case → figures, for each unit that an interval can be drawn over."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

from detector.calibration import BLOCK
from detector.evaluation import events as found
from detector.evaluation import metrics
from detector.evaluation.affiliation import affiliation_f1
from detector.evaluation.case import Case
from detector.evaluation.causes import GROUP_FAULTS, RIGHT, SILENT_FAULTS
from detector.evaluation.events import Event
from detector.evaluation.methods import Outcome
from detector.telemetry import IDLE, Floats

LEAST_SEVERITY = 0.3
_BUDGETS = (1.0, 0.1)  # false alarms per entity-day of a server, per 1,000 GPU-hours of a fleet
_FEW = 0.25  # of a group's GPUs may alarm for themselves when it does


@dataclass(frozen=True, slots=True)
class Unit:
    """One fleet, or one server. figures: name → value, NaN where it has none.

    maxima: a fleet's bins, see `alarm_bins`; hours: its GPU-hours; peaks: the highest score within each event,
    peaks_ruled: infinity where a rule found it.
    """

    figures: dict[str, float]
    maxima: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    hours: float = 0.0
    peaks: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))
    peaks_ruled: NDArray[np.float64] = field(default_factory=lambda: np.zeros(0))


def units(case: Case, outcome: Outcome) -> list[Unit]:
    return [_fleet(case, outcome)] if case.fleet else [_server(case, outcome, row) for row in range(len(case.lengths))]


def _ranking(score: Floats, label: NDArray[np.bool_], buffer: int) -> dict[str, float]:
    return {
        "vus_pr": metrics.vus_pr(score, label, buffer),
        "auc_pr": metrics.auc_pr(score, label),
        "auc_roc": metrics.auc_roc(score, label),
        "oracle_f1": metrics.oracle_f1(score, label),
        "affiliation_f1": affiliation_f1(score, label),
        "point_adjusted_f1": metrics.point_adjusted_f1(score, label),
    }


def _server(case: Case, outcome: Outcome, row: int) -> Unit:
    length = case.lengths[row]
    scores = outcome.scores[[row], :length]
    mine = [event for event in case.events if row in event.entities]
    here = [Event((0,), event.start, event.end) for event in mine]
    figures = _ranking(scores[0], case.labels[row, :length], case.buffer)
    days = length * case.telemetry.step / 86_400
    excused = case.excused[[row], :length]
    for budget in _BUDGETS:
        figures[f"event_recall_{budget:g}_per_day"] = found.recall_at_budget(
            scores, here, excused, case.buffer // 2, budget * days
        )
    if outcome.calibrated:
        bins = found.bin_maxima(scores, excused, case.buffer // 2)
        figures |= _shipped(scores, here, bins, length * case.telemetry.step / 3600)
    if outcome.blame is not None:
        names = [signal.name for signal in case.telemetry.signals]
        for share in (1.0, 1.5):
            rates = [_hits(outcome.blame[:, row], event, names, share) for event in mine if event.signals]
            figures[f"hit_rate_{100 * share:.0f}"] = float(np.mean(rates)) if rates else float("nan")
    return Unit(figures)


def _hits(blame: Floats, event: Event, names: Sequence[str], share: float) -> float:
    total = np.square(blame[:, event.start : event.end], dtype=np.float64).mean(axis=1)
    return found.hit_rate([names[place] for place in np.argsort(-total, kind="stable")], event.signals, share)


def _fleet(case: Case, outcome: Outcome) -> Unit:
    """The GPUs' series one after the other, and one threshold for all of them."""
    counted = [event for event in case.events if event.severity >= LEAST_SEVERITY]
    figures = _ranking(outcome.scores.ravel(), case.labels.ravel(), case.buffer)
    maxima = alarm_bins(case, outcome, case.buffer // 2)
    peaks = np.array([_peak(outcome.scores, event) for event in counted])
    ruled = np.array([case.rules[list(event.entities), event.start : event.end].any() for event in counted])
    if outcome.calibrated:
        figures |= _shipped(outcome.scores, counted, alarm_bins(case, outcome, BLOCK), case.gpu_hours)
        figures["event_recall_shipped_with_rules"] = float(np.mean(ruled | (peaks >= 1))) if counted else float("nan")
        if outcome.own is not None:
            alarms = (found.bin_maxima(outcome.own, case.excused, BLOCK) >= 1).sum()
            figures["false_alarms_of_gpus_per_1000h"] = 1000 * float(alarms) / case.gpu_hours
        figures |= _explained(case, outcome, counted)
    return Unit(figures, maxima, case.gpu_hours, peaks, np.where(ruled, np.inf, peaks))


def _peak(scores: Floats, event: Event) -> float:
    part = scores[list(event.entities), event.start : event.end]
    return float(np.nanmax(part)) if not np.isnan(part).all() else -np.inf


def alarm_bins(case: Case, outcome: Outcome, width: int) -> NDArray[np.float64]:
    """The highest score in each bin of each GPU, and of each group, which is one alarm however many GPUs it has.

    See `events.bin_maxima`. A group's alarm is right where at least half of its GPUs are in an event.
    """
    own = outcome.scores if outcome.own is None else outcome.own
    bins = [found.bin_maxima(own, case.excused, width)]
    for (kind, name), scores in outcome.groups.items():
        members = _members(case, kind, name)
        right = 2 * (members & case.excused).sum(axis=0) >= np.maximum(members.sum(axis=0), 1)
        bins.append(found.bin_maxima(scores[None], right[None], width))
    return np.sort(np.concatenate(bins))[::-1]


def _members(case: Case, kind: str, name: str) -> NDArray[np.bool_]:
    """Who belongs to a group, [gpus, scored steps]."""
    if kind == "job":
        working: NDArray[np.bool_] = case.telemetry.of_job[:, case.split :] == case.telemetry.jobs.index(name)
        return working
    here = np.array([getattr(gpu, kind) == name for gpu in case.telemetry.gpus])
    return np.broadcast_to(here[:, None], case.excused.shape)


def _shipped(scores: Floats, happened: Sequence[Event], bins: NDArray[np.float64], hours: float) -> dict[str, float]:
    """What a user gets without choosing anything: at a score of 1."""
    late = found.delays(scores, happened, np.nextafter(1.0, 0.0))
    sudden = late[[not event.creeping for event in happened]] if happened else late
    return {
        "event_recall_shipped": float(np.mean(~np.isnan(late))) if len(late) else float("nan"),
        "median_delay_steps": float(np.nanmedian(sudden)) if np.isfinite(sudden).any() else float("nan"),
        "false_alarms_per_1000h": 1000 * float((bins >= 1).sum()) / hours,
    }


def _explained(case: Case, outcome: Outcome, happened: Sequence[Event]) -> dict[str, float]:
    """Whether the cause is right and a shared incident is one alarm, of the events that were found.

    What is right for another fault that the same GPU has at the same time counts neither way.
    """
    right, grouped, silent = [], [], []
    for event in happened:
        beside = [other for other in case.events if other is not event and set(other.entities) & set(event.entities)]
        told = Counter(
            cause
            for gpu in event.entities
            for step in range(event.start, event.end)
            if (cause := outcome.causes.get((gpu, step)))
            and not any(_covers(other, gpu, step) and cause in RIGHT.get(other.kind, ()) for other in beside)
        )
        if told and event.kind in RIGHT:
            right.append(told.most_common(1)[0][0] in RIGHT[event.kind])
        if event.kind in GROUP_FAULTS:
            grouped.append(_as_one(case, outcome, event, beside))
        if event.kind in SILENT_FAULTS:
            silent.append(_as_one(case, outcome, event, beside))
    return {
        "cause_right": float(np.mean(right)) if right else float("nan"),
        "group_alarm_share": float(np.mean(grouped)) if grouped else float("nan"),
        "silent_node_alarm_share": float(np.mean(silent)) if silent else float("nan"),
    }


def _as_one(case: Case, outcome: Outcome, event: Event, beside: Sequence[Event]) -> bool:
    """Whether an event is the alarm of a group, and few of its GPUs' own that have nothing else."""
    own = outcome.scores if outcome.own is None else outcome.own
    within = slice(event.start, event.end)
    told = any((outcome.groups[group][within] >= 1).any() for group in _groups(case, event) if group in outcome.groups)
    alone = [
        any(
            own[gpu, step] >= 1 and not any(_covers(other, gpu, step) for other in beside)
            for step in range(event.start, event.end)
        )
        for gpu in event.entities
    ]
    return bool(told and np.mean(alone) <= _FEW)


def _covers(event: Event, gpu: int, step: int) -> bool:
    return gpu in event.entities and event.start <= step < event.end


def _groups(case: Case, event: Event) -> set[tuple[str, str]]:
    """The node and the rack of an event's GPUs, and the jobs on them."""
    members: set[tuple[str, str]] = set()
    for row in event.entities:
        gpu = case.telemetry.gpus[row]
        jobs = np.unique(case.telemetry.job[row, case.split + event.start : case.split + event.end])
        members |= {("node", gpu.node), ("rack", gpu.rack)}
        members |= {("job", case.telemetry.jobs[job]) for job in jobs if job != IDLE}
    return members


def pooled(chosen: Sequence[Unit]) -> dict[str, float]:
    """What needs all fleets together: event recall at a budget, with one threshold for all of them."""
    maxima = np.sort(np.concatenate([unit.maxima for unit in chosen]))[::-1]
    hours = sum(unit.hours for unit in chosen)
    figures = {}
    for budget in _BUDGETS:
        above = found.threshold(maxima, budget * hours / 1000)
        for name, peaks in (("", [u.peaks for u in chosen]), ("_with_rules", [u.peaks_ruled for u in chosen])):
            together = np.concatenate(peaks)
            figures[f"event_recall_{budget:g}_per_1000h{name}"] = (
                float(np.mean(together > above)) if len(together) else float("nan")
            )
    return figures


def mean(chosen: Sequence[Unit]) -> dict[str, float]:
    """Each figure's mean over the units that have it, and the pooled ones of fleets."""
    names = dict.fromkeys(name for unit in chosen for name in unit.figures)
    figures = {name: _mean([unit.figures.get(name, float("nan")) for unit in chosen]) for name in names}
    return figures | (pooled(chosen) if any(unit.hours for unit in chosen) else {})


def interval(
    chosen: Sequence[Unit],
    summary: Callable[[Sequence[Unit]], dict[str, float]] = mean,
    rounds: int = 500,
    seed: int = 0,
) -> dict[str, dict[str, float]]:
    """Figures with 95 % percentile bootstrap intervals over the units. The same seed draws the same units for every
    method, so differences are paired."""
    random = np.random.default_rng(seed)
    drawn = [summary([chosen[place] for place in random.integers(0, len(chosen), len(chosen))]) for _ in range(rounds)]
    result = {}
    for name, value in summary(chosen).items():
        known = np.array([each[name] for each in drawn])
        known = known[~np.isnan(known)]
        low, high = np.quantile(known, [0.025, 0.975]) if len(known) else (float("nan"), float("nan"))
        result[name] = {"mean": value, "low": float(low), "high": float(high)}
    return result


def _mean(values: Sequence[float]) -> float:
    known = [value for value in values if not np.isnan(value)]
    return float(np.mean(known)) if known else float("nan")


def difference(chosen: Sequence[Unit], reference: Sequence[Unit], name: str) -> dict[str, float]:
    """How much higher a figure is than the reference's, with the interval of paired differences."""
    paired = [
        Unit({name: mine.figures.get(name, float("nan")) - other.figures.get(name, float("nan"))})
        for mine, other in zip(chosen, reference, strict=True)
    ]
    return interval(paired)[name]
