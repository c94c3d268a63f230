"""Faults in what is learned from: the same fleet and the same test, other training parts."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from detector import recording
from detector.evaluation import datasets
from detector.evaluation.case import Case
from detector.evaluation.datasets import Synthetic
from detector.signals import Signals
from detector.telemetry import IDLE, Telemetry

_SHARES = (0, 5, 10)  # percent of the GPU-steps
_GPU_HOURS_A_FAULT = 0.85  # on average, with those that befall a node or a rack


def cases(shape: Synthetic, seed: int, folder: Path, case: Case, signals: Signals) -> Iterator[tuple[str, Case]]:
    """The case with training parts of which about 0, 5 and 10 % are faulty."""
    gpu_hours = case.split * len(case.telemetry.gpus) * case.telemetry.step / 3600
    for share in _SHARES:
        faults = round(share / 100 * gpu_hours / _GPU_HOURS_A_FAULT)
        dirty = replace(shape, history_hours=0.0, hours=shape.history_hours, faults=faults)
        recorded = datasets.record(dirty, seed, folder / f"contaminated-{share}-{seed}")
        learned = recording.read(recorded / "recording.parquet", signals)
        yield f"stethos_contamination_{share}", replace(case, telemetry=before(learned, case.telemetry, case.split))


def before(learned: Telemetry, telemetry: Telemetry, split: int) -> Telemetry:
    """The telemetry with another beginning. The jobs of the two have nothing to do with each other."""
    names = [signal.name for signal in learned.signals]
    rows = [names.index(signal.name) for signal in telemetry.signals]
    columns = [learned.gpus.index(gpu) for gpu in telemetry.gpus]
    values = np.concatenate([learned.values[rows][:, columns, :split], telemetry.values[..., split:]], axis=2)
    earlier = learned.job[columns, :split]
    earlier = np.where(earlier == IDLE, IDLE, earlier + len(telemetry.jobs))
    job = np.concatenate([earlier, telemetry.job[:, split:]], axis=1).astype(np.int32)
    return replace(telemetry, values=values, job=job, jobs=(*telemetry.jobs, *learned.jobs))
