"""Telemetry of the past → what the service would have said at each of its steps."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from detector import anew, changes, findings, groups, rules
from detector.calibration import HISTORY
from detector.changes import REACH
from detector.contexts import SETTLING
from detector.features import WINDOW
from detector.findings import Findings
from detector.residuals import Judge, Residuals
from detector.telemetry import IDLE, Floats, Telemetry
from detector.verdicts import TOP

_CHUNK = 256  # steps that the model sees at once
_PAST = WINDOW + SETTLING + 1  # steps that the first residual of a chunk looks back on, and a counter's first total

_SCHEMA = pa.schema(
    [
        pa.field("timestamp", pa.timestamp("us", tz="UTC"), nullable=False),
        pa.field("node", pa.string(), nullable=False),
        pa.field("gpu", pa.string(), nullable=False),
        pa.field("score", pa.float32(), nullable=False),
        pa.field("common_mode_score", pa.float32()),
        pa.field("cause", pa.string()),
        *(
            pa.field(f"{what}_{place}", kind)
            for place in range(1, TOP + 1)
            for what, kind in (("signal", pa.string()), ("contribution", pa.float32()))
        ),
    ]
)


@dataclass(frozen=True, slots=True)
class Step:
    """The findings at one step of the telemetry.

    groups: (type, name) → score; group_causes: of those that score 1. own: the residuals that the findings rest on,
    [signals, gpus, HISTORY].
    """

    index: int
    findings: Findings
    groups: Mapping[tuple[str, str], float]
    group_causes: Mapping[tuple[str, str], str]
    own: Floats


def score(telemetry: Telemetry, judge: Judge, first: int = 0) -> Iterator[Step]:
    """Step `first` and later, each judged by what had been reported until then: what `Fleet.tick` finds live.

    A recording does not tell which nodes answered their scrape: one of whose GPUs any reports is taken to.
    """
    reported = np.any(~np.isnan(telemetry.values), axis=0)
    silence, length = _silence(reported), telemetry.step
    nodes = np.unique([gpu.node for gpu in telemetry.gpus], return_inverse=True)[1]
    seen: _Seen | None = None
    for begin, end, known, renewed in _chunks(telemetry, first):
        seen = _seen(known, judge, begin, end, seen.past(renewed) if seen else None)
        made = seen.residuals
        for step in range(begin, end):
            now = slice(step - begin, step - begin + HISTORY)
            answering = np.bincount(nodes, reported[:, step])[nodes] > 0
            missed = answering & rules.missing(silence[:, step], known.gpus)
            recent = _until(known, step, max(0, step - rules.MEMORY + 1))
            errors = rules.errors(recent, len(recent.timestamps) - 1)
            newest = Residuals(made.own[..., now], made.shared[..., now])
            current = _until(known, step, max(0, step - HISTORY + 1))
            together, ratios = groups.weigh(judge, newest, current)
            down = groups.silent(silence[:, step], ~answering, known.gpus, length)
            found = findings.find(
                known.gpus, newest.own, ratios, judge.signals, judge.own, silence[:, step], missed, errors
            )
            yield Step(step, found, together.scores | down.scores, together.causes | down.causes, newest.own)


def common_mode(telemetry: Telemetry, step: Step) -> Floats:
    """The highest score of the groups that each GPU is in, [gpus]; NaN where none of them is scored."""
    highest = np.full(len(telemetry.gpus), np.nan, np.float32)
    for row, gpu in enumerate(telemetry.gpus):
        job = int(telemetry.job[row, step.index])
        names = {"node": gpu.node, "rack": gpu.rack, "job": telemetry.jobs[job] if job != IDLE else ""}
        found = [step.groups[group] for group in names.items() if group in step.groups]
        highest[row] = max(found, default=np.nan)
    return highest


def write(path: Path, telemetry: Telemetry, steps: Iterable[Step]) -> None:
    """Write a scores file, a row for each GPU and step that has a score. It appears under its name when complete."""
    temporary = path.with_name(f".{path.name}.part")
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with pq.ParquetWriter(temporary, _SCHEMA, compression="zstd") as writer:
            rows: list[dict[str, object]] = []
            for step in steps:
                rows += _rows(telemetry, step)
                if len(rows) >= 65_536:
                    writer.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA))
                    rows = []
            writer.write_table(pa.Table.from_pylist(rows, schema=_SCHEMA))
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)


def _rows(telemetry: Telemetry, step: Step) -> Iterator[dict[str, object]]:
    at = round(float(telemetry.timestamps[step.index]) * 1e6)
    shared = common_mode(telemetry, step)
    found = step.findings
    for row in np.flatnonzero(~np.isnan(found.score)).tolist():
        gpu, common = telemetry.gpus[row], float(shared[row])
        told: dict[str, object] = {"timestamp": at, "node": gpu.node, "gpu": gpu.gpu, "score": float(found.score[row])}
        told |= {"common_mode_score": None if np.isnan(common) else common, "cause": found.causes.get(row) or None}
        for place, (leading, share) in enumerate(zip(found.leading[row], found.shares[row], strict=True), 1):
            if leading >= 0:
                told |= {f"signal_{place}": found.names[leading], f"contribution_{place}": float(share)}
        yield told


def _chunks(telemetry: Telemetry, first: int) -> Iterator[tuple[int, int, Telemetry, NDArray[np.bool_]]]:
    """Stretches of steps from `first` on in which no GPU's own past begins anew but at the beginning.

    Of each the first step and the one after the last, the telemetry without what was before, and whose past begins.
    """
    steps = len(telemetry.timestamps)
    begins = anew.beginnings(telemetry)
    cuts = {*range(first, steps, _CHUNK), *(first + np.flatnonzero(begins[:, first:].any(axis=0))).tolist()}
    if begins.any():
        telemetry = replace(telemetry, values=telemetry.values.copy())
    for begin, end in pairwise([*sorted(cuts), steps]):
        since = 0 if begin == first else begin
        for row in np.flatnonzero(begins[:, since : begin + 1].any(axis=1)).tolist():
            telemetry.values[:, row, : since + np.flatnonzero(begins[row, since : begin + 1])[-1]] = np.nan
        if telemetry.software is not None:
            gpus = anew.labelled(telemetry.gpus, telemetry.software[:, since : begin + 1], telemetry.releases)
            if any(one.software != other.software for one, other in zip(gpus, telemetry.gpus, strict=True)):
                telemetry = replace(telemetry, gpus=gpus)
        yield begin, end, telemetry, begins[:, begin]


@dataclass(frozen=True, slots=True)
class _Seen:
    """The residuals of a chunk and of HISTORY - 1 steps before it; what changes are seen by, of REACH steps more."""

    residuals: Residuals
    plain: Floats

    def past(self, renewed: NDArray[np.bool_]) -> _Seen:
        """What the next chunk goes by, without those whose past begins anew. What was forgotten stays so."""
        own, shared, plain = (
            np.where(renewed[:, None], np.float32(np.nan), each[..., -steps:])
            for each, steps in (
                (self.residuals.own, HISTORY - 1),
                (self.residuals.shared, HISTORY - 1),
                (self.plain, REACH),
            )
        )
        return _Seen(Residuals(own, shared), plain)


def _seen(telemetry: Telemetry, judge: Judge, begin: int, end: int, past: _Seen | None) -> _Seen:
    """Without a past it is computed; NaN before the telemetry begins."""
    wanted = begin if past else begin - (HISTORY - 1) - REACH
    first = max(0, wanted)
    start = max(0, first - _PAST)
    found = judge.residuals(_until(telemetry, end - 1, start), first - start)
    own, shared, plain = (
        np.pad(each, ((0, 0), (0, 0), (first - wanted, 0)), constant_values=np.nan)
        for each in (found.own, found.shared, changes.compared(judge, found))
    )
    found, until = Residuals(own, shared), telemetry.part(slice(end))
    if past is None:
        return _Seen(changes.added(judge, found, plain, until, HISTORY - 1 + end - begin), plain)
    plain = np.concatenate([past.plain, plain], axis=2)
    newest = changes.added(judge, found, plain, until, end - begin)
    own, shared = (
        np.concatenate(both, axis=2)
        for both in ((past.residuals.own, newest.own), (past.residuals.shared, newest.shared))
    )
    return _Seen(Residuals(own, shared), plain)


def _silence(reported: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Steps since each GPU last reported anything, [gpus, steps]; -1 where it never did before."""
    steps = np.arange(reported.shape[1])
    last = np.maximum.accumulate(np.where(reported, steps, -1), axis=1)
    silent: NDArray[np.int64] = np.where(last >= 0, steps - last, -1)
    return silent


def _until(telemetry: Telemetry, step: int, start: int = 0) -> Telemetry:
    """The telemetry from `start` up to and with `step`, as a view."""
    return telemetry.part(slice(start, step + 1))
