"""Telemetry made by hand: quiet fleets in which a test knows what is wrong."""

from collections.abc import Sequence

import numpy as np

from detector import findings, signals, verdicts
from detector.calibration import Thresholds
from detector.rules import Findings
from detector.signals import Signal
from detector.telemetry import IDLE, Floats, Gpu, Telemetry
from detector.verdicts import Verdict

NAMES = (
    "utilization_ratio",
    "temperature_celsius",
    "power_watts",
    "sm_clock_hertz",
    "ecc_corrected_total",
)
STEP = 5.0
START = 1_700_000_000.0


def gpus(nodes: int = 4, per_node: int = 8, model: str = "H100") -> tuple[Gpu, ...]:
    return tuple(
        Gpu(f"node-{node + 1:02d}", str(gpu), f"GPU-{node}-{gpu}", model, f"rack-{node // 2 + 1}")
        for node in range(nodes)
        for gpu in range(per_node)
    )


def telemetry(steps: int = 400, seed: int = 1, nodes: int = 4) -> Telemetry:
    """A fleet where heat follows power and power follows work; node 1 and 2 share a job, which comes and goes."""
    random = np.random.default_rng(seed)
    fleet = gpus(nodes)
    count = len(fleet)
    working = (np.arange(steps) // 60 % 2 == 1)[None, :] & (np.arange(count) < 16)[:, None]
    utilization = np.where(working, 0.95, 0.0) + np.where(working, 0.01, 0.0) * random.standard_normal((count, steps))
    power = 70 + 500 * utilization + 3 * random.standard_normal((count, steps))
    temperature = np.empty((count, steps))
    temperature[:, 0] = 30
    for step in range(1, steps):
        target = 26 + 0.06 * power[:, step]
        temperature[:, step] = temperature[:, step - 1] + (target - temperature[:, step - 1]) * 0.15
    values = np.stack(
        [
            utilization,
            np.rint(temperature + 0.3 * random.standard_normal((count, steps))),
            power,
            np.where(working, 1.98e9, 3.45e8),
            np.zeros((count, steps)),
        ]
    ).astype(np.float32)
    described = signals.load()
    return Telemetry(
        tuple(described.describe(name) for name in NAMES),
        fleet,
        START + STEP * np.arange(steps, dtype=np.float64),
        values,
        np.where(working, 0, IDLE).astype(np.int32),
        ("job-a",),
    )


def row(name: str) -> int:
    return NAMES.index(name)


def judged(residuals: Floats, signals: Sequence[Signal], thresholds: Thresholds) -> list[Verdict | None]:
    """The newest step's verdict on each GPU; all of them report, and no rule says anything."""
    count = residuals.shape[1]
    everyone, nobody = gpus(-(-count // 8))[:count], np.zeros(count, np.int64)
    quiet = Findings(np.zeros((count, 1), np.float32), np.zeros((count, 1), np.int64), ())
    ratios = verdicts.ratios(residuals, signals, thresholds)
    found = findings.find(everyone, residuals, ratios, signals, thresholds, nobody, nobody > 0, quiet)
    return [found.get(gpu) for gpu in everyone]
