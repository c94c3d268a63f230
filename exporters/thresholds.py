"""`python -m exporters.thresholds RECORDING TRUTH`: how far do the usual fixed thresholds get?

The rules are those that operators and published packs use, with their limits and durations; nothing is tuned here.
Two sets are counted apart: limits on levels, and events that say themselves that something broke.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import click
import numpy as np

from exporters import grid
from exporters.grid import Fault, Grid, Mask, Matrix
from exporters.recording import RecordingError

_CRITICAL_XIDS = (48, 62, 64, 74, 79, 95, 119, 120)
_GRACE_SECONDS = 600.0  # an alarm may end this long after its fault, and begin: `for` and windows take their time
_MERGE_SECONDS = 300.0  # two alarms of a GPU closer than this are one


@dataclass(frozen=True, slots=True)
class Rule:
    """Fires where `holds` has been true for `seconds`."""

    name: str
    holds: Callable[[Grid], Mask]
    seconds: float = 0.0


def _above(signal: str, limit: float) -> Callable[[Grid], Mask]:
    return lambda on: np.asarray(_signal(on, signal) > limit)


def _grows(signal: str, by: float, within_seconds: float) -> Callable[[Grid], Mask]:
    def holds(on: Grid) -> Mask:
        steps = min(max(round(within_seconds / on.step_seconds), 1), len(on.seconds) - 1)
        values = _signal(on, signal)
        result = np.zeros(values.shape, np.bool_)
        result[steps:] = values[steps:] - values[:-steps] > by
        return result

    return holds


def _stalled(on: Grid) -> Mask:
    low = _signal(on, "power_watts") < 0.4 * _signal(on, "power_limit_watts")
    return np.asarray(low & (_signal(on, "utilization_ratio") > 0.9))


def _lags(on: Grid) -> Mask:
    utilization = _signal(on, "utilization_ratio")
    result = np.zeros(utilization.shape, np.bool_)
    for step, jobs in enumerate(on.job):
        busy = np.flatnonzero(jobs >= 0)
        count = np.bincount(jobs[busy])
        total = np.bincount(jobs[busy], np.nan_to_num(utilization[step, busy]))
        mean = total[jobs[busy]] / count[jobs[busy]]
        result[step, busy] = utilization[step, busy] < mean - 0.2
    return result


def _narrow(on: Grid) -> Mask:
    # A bus at rest may be narrow by design.
    return np.asarray((_signal(on, "pcie_width_ratio") < 1) & (_signal(on, "utilization_ratio") > 0))


def _new_xid(on: Grid) -> Mask:
    code = np.nan_to_num(_signal(on, "xid"))
    result = np.isin(code, _CRITICAL_XIDS)
    result[1:] &= code[1:] != code[:-1]
    return np.asarray(result)


def _silent(on: Grid) -> Mask:
    there = ~np.isnan(_signal(on, "power_watts"))
    return np.asarray(~there & np.logical_or.accumulate(there, axis=0))


def _signal(on: Grid, name: str) -> Matrix:
    return on.signals.get(name, np.full(on.job.shape, np.nan, np.float32))


SETS: dict[str, tuple[Rule, ...]] = {
    "levels": (
        Rule("temperature over 85 °C for 5 min", _above("temperature_celsius", 85), 300),
        Rule("memory over 95 °C for 5 min", _above("memory_temperature_celsius", 95), 300),
        Rule("thermally throttled over 10 % for 2 min", _above("throttle_thermal_ratio", 0.1), 120),
        Rule("power throttled over 10 % for 2 min", _above("throttle_power_ratio", 0.1), 120),
        Rule("busy over 90 % under 40 % of the power limit for 10 min", _stalled, 600),
        Rule("20 points less busy than its job for 10 min", _lags, 600),
        Rule("memory over 95 % full for 10 min", _above("memory_used_ratio", 0.95), 600),
        Rule("over 100 corrected errors in an hour", _grows("ecc_corrected_total", 100, 3600)),
        Rule("PCIe replays for 15 min", _grows("pcie_replay_total", 0, 60), 900),
        Rule("busy with fewer PCIe lanes than possible for 10 min", _narrow, 600),
        Rule("an NVLink error in 10 min", _grows("nvlink_errors_total", 0, 600)),
    ),
    "events": (
        Rule("an XID of the critical tier", _new_xid),
        Rule("an uncorrectable error in 10 min", _grows("ecc_uncorrected_total", 0, 600)),
        Rule("a row remap pending for 5 min", _above("row_remap_pending", 0), 300),
        Rule("nothing heard for 10 min", _silent, 600),
    ),
}


@dataclass(frozen=True, slots=True)
class Alarm:
    """A GPU's alarm, in seconds of the grid."""

    gpu: int
    start: float
    end: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """What a set of rules makes of a recording."""

    found: dict[str, int]  # kind → faults with an alarm
    total: dict[str, int]  # kind → faults
    alarms: int
    false: int
    gpu_hours: float

    @property
    def recall(self) -> float:
        return sum(self.found.values()) / max(sum(self.total.values()), 1)

    @property
    def false_per_1000_gpu_hours(self) -> float:
        return 1000 * self.false / self.gpu_hours


def fires(rule: Rule, on: Grid) -> Mask:
    """[steps, gpus]: the rule's condition has held for its time."""
    holds = rule.holds(on)
    needed = round(rule.seconds / on.step_seconds)
    index = np.arange(len(holds))[:, None]
    last_false = np.maximum.accumulate(np.where(holds, -1, index), axis=0)
    return np.asarray(holds & (index - last_false > needed))


def alarms(rules: Sequence[Rule], on: Grid) -> list[Alarm]:
    """Per GPU, whatever the rule; close ones are one."""
    firing = np.logical_or.reduce([fires(rule, on) for rule in rules])
    gap = _MERGE_SECONDS / on.step_seconds
    result = []
    for gpu in range(firing.shape[1]):
        steps = np.flatnonzero(firing[:, gpu])
        for run in np.split(steps, np.flatnonzero(np.diff(steps) > gap) + 1):
            if len(run):
                result.append(Alarm(gpu, on.seconds[run[0]], on.seconds[run[-1]]))
    return result


def outcome(rules: Sequence[Rule], on: Grid, faults: Sequence[Fault]) -> Outcome:
    """Counts. An alarm on a GPU whose job a fault holds up is neither found nor false."""
    rung = alarms(rules, on)
    found, total = dict.fromkeys({each.kind for each in faults}, 0), dict.fromkeys({each.kind for each in faults}, 0)
    excused = np.zeros(on.job.shape, np.bool_)
    for fault in faults:
        total[fault.kind] += 1
        found[fault.kind] += any(each.gpu in fault.gpus and _meets(each, fault) for each in rung)
        steps = slice(*np.searchsorted(on.seconds, [fault.start, fault.end + _GRACE_SECONDS]))
        jobs = on.job[steps][:, fault.gpus]
        excused[steps] |= np.isin(on.job[steps], jobs[jobs >= 0])
        excused[steps, fault.gpus] = True
    spans = [slice(*np.searchsorted(on.seconds, [each.start, each.end + on.step_seconds])) for each in rung]
    false = sum(not excused[span, each.gpu].any() for span, each in zip(spans, rung, strict=True))
    hours = len(on.sources) * len(on.seconds) * on.step_seconds / 3600
    return Outcome(found, total, len(rung), false, hours)


def _meets(alarm: Alarm, fault: Fault) -> bool:
    return fault.start <= alarm.start <= fault.end + _GRACE_SECONDS


@click.command()
@click.argument("file", type=click.Path(exists=True, dir_okay=False, path_type=Path))
@click.argument("truth", type=click.Path(exists=True, dir_okay=False, path_type=Path))
def main(file: Path, truth: Path) -> None:
    """Runs the rules on the recording FILE and counts against TRUTH."""
    try:
        on = grid.read(file)
        faults = grid.faults(truth, on)
    except RecordingError as error:
        raise click.ClickException(str(error)) from None
    both = [rule for rules in SETS.values() for rule in rules]
    outcomes = {name: outcome(rules, on, faults) for name, rules in [*SETS.items(), ("both", both)]}
    for name, each in outcomes.items():
        click.echo(
            f"{name:8} recall {each.recall:.2f} of {len(faults)} faults, {each.alarms} alarms, {each.false} false: "
            f"{each.false_per_1000_gpu_hours:.1f} per 1,000 GPU-hours"
        )
    click.echo(f"\n{'rule alone':60}{'recall':>8}{'false/1,000 h':>15}")
    for rule in both:
        alone = outcome([rule], on, faults)
        click.echo(f"{rule.name:60}{alone.recall:8.2f}{alone.false_per_1000_gpu_hours:15.1f}")
    click.echo(f"\n{'kind':20}{'faults':>8}" + "".join(f"{name:>8}" for name in outcomes))
    for kind, count in sorted(outcomes["both"].total.items()):
        click.echo(f"{kind:20}{count:8}" + "".join(f"{each.found[kind]:8}" for each in outcomes.values()))


if __name__ == "__main__":
    main()
