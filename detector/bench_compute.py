"""python -m detector.bench_compute: what a tick computes, on a device and beside it by the processor."""

from __future__ import annotations

import json
import platform
import statistics
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path

import click
import numpy as np
import torch

from detector import bench_fleet, signals, stages, training
from detector.calibration import HISTORY
from detector.card.device import option
from detector.card.judge import CardJudge
from detector.fleet import LENGTH, Chair
from detector.residuals import Judge, ModelJudge, Residuals
from detector.telemetry import IDLE, Telemetry
from detector.threads import limit
from detector.training import Settings
from detector.window import Window

STAGES = ("upload", "features", "graph", "model", "download")
_TRAINED_ON = (64, 400)  # GPUs and steps: how well the model does is of no matter here, its size is the real one
_STEP = 5.0


@dataclass(slots=True)
class Timed:
    """A judge and how long it took over each step, in seconds: all of it, and by stage."""

    judge: Judge
    chair: Chair = field(default_factory=Chair)
    walls: list[float] = field(default_factory=list)
    parts: list[dict[str, float]] = field(default_factory=list)

    def judged(self, telemetry: Telemetry, new: int = 1) -> Residuals:
        stages.taken()
        begin = time.perf_counter()
        with stages.stage("model"):
            found = self.chair.judge(self.judge, telemetry, new)
        self.walls.append(time.perf_counter() - begin)
        self.parts.append(stages.taken())
        return found

    def medians(self, ticks: int) -> dict[str, float]:
        """Over the last so many steps."""
        by_stage = {name: [part.get(name, 0.0) for part in self.parts[-ticks:]] for name in STAGES}
        return {name: statistics.median(taken) for name, taken in (by_stage | {"all": self.walls[-ticks:]}).items()}


@dataclass(frozen=True, slots=True)
class Measured:
    """Medians over the steps in seconds, of the device and of the processor.

    uploaded, downloaded: bytes a step. most_memory: bytes of the card's, 0 without one. apart: by how much the
    residuals of the two differ at most, beside 1 and their size.
    """

    gpus: int
    device: dict[str, float]
    processor: dict[str, float]
    first: float
    uploaded: int
    downloaded: int
    most_memory: int
    apart: float


@click.command(context_settings={"show_default": True})
@click.option("--gpus", "sizes", multiple=True, default=(1000, 10000), type=click.IntRange(16, 200_000), help="Fleet.")
@click.option("--signals", "kinds", default=12, type=click.IntRange(4, bench_fleet.SIGNALS), help="Per GPU.")
@option
@click.option("--ticks", default=5, type=click.IntRange(1, 1000), help="Steps to take the median of.")
@click.option("--threads", default=1, type=click.IntRange(1), help="CPU threads.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Write the figures there too.")
def cli(sizes: tuple[int, ...], kinds: int, device: torch.device, ticks: int, threads: int, file: Path | None) -> None:
    """Judge fleets of these sizes out of a window in memory: nothing is asked for and nothing published."""
    limit(threads)
    known, (gpus, steps) = signals.load(), _TRAINED_ON
    learned = bench_fleet.telemetry(gpus, kinds, steps, _STEP)
    model = training.train([learned], (known.activity, known.effort), Settings(iterations=10), lambda *_: None)[0]
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else f"torch on {platform.machine()}"
    measured = []
    for gpus in sizes:
        measured.append(measure(model, bench_fleet.telemetry(gpus, kinds, LENGTH + ticks + 1, _STEP), device, ticks))
        click.echo(table(measured[-1], name))
    if file:
        conditions = {"device": name, "threads": threads, "signals": kinds, "ticks": ticks}
        file.write_text(json.dumps(conditions | {"runs": [asdict(one) for one in measured]}, indent=2) + "\n")


def measure(model: ModelJudge, data: Telemetry, device: torch.device, ticks: int) -> Measured:
    """Both judge the same steps in turns. The first look fills the device's window, one more warms up."""
    judge, window = CardJudge(model, device, paced=True), Window(LENGTH, _STEP)
    card, processor = Timed(judge), Timed(model)
    window.include(data.signals, data.gpus)
    for step in range(LENGTH):
        _report(window, data, step)
    card.judged(window.telemetry(), HISTORY)
    apart, returned = 0.0, 0
    if device.type == "cuda":
        torch.cuda.reset_peak_memory_stats(device)
    for step in range(LENGTH, LENGTH + ticks + 1):
        _report(window, data, step)
        found, expected = (each.judged(window.telemetry()) for each in (card, processor))
        newest = [
            (one[..., -1], other[..., -1])
            for one, other in ((found.own, expected.own), (found.shared, expected.shared))
        ]
        returned = sum(one.nbytes for one, _ in newest)
        for one, other in newest:
            if not np.array_equal(np.isnan(one), np.isnan(other)):
                raise AssertionError("the device and the processor do not agree on who can be judged")
            apart = max(apart, float(np.nanmax(np.abs(one - other) / (1 + np.abs(other)))))
    most = torch.cuda.max_memory_allocated(device) if device.type == "cuda" else 0
    by_device, by_processor = card.medians(ticks), processor.medians(ticks)
    return Measured(len(data.gpus), by_device, by_processor, card.walls[0], judge.uploaded, returned, most, apart)


def _report(window: Window, data: Telemetry, step: int) -> None:
    """Let one step come in."""
    at = float(data.timestamps[step])
    window.advance(at)
    rows, times = np.arange(len(data.gpus)), np.full(len(data.gpus), at)
    for signal, plane in zip(data.signals, data.values, strict=True):
        window.write(signal.name, rows, times, plane[:, step].astype(np.float64))
    busy = data.job[:, step] != IDLE
    window.write_job(rows[busy], window.number([(name, "") for name in data.jobs])[data.job[busy, step]], times[busy])


def table(measured: Measured, name: str) -> str:
    """Milliseconds by stage, and how many times as fast the device is."""
    lines = [f"{measured.gpus} GPUs: {name}", f"{'ms':10}{'device':>10}{'processor':>12}{'ratio':>8}"]
    for stage in (*STAGES, "all"):
        here, there = measured.device[stage], measured.processor[stage]
        ratio = f"{there / here:8.2f}" if here > 0 and there > 0 else " " * 8
        lines.append(f"{stage:10}{1e3 * here:10.1f}{1e3 * there:12.1f}{ratio}")
    sizes = measured.uploaded, measured.downloaded, measured.most_memory
    up, down, most = (f"{size / 1e6:.2f} MB" for size in sizes)
    lines.append(f"up {up} and down {down} a step, the first look {1e3 * measured.first:.0f} ms")
    lines.append(f"at most {most} of the card's memory; residuals differ by at most {measured.apart:.1e}")
    return "\n".join(lines)


if __name__ == "__main__":
    cli(prog_name="python -m detector.bench_compute")
