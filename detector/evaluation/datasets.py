"""What methods are compared on: synthetic fleets, two public sets of real servers, or a folder of one's own.

Truth becomes events here and is handed to the measures alone; methods get the telemetry.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from detector import recording
from detector.evaluation import rules, truth
from detector.evaluation.case import Case, blaming, build
from detector.signals import Signals
from detector.telemetry import IDLE, Telemetry

_TRAINED = 0.4  # the share of a folder's recording that trains; the rest is scored
# Fixed in advance, in steps. Half of it is the bin in which an alarm that lasts is one alarm.
_BUFFERS = {"asd": 24, "smd": 100}
_FLEET_BUFFER = 120
SERVERS = {"asd": "asd", "smd": "smd19"}  # name → its folder


class DatasetError(ValueError):
    """The data cannot be had; the message says what is missing and where it was looked for."""


@dataclass(frozen=True, slots=True)
class Synthetic:
    """The shape of synthetic fleets: `history_hours` without a fault to train on, and `hours` with faults to score."""

    nodes: int = 12
    gpus_per_node: int = 8
    history_hours: float = 24.0  # what the service learns from
    hours: float = 10.0
    step: float = 15.0
    faults: int = 36
    models: Sequence[str] = ("H100", "A100")


def synthetic(shape: Synthetic, seed: int, folder: Path, signals: Signals) -> Case:
    """A fleet with faults and with all that is no fault. Raises DatasetError, RecordingError."""
    recorded = record(shape, seed, folder / f"seed-{seed}")
    return fleet(recorded, signals, f"seed {seed}", shape.history_hours / (shape.history_hours + shape.hours))


def record(shape: Synthetic, seed: int, out: Path) -> Path:
    """Have the exporters record a fleet; returns the folder."""
    shape_options = [
        *("--nodes", str(shape.nodes), "--gpus-per-node", str(shape.gpus_per_node), "--step", str(shape.step)),
        *("--quiet-hours", str(shape.history_hours), "--hours", str(shape.history_hours + shape.hours)),
        *("--faults", str(shape.faults), "--seed", str(seed), "--out", str(out)),
    ]
    _exporters("record", *shape_options, *(word for model in shape.models for word in ("--model", model)))
    return out


def fleet(folder: Path, signals: Signals, name: str, trained: float = _TRAINED) -> Case:
    """A folder with recording.parquet and truth.parquet: that share of it trains, the rest is scored."""
    everything = recording.read(folder / "recording.parquet", replace(signals, ignore=frozenset()))
    split = round(len(everything.timestamps) * trained)
    rows = truth.read(folder / "truth.parquet")
    alarms = rules.alarms(everything)[:, split:]
    # A pending remap outlives its fault until somebody resets the GPU. It is a fact that the rules tell, not a finding.
    judged = without(everything, signals.ignore | {rules.PENDING})
    return build(name, judged, split, rows, _FLEET_BUFFER, alarms, fleet=True)


def without(telemetry: Telemetry, ignored: frozenset[str]) -> Telemetry:
    """The telemetry less some signals."""
    kept = [row for row, signal in enumerate(telemetry.signals) if signal.name not in ignored]
    signals = tuple(telemetry.signals[row] for row in kept)
    return replace(telemetry, signals=signals, values=telemetry.values[kept])


def servers(name: str, source: Path | None, folder: Path, signals: Signals) -> Case:
    """ASD or SMD, converted by the exporters. source: the folder that holds the set's own folder."""
    if source is None:
        raise DatasetError(f"{name} is not part of this project: name the folder that holds it with --datasets")
    found = source / SERVERS[name]
    if not found.is_dir():
        raise DatasetError(f"{name} is not there: {found} is no folder")
    parts = {part: folder / f"{name}-{part}.parquet" for part in ("train", "test")}
    for part_name, path in parts.items():
        _exporters("convert", name, str(found), "--part", part_name, "--out", str(path))
    train, test = (recording.read(path, signals) for path in parts.values())
    joined = _joined(train, test)
    rows = truth.read(parts["test"].with_name(f"{name}-test.truth.parquet"))
    later = [row.later(joined.timestamps[len(train.timestamps)] - test.timestamps[0]) for row in rows]
    blamed = truth.interpretations(found / "interpretation_label", [signal.name for signal in joined.signals])
    split = len(train.timestamps)
    no_rules = np.zeros((len(joined.gpus), len(test.timestamps)), np.bool_)
    return blaming(build(name, joined, split, later, _BUFFERS[name], no_rules, fleet=False), blamed)


def _joined(train: Telemetry, test: Telemetry) -> Telemetry:
    """The test part after the training part. Servers with less to train on begin later, so that all end together."""
    values = np.full_like(train.values, np.nan)
    for entity in range(len(train.gpus)):
        reported = np.flatnonzero(~np.isnan(train.values[:, entity]).all(axis=0))
        values[:, entity, len(train.timestamps) - len(reported) :] = train.values[:, entity, reported]
    steps = len(train.timestamps) + len(test.timestamps)
    return Telemetry(
        train.signals,
        train.gpus,
        train.timestamps[0] + train.step * np.arange(steps),
        np.concatenate([values, test.values], axis=2),
        np.full((len(train.gpus), steps), IDLE, np.int32),
        (),
    )


def _exporters(*arguments: str) -> None:
    """The packages do not import one another: the exporters' part is a process of its own."""
    done = subprocess.run([sys.executable, "-m", "exporters", *arguments], capture_output=True, text=True)  # noqa: S603
    if done.returncode:
        reason = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise DatasetError(f"python -m exporters {arguments[0]} failed: {reason[-1]}")
