"""`python -m exporters.picture RECORDING TRUTH OUT.svg`: a day of a fleet on one page.

Jobs and heat of every GPU, the faults outlined; below, three faults beside the GPU's own job, and three things that
look like faults and are none. Plain SVG.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from xml.sax.saxutils import escape

import click
import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray

from exporters import grid
from exporters.grid import Fault, Grid, Mask, Matrix
from exporters.recording import RecordingError

_WIDTH, _LEFT, _RIGHT, _ROW = 1200.0, 86.0, 14.0, 9.0
_PLOT = _WIDTH - _LEFT - _RIGHT
_CELLS = 240  # columns of a map: six minutes each in a day
_FAULT, _PEER, _INK, _SILENCE = "#d1242f", "#57606a", "#1f2328", "black"
_JOBS = ("#9ecae1", "#c7e9c0", "#fdd0a2", "#dadaeb", "#bdbdbd", "#c6dbef", "#a1d99b", "#fdae6b", "#bcbddc", "#d9d9d9")
_HEAT = ((25, (49, 54, 149)), (40, (116, 173, 209)), (52, (255, 255, 191)), (64, (253, 174, 97)), (82, (165, 0, 38)))
_SMALL_WIDTH, _SMALL_HEIGHT, _SMALL_EVERY = 250.0, 150.0, 293.0

_RACK = "rack_kelvin"  # made here

# What shows a fault best: signal, factor, unit.
_SHOWN: dict[str, tuple[str, float, str]] = {
    "thermal_paste": ("temperature_celsius", 1.0, "GPU temperature, °C"),
    "fan_failure": ("memory_temperature_celsius", 1.0, "memory temperature, °C"),
    "clock_stuck": ("sm_clock_hertz", 1e-6, "SM clock, MHz"),
    "power_cap": ("power_watts", 1.0, "power, W"),
    "efficiency_loss": ("power_watts", 1.0, "power, W"),
    "memory_leak": ("memory_used_ratio", 100.0, "memory used, %"),
    "straggler": ("power_watts", 1.0, "power, W"),
    "hang": ("power_watts", 1.0, "power, W"),
    "ecc_creep": ("ecc_corrected_total", 1.0, "corrected errors"),
}


@dataclass(frozen=True, slots=True)
class Scene:
    """A small chart: some GPUs for a while, one of them perhaps broken."""

    title: str
    signal: str
    factor: float
    unit: str
    gpus: tuple[int, ...]
    start: float
    end: float
    broken: tuple[int, ...] = ()
    fault: tuple[float, float] | None = None


def draw(on: Grid, faults: list[Fault]) -> str:
    """The whole page. Raises `RecordingError` when the recording lacks what is to be shown."""
    height = len(on.sources) * _ROW
    on = replace(on, signals=on.signals | {_RACK: _beyond_power(on)})
    scenes = ([_rack_scene(on, faults), *_fault_scenes(on, faults)], _harmless_scenes(on, faults))
    rows = [
        _text(14, 24, "A day of a synthetic fleet", 17, weight="bold"),
        _text(14, 52, "Jobs: one colour per job, white is idle, dark is silence", 13),
        *_jobs(on, 60),
        *_axis(on, 60, height),
        _text(14, 92 + height, "Heat: GPU temperature; outlined is what truth knows to be broken", 13),
        *_scale(74 + height + 8),
        *_heat(on, 100 + height),
        *_axis(on, 100 + height, height),
        *_outlines(on, faults, 100 + height),
    ]
    top = 2 * height + 156
    heads = (
        "Broken (red): a whole rack beside the other one; one GPU beside the ranks of its own job",
        "Not broken: all ranks do it together",
    )
    for row, (head, shown) in enumerate(zip(heads, scenes, strict=True)):
        y = top + row * (_SMALL_HEIGHT + 88)
        rows.append(_text(14, y, head, 14, weight="bold"))
        for place, scene in enumerate(shown):
            rows += _small(on, scene, 36 + place * _SMALL_EVERY, y + 36)
    bottom = top + 2 * (_SMALL_HEIGHT + 88) - 10
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH:g}" height="{bottom:g}" '
        f'viewBox="0 0 {_WIDTH:g} {bottom:g}" font-family="sans-serif">'
        f'<rect width="100%" height="100%" fill="white"/>{"".join(rows)}</svg>\n'
    )


# What to show


def _rack_scene(on: Grid, faults: list[Fault]) -> Scene:
    fault = next((each for each in faults if each.kind == "hot_inlet"), None)
    if fault is None:
        raise RecordingError("no rack's air grew hot; record more, with the fault hot_inlet")
    racks = {source.rack: gpu for gpu, source in enumerate(on.sources)}  # one GPU speaks for its rack
    sick = racks[on.sources[fault.gpus[0]].rack]
    unit, span = (_RACK, 1.0, "rack's median, K above what power explains"), (fault.start, fault.end)
    title, shown = f"{_plain(fault)}, {on.sources[sick].rack}", tuple(racks.values())
    return Scene(title, *unit, shown, fault.start - 5400, fault.end + 5400, (sick,), span)


def _beyond_power(on: Grid) -> Matrix:
    # Temperature less a straight line through power, the median over each rack and ten minutes: what its air adds.
    power, temperature = on.signals["power_watts"], on.signals["temperature_celsius"]
    there = ~(np.isnan(power) | np.isnan(temperature))
    slope, base = np.polyfit(power[there], temperature[there], 1)
    left = temperature - slope * power - base
    result = np.empty_like(left)
    wide = max(round(300 / on.step_seconds), 1)
    racks = np.array([source.rack for source in on.sources])
    for rack in np.unique(racks):
        middle = np.nanmedian(left[:, racks == rack], axis=1)
        result[:, racks == rack] = np.nanmedian(sliding_window_view(np.pad(middle, wide, "edge"), 2 * wide + 1), 1)[
            :, None
        ]
    return np.asarray(result)


def _fault_scenes(on: Grid, faults: list[Fault]) -> list[Scene]:
    scenes: dict[str, Scene] = {}
    for fault in faults:
        signal, factor, unit = _SHOWN.get(fault.kind, ("", 1.0, ""))
        gpu = fault.gpus[0]
        job = on.job[_steps(on, fault.start - 300, fault.start + 600), gpu]
        ranks = tuple(np.flatnonzero(on.job[_steps(on, fault.start, fault.end)][0] == job[0]).tolist())
        if not signal or fault.kind in scenes or len(ranks) < 2 or job[0] < 0 or (job != job[0]).any():
            continue
        span = fault.start, fault.end
        title = f"{_plain(fault)}, {on.sources[gpu].node} GPU {on.sources[gpu].gpu}"
        scenes[fault.kind] = Scene(
            title, signal, factor, unit, ranks, fault.start - 1200, fault.end + 900, (gpu,), span
        )
    if len(scenes) < 3:
        raise RecordingError(f"only {len(scenes)} faults of kinds to be shown befell a rank of a job; record more")
    return [scenes[kind] for kind in _SHOWN if kind in scenes][:3]


def _harmless_scenes(on: Grid, faults: list[Fault]) -> list[Scene]:
    calm = _calm(on, faults)
    found = (_start_of_a_job(on, calm), _life_of_a_job(on, calm), _upkeep(on, calm))
    return [scene for scene in found if scene is not None]


def _calm(on: Grid, faults: list[Fault]) -> Mask:
    calm = np.ones(on.job.shape, np.bool_)
    for fault in faults:
        calm[_steps(on, fault.start - 1800, fault.end + 1800), fault.gpus] = False
    return calm


def _start_of_a_job(on: Grid, calm: Mask) -> Scene | None:
    for first, last, ranks in _runs(on, calm, least_ranks=6):
        start, power = on.seconds[first], on.signals["power_watts"][first:last, ranks]
        before = on.job[_steps(on, start - 600, start), ranks[0]]
        if (
            last - first > 1500 / on.step_seconds
            and len(before)
            and (before < 0).all()
            and np.nanmean(power) > _half_limit(on)
        ):
            unit = ("temperature_celsius", 1.0, "GPU temperature, °C")
            return Scene(f"a job starts on {len(ranks)} GPUs", *unit, ranks, start - 600, start + 1500)
    return None


def _life_of_a_job(on: Grid, calm: Mask) -> Scene | None:
    for first, last, ranks in _runs(on, calm, least_ranks=4):
        power = np.nan_to_num(on.signals["power_watts"][first:last, ranks]).mean(axis=1)
        dips = int(np.count_nonzero(np.diff((power < 0.5 * np.median(power)).astype(int)) > 0))
        if on.seconds[last] - on.seconds[first] > 4500 and np.median(power) > _half_limit(on) and dips > 2:
            start = on.seconds[first] + 300
            unit = ("power_watts", 1.0, "power, W")
            return Scene("a job saves its checkpoints", *unit, ranks, start, start + 3600)
    return None


def _upkeep(on: Grid, calm: Mask) -> Scene | None:
    silent = np.isnan(on.signals["power_watts"]) & calm
    found = []
    for node in dict.fromkeys(each.node for each in on.sources):
        gpus = tuple(place for place, each in enumerate(on.sources) if each.node == node)
        for first, last in _true_runs(np.asarray(silent[:, gpus].all(axis=1))):
            busy = on.job[max(first - 10, 0) : first, gpus] >= 0
            if busy.any():
                found.append((last - first, node, gpus, on.seconds[first]))
    if not found:
        return None
    _, node, gpus, start = max(found)
    unit = ("power_watts", 1.0, "power, W")
    return Scene(f"{node} is not heard for a moment", *unit, gpus, start - 900, start + 900)


def _runs(on: Grid, calm: Mask, least_ranks: int) -> Iterator[tuple[int, int, tuple[int, ...]]]:
    for job in range(on.job.max() + 1):
        mine = on.job == job
        steps = np.flatnonzero(mine.any(axis=1))
        if len(steps) < 2:
            continue
        ranks = tuple(np.flatnonzero(mine.any(axis=0)).tolist())
        if len(ranks) >= least_ranks and calm[steps[0] : steps[-1], ranks].all():
            yield int(steps[0]), int(steps[-1]), ranks


def _half_limit(on: Grid) -> float:
    return 0.5 * float(np.nanmedian(on.signals["power_limit_watts"]))


def _true_runs(flags: NDArray[np.bool_]) -> Iterator[tuple[int, int]]:
    edges = np.flatnonzero(np.diff(np.concatenate([[False], flags, [False]]).astype(int)))
    yield from ((int(first), int(min(last, len(flags) - 1))) for first, last in edges.reshape(-1, 2))


def _steps(on: Grid, start: float, end: float) -> slice:
    return slice(*np.searchsorted(on.seconds, [start, end]).tolist())


def _plain(fault: Fault) -> str:
    return f"{fault.kind.replace('_', ' ')} {fault.severity:.2f}"


# Maps over the whole day


def _jobs(on: Grid, y: float) -> Iterator[str]:
    sampled, silent = _cells(on.job.astype(np.float32)), np.isnan(_cells(on.signals["power_watts"]))
    codes = np.where(silent, -2, sampled).astype(int)
    yield from _map(codes, y, lambda code: _SILENCE if code == -2 else "white" if code == -1 else _JOBS[code % 10])
    yield from _names(on, y)


def _heat(on: Grid, y: float) -> Iterator[str]:
    values = _cells(on.signals["temperature_celsius"])
    levels = np.where(np.isnan(values), -1, np.round(values / 3) * 3).astype(int)
    yield from _map(levels, y, lambda level: _SILENCE if level < 0 else _colour(level))
    yield from _names(on, y)


def _map(codes: NDArray[np.int64], y: float, colour: Callable[[int], str]) -> Iterator[str]:
    # One path for all cells of a colour keeps the file small.
    paths: dict[str, list[str]] = {}
    wide = _PLOT / _CELLS
    for gpu, row in enumerate(codes.T):
        for first, last, code in _equal(row):
            cell = f"M{_LEFT + first * wide:.0f} {y + gpu * _ROW:g}h{(last - first) * wide + 0.5:.1f}v{_ROW - 1:g}"
            paths.setdefault(colour(code), []).append(f"{cell}h-{(last - first) * wide + 0.5:.1f}z")
    for fill, cells in paths.items():
        if fill != "white":
            yield f'<path fill="{fill}" d="{"".join(cells)}"/>'


def _cells(values: Matrix) -> Matrix:
    return np.asarray(values[np.linspace(0, len(values) - 1, _CELLS).astype(int)])


def _equal(row: NDArray[np.int64]) -> Iterator[tuple[int, int, int]]:
    edges = [0, *(np.flatnonzero(np.diff(row)) + 1).tolist(), len(row)]
    yield from ((first, last, int(row[first])) for first, last in pairwise(edges))


def _names(on: Grid, y: float) -> Iterator[str]:
    for place, source in enumerate(on.sources):
        if source.gpu == "0":
            yield _text(14, y + place * _ROW + 14, source.node, 12)
            yield _text(14, y + place * _ROW + 28, source.rack, 11, _PEER)
            line = f'x1="14" x2="{_WIDTH - _RIGHT:g}" y1="{y + place * _ROW - 0.5:g}" y2="{y + place * _ROW - 0.5:g}"'
            yield f'<line {line} stroke="{_PEER}" stroke-width=".6"/>'


def _axis(on: Grid, y: float, height: float) -> Iterator[str]:
    hours = on.seconds[-1] / 3600
    for hour in range(0, int(hours + 0.01) + 1, 3):
        x = _LEFT + _PLOT * hour / hours
        yield _text(min(x, _WIDTH - 34), y + height + 14, f"{hour:02d}:00", 11, _PEER, "middle")


def _colour(celsius: float) -> str:
    temperatures = [each for each, _ in _HEAT]
    channels = (np.interp(celsius, temperatures, [colour[place] for _, colour in _HEAT]) for place in range(3))
    return "#" + "".join(f"{round(float(each)):02x}" for each in channels)


def _scale(y: float) -> Iterator[str]:
    for place, celsius in enumerate(range(25, 85, 3)):
        yield f'<rect x="{840 + place * 12}" y="{y:g}" width="12" height="12" fill="{_colour(celsius)}"/>'
    yield _text(832, y + 11, "25 °C", 11, _INK, "end")
    yield _text(1086, y + 11, "82 °C", 11)


def _outlines(on: Grid, faults: list[Fault], y: float) -> Iterator[str]:
    for fault in faults:
        x = _LEFT + _PLOT * max(fault.start, 0) / on.seconds[-1]
        wide = max(_PLOT * (fault.end - fault.start) / on.seconds[-1], 4)
        top, tall = y + min(fault.gpus) * _ROW, (max(fault.gpus) - min(fault.gpus) + 1) * _ROW
        box = f'x="{x:.1f}" y="{top - 1.5:g}" width="{wide:.1f}" height="{tall + 1:g}"'
        yield f'<rect {box} fill="none" stroke="black" stroke-width="2.4"/>'
        yield _halo(min(x + wide + 4, _WIDTH - 110), top + min(tall, 40) / 2 + 3, fault.kind.replace("_", " "))


# One chart


def _small(on: Grid, scene: Scene, x: float, y: float) -> Iterator[str]:
    steps = _steps(on, max(scene.start, 0), scene.end)
    values = on.signals[scene.signal][steps][:, scene.gpus] * scene.factor
    seconds = on.seconds[steps]
    low, high = _bounds(values)
    yield _text(x, y - 14, scene.title, 12.5)
    yield _text(x, y - 1, scene.unit, 11, _PEER)
    y += 6
    across = x + 30 + (seconds - scene.start) / (scene.end - scene.start) * (_SMALL_WIDTH - 30)
    if scene.fault:
        ends = [x + 30 + (each - scene.start) / (scene.end - scene.start) * (_SMALL_WIDTH - 30) for each in scene.fault]
        box = f'x="{ends[0]:.1f}" y="{y:g}" width="{ends[1] - ends[0]:.1f}" height="{_SMALL_HEIGHT:g}"'
        yield f'<rect {box} fill="#ffebe9"/>'
    for level in np.linspace(low, high, 3):
        line = y + _SMALL_HEIGHT * (1 - (level - low) / (high - low))
        yield f'<line x1="{x + 30:g}" x2="{x + _SMALL_WIDTH:g}" y1="{line:.1f}" y2="{line:.1f}" stroke="#d0d7de"/>'
        yield _text(x + 26, line + 4, f"{level:.0f}", 10.5, _PEER, "end")
    for place, gpu in sorted(enumerate(scene.gpus), key=lambda each: each[1] in scene.broken):
        down = y + _SMALL_HEIGHT * (1 - (values[:, place] - low) / (high - low))
        broken = gpu in scene.broken
        yield _line(across, down, _FAULT if broken else _PEER, 1.8 if broken and len(scene.broken) == 1 else 0.9)
    for share in (0.0, 0.5, 1.0):
        minute = round(((scene.start + share * (scene.end - scene.start)) % 86400) / 60)
        clock = f"{minute // 60 % 24:02d}:{minute % 60:02d}"
        yield _text(x + 30 + share * (_SMALL_WIDTH - 30), y + _SMALL_HEIGHT + 14, clock, 10.5, _PEER, "middle")


def _bounds(values: Matrix) -> tuple[float, float]:
    low, high = float(np.nanmin(values)), float(np.nanmax(values))
    room = max(0.08 * (high - low), 1.0)
    return (max(low - room, 0.0) if low >= 0 else low - room), high + room


def _line(x: NDArray[np.float64], y: Matrix, colour: str, width: float) -> str:
    path, pen = [], "M"
    for across, down in zip(x.tolist(), y.tolist(), strict=True):
        if down != down:
            pen = "M"
        else:
            path.append(f"{pen}{across:.0f} {down:.1f}")
            pen = "L"
    return f'<path d="{"".join(path)}" fill="none" stroke="{colour}" stroke-width="{width}"/>'


def _text(
    x: float, y: float, text: str, size: float, colour: str = _INK, anchor: str = "start", weight: str = "normal"
) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size:g}" fill="{colour}" text-anchor="{anchor}" '
        f'font-weight="{weight}">{escape(text)}</text>'
    )


def _halo(x: float, y: float, text: str) -> str:
    return (
        f'<text x="{x:.1f}" y="{y:.1f}" font-size="11.5" font-weight="bold" fill="black" stroke="white" '
        f'stroke-width="3" paint-order="stroke">{escape(text)}</text>'
    )


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("truth", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("out", type=click.Path(dir_okay=False, path_type=Path))
def main(file: Path, truth: Path, out: Path) -> None:
    """Draws the recording FILE and its TRUTH as the SVG file OUT."""
    try:
        on = grid.read(file)
        out.write_text(draw(on, grid.faults(truth, on)))
    except (RecordingError, OSError) as error:
        raise click.ClickException(str(error)) from None


if __name__ == "__main__":
    main()
