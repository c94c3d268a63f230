from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from detector import rules, signals
from detector.signals import Alarm, Signal
from detector.telemetry import Telemetry

from .fleets import telemetry

STEPS = 80


def with_column(name: str, column: Sequence[float]) -> Telemetry:
    """The usual fleet, and a rule's signal on its first GPU; the others read 0 there."""
    fleet = telemetry(STEPS)
    plane = np.zeros((1, *fleet.values.shape[1:]), np.float32)
    plane[0, 0] = column
    described = (*fleet.signals, signals.load().describe(name))
    return replace(fleet, signals=described, values=np.concatenate([fleet.values, plane]))


def causes(found: rules.Findings, gpu: int) -> list[str]:
    pairs = zip(found.score[gpu], found.cause[gpu], strict=True)
    return [found.causes[cause][0] if score else "" for score, cause in pairs]


@pytest.mark.parametrize(("code", "cause"), [(79, "missing"), (74, "interconnect"), (95, "memory_errors"), (31, "")])
def test_an_xid_that_no_program_brings_on_itself_alarms_at_once_and_while_it_stands(code: int, cause: str) -> None:
    found = rules.findings(with_column("xid", [0] * 30 + [code] * 20 + [0] * 30))
    assert causes(found, 0) == [""] * 30 + [cause] * 20 + [""] * 30
    assert not found.score[1:].any()


def test_an_error_that_only_counts_up_is_held_against_the_gpu_for_a_while() -> None:
    found = rules.findings(with_column("ecc_uncorrected_total", [5] * 10 + [6] * 70))
    assert causes(found, 0) == [""] * 10 + ["memory_errors"] * rules.HOLD_STEPS + [""] * (70 - rules.HOLD_STEPS)


def test_a_counter_that_is_reset_or_silent_for_a_while_has_not_grown() -> None:
    found = rules.findings(with_column("ecc_uncorrected_total", [5] * 10 + [float("nan")] * 5 + [5] * 25 + [0] * 40))
    assert not found.score[0].any()


@pytest.mark.parametrize(("silent", "expected"), [(range(1), [2, 3, 4]), (range(8), [])])
def test_a_gpu_is_missing_when_it_alone_is_silent_and_not_when_its_driver_restarts(
    silent: range, expected: list[int]
) -> None:
    fleet = telemetry(40)
    fleet.values[:, list(silent), 20:25] = np.nan
    found = rules.findings(fleet, first=20)
    assert np.flatnonzero(found.score[0]).tolist() == expected
    assert not found.score[8:].any()


def test_a_node_that_stays_silent_is_missing_with_all_its_gpus() -> None:
    fleet = telemetry(400)
    fleet.values[:, :8, 100:] = np.nan
    found = rules.findings(fleet)
    first = int(np.argmax(found.score[0] > 0))
    assert (first - 99) * fleet.step == rules.NODE_SECONDS
    assert (found.score[:8, first:] >= 1).all()


def test_a_rule_may_have_bounds() -> None:
    narrow = Signal("width", alarms=(Alarm("interconnect", below=1),))
    fleet = telemetry(2)
    values = np.ones((1, *fleet.values.shape[1:]), np.float32)
    values[0, 3] = 0.5
    found = rules.findings(replace(fleet, signals=(narrow,), values=values))
    assert np.flatnonzero(found.score[:, -1]).tolist() == [3]
