"""Checks every op against its reference, then times it beside what else does the same.

A wrong result prints no timings. The floor is the larger of the bytes that must move over the copy
bandwidth and the operations that must happen over the matrix product's rate, both measured in the same run.
"""

import json
import statistics
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from importlib import import_module
from pathlib import Path

import click

from kernels.case import Case
from kernels.device import Cpu, Cuda

OPS = sorted(file.parent.name for file in Path(__file__).parent.glob("*/bench.py"))
FEWEST, MOST, SECONDS = 5, 200, 1.0  # how often to run each, and for how long at most


@dataclass(frozen=True, slots=True)
class Timing:
    """One line of the table; `ratio_to_best` is how many times faster than the fastest alternative the op is."""

    op: str
    device: str
    size: int
    seconds_median: float
    floor_share: float
    best_alternative: str
    ratio_to_best: float


@dataclass(frozen=True, slots=True)
class Floor:
    """What the device does per second: bytes copied, float32 operations in a matrix product."""

    bandwidth: float
    rate: float

    def seconds(self, case: Case) -> float:
        return max(case.bytes / self.bandwidth, case.operations / self.rate)


def cases(ops: Sequence[str], device: Cpu) -> Iterator[Case]:
    for op in ops:
        yield from import_module(f"kernels.{op}.bench").cases(device)


def verify(case: Case) -> None:
    try:
        case.check()
    except AssertionError as error:
        raise click.ClickException(f"{case.op} differs from the reference at {case.size}: {error}") from error
    click.echo(f"{case.op} {case.size}: equals the reference", err=True)


def medians(runs: Mapping[str, Callable[[], object]], wait: Callable[[], None]) -> dict[str, float]:
    """Median seconds of each, run in turns so that whatever else the machine does meets all of them.

    The first turn warms up and counts only for what takes so long that it gets no second one.
    """
    taken: dict[str, list[float]] = {name: [] for name in runs}
    waiting = list(runs)
    for turn in range(MOST + 1):
        for name in list(waiting):
            start = time.perf_counter()
            runs[name]()
            wait()
            taken[name].append(time.perf_counter() - start)
            if sum(taken[name]) > SECONDS and (turn >= FEWEST or taken[name][0] > SECONDS):
                waiting.remove(name)
    return {name: statistics.median(spans[1:] or spans) for name, spans in taken.items()}


def measure(case: Case, device: Cpu, floor: Floor) -> Timing:
    case.run()  # what it still has to compile is no part of its speed
    device.wait()
    found = medians({"": case.run, **case.alternatives}, device.wait)
    own = found.pop("")
    best = min(found, key=found.__getitem__)
    share = floor.seconds(case) / own
    click.echo(f"{case.op:16} {case.size:>7}  median {own * 1e3:.3f} ms  {share:.1%} of the floor's speed")
    for name, other in sorted(found.items(), key=lambda each: each[1]):
        click.echo(f"{'':16} {other / own:7.1f}× as long: {name}, {other * 1e3:.3f} ms")
    return Timing(case.op, device.name, case.size, own, share, best, found[best] / own)


@click.command(context_settings={"show_default": True})
@click.option("--device", "kind", type=click.Choice(["cpu", "cuda"]), default="cpu", help="Where the arrays lie.")
@click.option(
    "--op", "ops", type=click.Choice(OPS), multiple=True, help="Only this op; may be repeated.  [default: all]"
)
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Also write the table here.")
def main(kind: str, ops: tuple[str, ...], file: Path | None) -> None:
    """Verify every op against its reference, then time it at several sizes beside its alternatives."""
    device = Cuda() if kind == "cuda" else Cpu()
    chosen = ops or tuple(OPS)
    for case in cases(chosen, device):
        verify(case)
    floor = Floor(device.bandwidth(), device.rate())
    click.echo(f"{device.name}: copies {floor.bandwidth / 1e9:.1f} GB/s, multiplies {floor.rate / 1e9:.0f} GFLOP/s")
    timings = [measure(case, device, floor) for case in cases(chosen, device)]
    if file is not None:
        file.write_text(json.dumps([asdict(timing) for timing in timings], indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
