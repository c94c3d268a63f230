"""`python -m exporters.marginals RECORDING ACME`: is the fleet's telemetry spread as that of two real clusters?

Quantiles beside those of Seren and Kalos, clusters of A100s at Shanghai AI Laboratory (Hu et al., NSDI 2024; AcmeTrace,
CC-BY-4.0). Their files are curves of 1,000 points: value axis, percent axis. The trace's tensor-core curves are left
out, because its own plots label them in two ways.
"""

from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from exporters import recording
from exporters.recording import RecordingError
from exporters.synthetic.arrays import Floats

PERCENTS = np.array([5.0, 10, 25, 40, 50, 60, 75, 90, 95, 99])


@dataclass(frozen=True, slots=True)
class Curve:
    """Where a signal's curve is: in both clusters' files, as arrays `place` and `place + 1`."""

    file: str
    place: int
    unit: str
    factor: float = 1.0  # recorded value × factor = the curve's unit


CURVES: dict[str, Curve] = {
    "power_watts": Curve("gpu_power", 0, "W"),
    "temperature_celsius": Curve("gpu_temp", 0, "°C"),
    "memory_temperature_celsius": Curve("gpu_temp", 2, "°C"),
    "utilization_ratio": Curve("util_gpu", 0, "%", 100.0),
    "memory_used_ratio": Curve("util_gpu", 2, "%", 100.0),
}
CLUSTERS = ("seren", "kalos")


def quantiles(read: recording.Recording, signal: str) -> Floats:
    """The recorded signal at `PERCENTS`, in the curve's unit."""
    values = read.values[read.signals.index(signal)]
    found: Floats = np.nanpercentile(values, PERCENTS) * CURVES[signal].factor
    return found


def real(folder: Path, cluster: str, signal: str) -> Floats:
    """The cluster's signal at `PERCENTS`. Raises `OSError` where the data set is not."""
    curve = CURVES[signal]
    with np.load(folder / f"{curve.file}_{cluster}.npz") as arrays:
        values, percents = arrays[f"__{curve.place}"], arrays[f"__{curve.place + 1}"]
    return np.asarray(np.interp(PERCENTS, percents, values))


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("acme", type=click.Path(exists=True, file_okay=False, path_type=Path))
def main(file: Path, acme: Path) -> None:
    """Prints quantiles of the recording FILE (of A100s) beside those in the folder ACME."""
    try:
        read = recording.read(file)
        click.echo(f"{'':36}" + "".join(f"{f'p{percent:g}':>7}" for percent in PERCENTS))
        for signal, curve in CURVES.items():
            rows = {file.stem: quantiles(read, signal)} | {each: real(acme, each, signal) for each in CLUSTERS}
            for name, row in rows.items():
                what = f"{signal}, {curve.unit}" if name == file.stem else ""
                click.echo(f"{what:25}{name:>11}" + "".join(f"{value:7.0f}" for value in row))
    except (RecordingError, OSError) as error:
        raise click.ClickException(str(error)) from None


if __name__ == "__main__":
    main()
