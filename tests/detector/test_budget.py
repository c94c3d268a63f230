import itertools
from collections.abc import Sequence

import numpy as np
import pytest
from click.testing import CliRunner

from detector.__main__ import cli
from detector.budget import BUDGETS, Tail, broken
from detector.calibration import BLOCK, Thresholds, block_maxima, calibrate, chance, evidence
from detector.shard import Shard
from detector.signals import Signal
from detector.telemetry import Gpu

SIGNALS = (Signal("a"), Signal("b", scored=False))


def exponential(budget: float) -> Thresholds:
    """What an exponential tail gives: a step for each tenfold of the budget."""
    return Thresholds(np.array([[3.0 - np.log10(budget), np.inf]] * 2, np.float32))


@pytest.mark.parametrize("budget", [0.001, 0.03, 0.1, 0.5, 7.0, 100.0])
def test_any_budget_has_the_thresholds_of_its_tail(budget: float) -> None:
    np.testing.assert_allclose(Tail.fit(exponential).thresholds(budget).values, exponential(budget).values, rtol=1e-5)


def test_a_stored_tail_gives_what_calibrating_for_the_budget_gives() -> None:
    residuals = np.random.default_rng(1).laplace(size=(2, 40, 40 * BLOCK)).astype(np.float32)
    maxima = block_maxima(evidence(residuals, SIGNALS))
    tail = Tail.fit(lambda budget: calibrate(maxima, SIGNALS, chance(budget, 5.0)))
    for budget in (0.05, 0.1, 3.0):
        expected = calibrate(maxima, SIGNALS, chance(budget, 5.0)).values
        np.testing.assert_allclose(tail.thresholds(budget).values, expected, rtol=0.05)


def test_a_tighter_budget_never_has_a_lower_threshold() -> None:
    noise = np.random.default_rng(2)
    tail = Tail.fit(lambda _: Thresholds(noise.uniform(1, 2, (2, 2)).astype(np.float32)))
    found = [tail.thresholds(budget).values for budget in BUDGETS]
    for tighter, wider in itertools.pairwise(found):
        assert (tighter >= wider).all()


@pytest.mark.parametrize(
    ("alarms", "hours", "is_broken"),
    [(0, 10, False), (2, 10, False), (3, 10, True), (1, 10_000, False), (4, 10_000, False), (6, 10_000, True)],
)
def test_a_budget_is_broken_when_chance_does_not_explain_the_alarms(alarms: int, hours: float, is_broken: bool) -> None:
    # One alarm is expected in 10,000 GPU-hours; four or more come by chance in 1.9 %, six or more in 0.06 %.
    assert broken(alarms, hours, 0.1) is is_broken


def test_shards_share_the_fleet_and_keep_racks_whole() -> None:
    fleet = [Gpu(f"node-{node}", str(gpu), rack=f"rack-{node // 4}") for node in range(400) for gpu in range(8)]
    shards = [Shard.parse(f"{index}/3") for index in (1, 2, 3)]
    owners = [[shard.index for shard in shards if shard.has(gpu)] for gpu in fleet]
    assert all(len(owner) == 1 for owner in owners)
    racks = {(gpu.rack, owner[0]) for gpu, owner in zip(fleet, owners, strict=True)}
    assert len(racks) == 100
    assert min(np.bincount([owner[0] for owner in owners])[1:]) > len(fleet) / 5


@pytest.mark.parametrize(("racks", "sizes"), [(100, range(150, 500)), (1, [800]), (3, [264, 272, 528, 536, 800])])
def test_a_part_of_a_share_is_about_as_large_as_wanted_and_never_empty(racks: int, sizes: Sequence[int]) -> None:
    everyone = [Gpu(f"node-{node}", str(gpu), rack=f"rack-{node % racks}") for node in range(100) for gpu in range(8)]
    for whole in (Shard(), Shard(1, 2), Shard(2, 2)):
        fleet = [gpu for gpu in everyone if whole.has(gpu)]
        part = whole.part(fleet, 300)
        assert part.of % whole.of == 0
        assert all(whole.has(gpu) for gpu in fleet if part.has(gpu))
        assert not fleet or sum(map(part.has, fleet)) in sizes


@pytest.mark.parametrize(
    ("option", "value", "said"),
    [
        ("--shard", "3/2", "'3/2' is not a shard: it is written i/n"),
        ("--shard", "0/2", "'0/2' is not a shard"),
        ("--shard", "half", "'half' is not a shard"),
        ("--budget", "0", "0.0 is not in the range"),
        ("--budget", "nan", "nan is not a finite number"),
        ("--lookback", "inf", "inf is not a finite number"),
        ("--no-edges", "street", "'street' is not one of"),
    ],
)
def test_a_wrong_wish_is_one_sentence(option: str, value: str, said: str) -> None:
    result = CliRunner().invoke(cli, ["run", "--prometheus", "http://127.0.0.1:9", option, value])
    assert result.exit_code == 2
    assert said in result.output
