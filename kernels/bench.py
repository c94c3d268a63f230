"""Checks every op against its reference, then times it beside what else does the same.

A wrong result prints no timings.
"""

import json
import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import TypeVar

import click
import numpy as np
import scipy.stats
import torch

from kernels import Deviation, peer_deviation
from kernels.group_deviation import reference
from kernels.group_deviation.arrays import Floats, Integers

Placed = TypeVar("Placed", Floats, Integers)

SHAPES = ((8, 64), (16, 512), (32, 10_000))  # signals, GPUs
TOLERANCE = 4 * 2.0**-23  # float32: a few units in the last place
COPY_BYTES = 2**28  # far beyond any cache
FEWEST, MOST, SECONDS = 5, 200, 1.0  # how often to run, and for how long at most


@dataclass(frozen=True, slots=True)
class Timing:
    """`ratio_to_best` is how many times faster than the fastest alternative the op is."""

    op: str
    device: str
    size: int
    seconds_median: float
    floor_share: float
    best_alternative: str
    ratio_to_best: float


def fleet(signals: int, gpus: int) -> tuple[Floats, Integers, Integers]:
    """One step of a fleet in groups of 8 to 64 GPUs, one reading in a hundred absent."""
    rng = np.random.default_rng(gpus)
    values = rng.normal(60, 5, (signals, gpus)).astype(np.float32)
    values[rng.random(values.shape) < 0.01] = np.nan
    ends = np.cumsum(rng.integers(8, 65, gpus))
    return values, rng.permutation(gpus).astype(np.int32), np.array([0, *ends[ends < gpus - 8], gpus])


def numpy_by_group(values: Floats, members: Integers, offsets: Integers) -> None:
    for start, end in pairwise(offsets):
        peers = values[:, members[start:end]]
        distance = peers - np.nanmedian(peers, axis=1, keepdims=True)
        _ = distance / (1.4826 * np.nanmedian(abs(distance), axis=1, keepdims=True))


def scipy_by_group(values: Floats, members: Integers, offsets: Integers) -> None:
    for start, end in pairwise(offsets):
        peers = values[:, members[start:end]]
        spread = scipy.stats.median_abs_deviation(peers, axis=1, nan_policy="omit", keepdims=True)
        _ = (peers - np.nanmedian(peers, axis=1, keepdims=True)) / (1.4826 * spread)


def torch_padded(values: torch.Tensor, index: torch.Tensor, padding: torch.Tensor) -> None:
    """Of an even count torch takes the lower middle value: a little less work than asked for."""
    peers = values[:, index].masked_fill(padding, torch.nan)
    distance = peers - peers.nanmedian(dim=-1, keepdim=True).values
    _ = distance / (1.4826 * distance.abs().nanmedian(dim=-1, keepdim=True).values)


def padded(members: Integers, offsets: Integers) -> tuple[torch.Tensor, torch.Tensor]:
    """The groups as [groups, largest] indices, and where they are only padding."""
    sizes = np.diff(offsets)
    slots = offsets[:-1, None] + np.arange(sizes.max())
    padding = slots >= offsets[1:, None]
    return torch.from_numpy(members[np.where(padding, 0, slots)].astype(np.int64)), torch.from_numpy(padding)


def seconds(run: Callable[[], object], wait: Callable[[], object]) -> list[float]:
    """Wall time of several runs after a first that does not count."""
    run()
    wait()
    taken: list[float] = []
    while len(taken) < FEWEST or (len(taken) < MOST and sum(taken) < SECONDS):
        start = time.perf_counter()
        run()
        wait()
        taken.append(time.perf_counter() - start)
    return taken


def verify(result: Deviation, values: Floats, members: Integers, offsets: Integers) -> None:
    expected = reference.peer_deviation(values, members, offsets)
    for name in ("median", "mad", "deviation"):
        found = torch.as_tensor(getattr(result, name)).cpu().numpy()
        if not np.allclose(found, getattr(expected, name), rtol=TOLERANCE, atol=0, equal_nan=True):
            raise click.ClickException(f"peer_deviation: {name} differs from the reference at {values.shape}")


class Cpu:
    """NumPy arrays and all cores."""

    def __init__(self) -> None:
        info = Path("/proc/cpuinfo")
        lines = info.read_text().splitlines() if info.exists() else []
        models = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
        self.name = f"{models[0] if models else platform.machine()}, {os.cpu_count()} cores"

    def place(self, array: Placed) -> Placed:
        return array

    def wait(self) -> None:
        """Nothing runs on after a call."""

    def bandwidth(self) -> float:
        """Bytes read and written per second when every core copies."""
        cores = os.cpu_count() or 1
        source = np.ones((cores, COPY_BYTES // 4 // cores), np.float32)
        target = np.zeros_like(source)
        with ThreadPoolExecutor(cores) as pool:
            taken = seconds(lambda: list(pool.map(np.copyto, target, source)), self.wait)
        return 2 * source.nbytes / min(taken)

    def alternatives(
        self, values: Floats, members: Integers, offsets: Integers
    ) -> Iterator[tuple[str, Callable[[], None]]]:
        tensor, (index, padding) = torch.from_numpy(values), padded(members, offsets)
        yield "numpy.nanmedian by group", lambda: numpy_by_group(values, members, offsets)
        yield (
            "scipy.stats.median_abs_deviation by group",
            lambda: scipy_by_group(values, members, offsets),
        )
        yield "torch.nanmedian on padded groups", lambda: torch_padded(tensor, index, padding)


class Cuda(Cpu):
    """CuPy arrays and the first card."""

    def __init__(self) -> None:
        try:
            import cupy
        except ImportError as error:
            raise click.ClickException("--device cuda needs CuPy: install the gpu extra") from error
        self.cupy = cupy
        self.name = cupy.cuda.runtime.getDeviceProperties(0)["name"].decode()

    def place(self, array: Placed) -> Placed:
        return self.cupy.asarray(array)  # type: ignore[no-any-return]

    def wait(self) -> None:
        self.cupy.cuda.Device().synchronize()

    def bandwidth(self) -> float:
        source = self.cupy.ones(COPY_BYTES // 4, np.float32)
        target = self.cupy.zeros_like(source)
        return float(2 * source.nbytes / min(seconds(lambda: self.cupy.copyto(target, source), self.wait)))

    def alternatives(
        self, values: Floats, members: Integers, offsets: Integers
    ) -> Iterator[tuple[str, Callable[[], None]]]:
        index, padding = (self.cupy.asarray(array.numpy()) for array in padded(members, offsets))

        def cupy_padded() -> None:
            peers = self.cupy.where(padding, np.nan, values[:, index])
            distance = peers - self.cupy.nanmedian(peers, axis=-1, keepdims=True)
            _ = distance / (1.4826 * self.cupy.nanmedian(abs(distance), axis=-1, keepdims=True))

        yield "cupy.nanmedian on padded groups", cupy_padded
        if torch.cuda.is_available():
            tensors = [torch.utils.dlpack.from_dlpack(array) for array in (values, index, padding)]
            yield "torch.nanmedian on padded groups", lambda: torch_padded(*tensors)


def measure(device: Cpu, bandwidth: float, signals: int, gpus: int) -> Timing:
    host = fleet(signals, gpus)
    values, members, offsets = device.place(host[0]), device.place(host[1]), device.place(host[2])
    result = peer_deviation(values, members, offsets)
    verify(result, *host)
    taken = seconds(lambda: peer_deviation(values, members, offsets, out=result), device.wait)
    moved = sum(array.nbytes for array in (*host, result.median, result.mad, result.deviation))
    others = {
        name: statistics.median(seconds(run, device.wait))
        for name, run in device.alternatives(values, host[1], host[2])
    }
    best = min(others, key=others.__getitem__)
    median, floor = statistics.median(taken), moved / bandwidth
    click.echo(
        f"peer_deviation  {signals * gpus:>7} series  median {median * 1e3:.3f} ms  min {min(taken) * 1e3:.3f} ms"
        f"  floor {floor * 1e3:.4f} ms ({floor / median:.1%} reached)"
    )
    for name, other in others.items():
        click.echo(f"{'':16}{other / median:8.1f}× as long: {name}, {other * 1e3:.3f} ms")
    return Timing("peer_deviation", device.name, signals * gpus, median, floor / median, best, others[best] / median)


@click.command(context_settings={"show_default": True})
@click.option("--device", type=click.Choice(["cpu", "cuda"]), default="cpu", help="Where the arrays lie.")
@click.option("--json", "file", type=click.Path(dir_okay=False, path_type=Path), help="Also write the table here.")
def main(device: str, file: Path | None) -> None:
    """Verify every op against its reference, then time it at three fleet sizes."""
    place = Cuda() if device == "cuda" else Cpu()
    bandwidth = place.bandwidth()
    click.echo(f"{place.name}: copies {bandwidth / 1e9:.1f} GB/s")
    timings = [measure(place, bandwidth, signals, gpus) for signals, gpus in SHAPES]
    if file is not None:
        file.write_text(json.dumps([asdict(timing) for timing in timings], indent=2) + "\n")


if __name__ == "__main__":
    sys.exit(main())
