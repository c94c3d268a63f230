"""What a method is given, and beside it, for the measures alone, what was really wrong."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from detector.evaluation import truth
from detector.evaluation.events import Event, Mask
from detector.telemetry import Telemetry

Blame = Mapping[int, Sequence[tuple[int, int, tuple[str, ...]]]]  # entity → (first step, last step, guilty signals)


@dataclass(frozen=True, slots=True)
class Case:
    """One thing to train on and to score: steps before `split` train, the others are scored.

    fleet: entities are alike and one threshold is for all; otherwise each is judged by itself. events, labels,
    excused, rules: of the scored steps, counted from `split`. excused: where an alarm is not false, the recovery from
    events included. rules: alarms of the rules beside the model. lengths: scored steps of each entity.
    """

    name: str
    telemetry: Telemetry
    split: int
    buffer: int
    fleet: bool
    events: tuple[Event, ...]
    labels: Mask
    excused: Mask
    rules: Mask
    lengths: tuple[int, ...]

    @property
    def gpu_hours(self) -> float:
        return sum(self.lengths) * self.telemetry.step / 3600

    @property
    def base_rate(self) -> float:
        """Share of the scored samples that are anomalous: what a random score's AUC-PR comes to."""
        return float(self.labels.sum() / sum(self.lengths))


def build(
    name: str, telemetry: Telemetry, split: int, rows: Sequence[truth.Row], buffer: int, rules: Mask, fleet: bool
) -> Case:
    """rules: bool [entities, scored steps]."""
    recovery = buffer // 2
    events = truth.events(rows, telemetry, split, recovery)
    reported = np.any(~np.isnan(telemetry.values[..., split:]), axis=0)
    entities, steps = reported.shape
    lengths = np.full(entities, steps) if fleet else steps - np.argmax(reported[:, ::-1], axis=1)
    return Case(
        name,
        telemetry,
        split,
        buffer,
        fleet,
        tuple(event for event in events if event.start >= 0),
        truth.mask(events, entities, steps, 0),
        truth.mask(events, entities, steps, recovery),
        rules,
        tuple(int(length) for length in lengths),
    )


def blaming(case: Case, blame: Blame) -> Case:
    """The case with the guilty signals of each event that an interpretation overlaps."""
    told = []
    for event in case.events:
        lines = blame.get(event.entities[0], ())
        names = {name for first, last, guilty in lines if first <= event.end and last >= event.start for name in guilty}
        told.append(replace(event, signals=tuple(sorted(names))))
    return replace(case, events=tuple(told))


def part(telemetry: Telemetry, first: int, end: int | None = None) -> Telemetry:
    """Some steps of the telemetry, as a view."""
    return telemetry.part(slice(first, end))
