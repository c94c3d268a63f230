"""What `python -m scheduler simulate` puts together."""

import json
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import click

from ..placement.policies import POLICIES
from . import faults, health, packing, report, trace
from .packing import Estimate


def run(
    trace_folder: Path,
    policy: str,
    workload: Sequence[str],
    seeds: int,
    json_file: Path | None,
    fault_trace: Path | None,
    days: float,
    recall: float,
    lead_hours: float,
    false_alarms: float,
) -> None:
    if policy not in ("all", *POLICIES):
        raise click.BadParameter(f"{policy!r} is none of all, {', '.join(POLICIES)}", param_hint="--policy")
    policies = list(POLICIES) if policy == "all" else [policy]
    try:
        known = trace.workloads(trace_folder)
        for name in workload:
            if name not in known:
                raise trace.TraceError(f"{trace_folder} has no workload {name!r}; it has {', '.join(known)}")
        happened = faults.read(fault_trace) if fault_trace else None
        curves = packing.run(trace_folder, workload or known, policies, seeds, lambda text: click.echo(text, err=True))
    except trace.TraceError as error:
        raise click.ClickException(str(error)) from error
    for line in report.packing_lines(curves, trace.published(trace_folder)):
        click.echo(line)
    found = None
    if happened is not None:
        detector = faults.Detector(recall, lead_hours, false_alarms)
        outcomes = health.run(happened, health.MODES, detector, range(seeds), days)
        estimates = {mode: _estimates(each) for mode, each in outcomes.items()}
        title = f"{len(happened)} faults in {days:g} days; recall {recall:g}, {lead_hours:g} h ahead, "
        title += f"{false_alarms:g} false alarms in 1,000 GPU-hours"
        for line in report.health_lines(title, estimates):
            click.echo(line)
        modes = {mode: {name: asdict(value) for name, value in each.items()} for mode, each in estimates.items()}
        found = {"assumptions": health.assumptions(detector, days, seeds), **modes}
    if json_file:
        json_file.write_text(json.dumps(report.document(curves, found), indent=1) + "\n")


def _estimates(outcomes: Sequence[health.Outcome]) -> dict[str, Estimate]:
    """For each measure the mean over the seeds with its interval."""
    return {name: Estimate.of(getattr(each, name) for each in outcomes) for name in health.Outcome.__slots__}
