"""What is usual for one GPU or server by itself, and what is never held against it."""

from dataclasses import replace

import numpy as np
import pytest

from detector import habits, offsets, signals
from detector.batches import peers, prepare
from detector.calibration import BLOCK
from detector.contexts import AFTERMATH, alone, idle
from detector.features import TREND, WINDOW, Scaling, trend, twins, unchanged
from detector.limits import Stretch, fit
from detector.residuals import (
    PeerJudge,
    Residuals,
    against_job,
    apart_from_fleet,
    apart_from_neighbours,
    apart_from_node,
    awaiting,
    beyond,
    bounded_by_ranks,
    by_itself,
    hot_within,
    in_units,
    missed,
    not_alone,
    patchy,
    standing_still,
    within,
)
from detector.signals import Signal
from detector.telemetry import IDLE, Telemetry
from detector.topology import Groups

from . import fleets

NAN = np.float32(np.nan)
IDLE_CONTEXT, BUSY_CONTEXT, LONELY_CONTEXT = 0, 2, 4
STATE = ("utilization_ratio", "power_watts")
TWINLESS = np.full(1, -1), np.ones(1, np.float32)
MISSES = np.full((1, 1, 1), 2.0, np.float32)
HEAT = (signals.load().describe("temperature_celsius"),)


def servers(steps: int = 600, count: int = 3) -> Telemetry:
    """Machines with four nameless metrics that move together, each in its own way."""
    random = np.random.default_rng(5)
    level = np.sin(np.arange(steps) / 9.0) + 0.1 * random.standard_normal(steps)
    share = random.uniform(-2, 2, (4, count))
    noise = 0.05 * random.standard_normal((4, count, steps))
    values = (share[..., None] * level + noise).astype(np.float32)
    signals = tuple(Signal(f"metric-{number}", alone=False) for number in range(4))
    times = fleets.START + 60.0 * np.arange(steps, dtype=np.float64)
    return Telemetry(signals, fleets.gpus(count, 1), times, values, np.full((count, steps), IDLE, np.int32), ())


def test_a_server_that_leaves_its_habits_stands_out_and_in_that_signal() -> None:
    fleet = servers()
    values = fleet.values.copy()
    values[2, 1, 500:520] += 1.0  # well within the metric's range
    _, known = habits.fit(fleet, fleet.values, 400)
    found = known.residuals(fleet, values, 450)
    assert np.nanmax(found[:, [0, 2]]) < 2
    assert np.nanmax(found[:, 1, :50]) < 2
    assert found[:, 1, 65].argmax() == 2
    assert found[2, 1, 65] > 3


def test_a_signal_takes_no_part_in_explaining_itself() -> None:
    """Then an error follows the reading one to one, and the squares of what is above and below add up."""
    fleet = servers()
    _, known = habits.fit(fleet, fleet.values, 400)
    shift = 0.4 * known.unit[1, 2] * known.spread[1, 2]
    found = []
    for sign in (0.0, 1.0, -1.0):
        values = fleet.values.copy()
        values[2, 1, 490:500] += sign * shift
        found.append(float(known.residuals(fleet, values, 499)[2, 1, 0]))
    usual, above, below = np.square(found)
    assert above + below - 2 * usual == pytest.approx(2 * 0.4**2, rel=1e-3)


def test_habits_are_the_same_live_and_afterwards_and_look_back_only() -> None:
    fleet = servers()
    _, known = habits.fit(fleet, fleet.values, 400)
    whole = known.residuals(fleet, fleet.values, 0)
    live = known.residuals(fleet, fleet.values[..., 560 - habits.WIDTH : 560], habits.WIDTH - 1)
    np.testing.assert_allclose(live[..., 0], whole[..., 559], atol=1e-6)
    later = fleet.values.copy()
    later[..., 300:] = 9
    np.testing.assert_array_equal(known.residuals(fleet, later, 0)[..., :300], whole[..., :300])


def test_without_half_of_its_window_and_for_a_stranger_there_is_no_opinion() -> None:
    fleet = servers()
    _, known = habits.fit(fleet, fleet.values, 400)
    gaps = fleet.values.copy()
    gaps[0, 0, 494:500] = NAN
    found = known.residuals(fleet, gaps, 499)[..., 0]
    assert np.isnan(found[0, 0])
    assert np.isfinite(found[1:, 0]).all()
    strangers = replace(fleet, gpus=tuple(replace(gpu, node=f"new-{gpu.node}") for gpu in fleet.gpus))
    assert np.isnan(known.residuals(strangers, fleet.values, 0)).all()


def test_an_offset_is_taken_off_but_not_what_was_broken_when_it_was_learned() -> None:
    random = np.random.default_rng(6)
    fleet = fleets.gpus(2)
    usual = random.standard_normal(16).astype(np.float32)
    usual[3] = 50.0
    residuals = (usual[:, None] + 0.1 * random.standard_normal((3, 16, 200))).astype(np.float32)
    context = np.full((16, 200), BUSY_CONTEXT)
    found = offsets.fit(residuals, fleet, context, HEAT)
    less = residuals - found.usual(fleet, context)
    assert np.abs(np.delete(less, 3, axis=1)).max() < 1
    assert less[:, 3].min() > 40
    assert not found.usual(fleet, np.full((16, 200), IDLE_CONTEXT)).any()


def test_who_wanders_further_than_others_has_to_go_further_to_stand_out() -> None:
    random = np.random.default_rng(7)
    fleet = fleets.gpus(2)
    residuals = (random.standard_normal((3, 16, 600)) * np.where(np.arange(16) == 5, 2.0, 1.0)[:, None]).astype(
        np.float32
    )
    residuals[:, 11] *= 40.0
    context = np.full((16, 600), BUSY_CONTEXT)
    unit = offsets.fit(residuals, fleet, context, HEAT).unit(fleet)[..., 0]
    assert unit.shape == (2, 16)
    np.testing.assert_allclose(unit[:, 5], 2.0, rtol=0.2)
    assert (unit[:, 11] == 3.0).all()  # what may be broken is not believed to be that restless
    assert (np.delete(unit, [5, 11], axis=1) < 1.3).all()
    assert unit.min() == 1.0
    known = offsets.fit(residuals, fleet, context, HEAT)
    held = Residuals(residuals[:2], residuals[2:]).less(known, fleet, context, 1)
    np.testing.assert_allclose(held.own, (residuals[:2] - known.usual(fleet, context)[:2]) / unit[..., None], rtol=1e-6)
    strangers = [replace(gpu, node="elsewhere") for gpu in fleet]
    assert (known.unit(strangers) == 1).all()


def test_an_unknown_gpu_has_no_offset_and_later_recordings_count() -> None:
    fleet = fleets.gpus(1)
    context = np.full((8, 100), BUSY_CONTEXT)
    made = [offsets.fit(np.full((3, 8, 100), level, np.float32), fleet, context, HEAT) for level in (1.0, 2.0)]
    residuals = np.full((3, 8, 100), 2.0, np.float32)
    np.testing.assert_array_equal(offsets.merged(made).usual(fleet, context), residuals)
    strangers = [replace(gpu, node="elsewhere") for gpu in fleet]
    assert not offsets.merged(made).usual(strangers, context).any()


def test_unchanged_counts_the_very_same_readings_up_to_the_window() -> None:
    values = np.array([[[1, 1, 1, NAN, 1, 2, 2]]], np.float32)
    np.testing.assert_array_equal(unchanged(values, 0, *TWINLESS)[0, 0], [0, 1, 2, NAN, 3, 0, 1])
    stuck = np.ones((1, 1, 200), np.float32)
    late = unchanged(stuck[..., -WINDOW - 1 :], WINDOW, *TWINLESS)
    assert unchanged(stuck, 199, *TWINLESS)[0, 0, 0] == WINDOW == late[0, 0, 0]


def test_a_sensor_is_stuck_as_far_as_its_twin_goes_meanwhile() -> None:
    random = np.random.default_rng(11)
    twin, resolution = np.array([1, 0, -1]), np.array([1.0, 0.5, 1.0], np.float32)
    values = np.round(random.normal(50, 2, (3, 1, 200))).astype(np.float32)
    values[0, 0, 100:] = 47.0
    values[0, 0, 150:153] = np.nan
    values[1, 0, 40:44] = np.nan
    found = unchanged(values, 0, twin, resolution)
    for step in range(200):
        others = np.flatnonzero((values[0, 0, : step + 1] != values[0, 0, step]) & ~np.isnan(values[0, 0, : step + 1]))
        since = max(step - WINDOW, others[-1] + 1 if len(others) else 0)
        moved = values[1, 0, since : step + 1]
        gone = np.isnan(values[0, 0, step]) or np.isnan(moved).all()
        np.testing.assert_equal(found[0, 0, step], NAN if gone else (np.nanmax(moved) - np.nanmin(moved)) / 0.5)
    np.testing.assert_array_equal(found[2], unchanged(values[2:], 0, *TWINLESS)[0])
    for first in (60, 130, 199):
        late = unchanged(values[..., first - WINDOW :], WINDOW, twin, resolution)
        np.testing.assert_array_equal(late, found[..., first:])
    values[1] = np.nan
    assert np.isnan(unchanged(values, 0, twin, resolution)[0]).all()


def test_twins_are_found_by_their_names() -> None:
    heat = Signal("temperature", resolution=1.0, twin="memory_temperature")
    assert twins((heat, Signal("power"))).tolist() == [-1, -1]
    assert twins((Signal("memory_temperature"), heat)).tolist() == [-1, 0]
    assert missed((heat, Signal("power"))).ravel().tolist() == [0, 2]


def test_since_when_a_newcomer_stands_still_is_not_known_until_it_changes() -> None:
    values = np.full((1, 3, 120), 7.0, np.float32)
    values[0, :2, :100] = np.nan
    values[0, 1, 110] = 8.0
    runs = unchanged(values, 60, *TWINLESS)[0]
    assert np.isnan(runs[0, 40:]).all()
    assert runs[1, 49:55].tolist() == [pytest.approx(NAN, nan_ok=True), 0, 0, 1, 2, 3]
    assert (runs[2] == WINDOW).all()
    np.testing.assert_array_equal(runs[:, -1], unchanged(values[..., -WINDOW - 1 :], WINDOW, *TWINLESS)[0, :, 0])


def test_readings_that_stand_still_everywhere_are_held_against_nobody() -> None:
    moving = np.array([0, 0, 1, 30, NAN], np.float32)[None, :, None]  # one sensor is stuck
    np.testing.assert_array_equal(apart_from_fleet(moving, MISSES)[0, :, 0], [0, 0, 0, 28, NAN])
    standing = np.array([30, 30, 31, 48, NAN], np.float32)[None, :, None]
    np.testing.assert_array_equal(apart_from_fleet(standing, MISSES)[0, :, 0], [0, 0, 0, 16, NAN])
    assert apart_from_fleet(np.full((1, 2, 1), NAN), MISSES).shape == (1, 2, 1)


def test_a_signal_that_usually_stands_still_accuses_nobody_when_half_the_fleet_moves() -> None:
    """Clocks at their highest are the same for hours; some GPUs' move when a job comes."""
    fleet = replace(fleets.telemetry(2 * BLOCK), job=np.full((32, 2 * BLOCK), IDLE, np.int32))
    signal = fleet.signals[fleets.row("sm_clock_hertz")]
    residuals = np.zeros((3, 32, 2 * BLOCK), np.float32)
    residuals[2] = WINDOW  # the last row: for how long it has been the same
    context = np.full(residuals.shape[1:], BUSY_CONTEXT)
    limits = fit([Stretch(fleet, Residuals(residuals, residuals.copy()), context)], (signal,), fleet.step)
    residuals[2, 16:] = 0
    assert not in_units(residuals, limits.own_scale, context, (signal,)).any()
    residuals[2] = np.arange(2 * BLOCK) % 3  # one that usually moves, and now one GPU's does not
    limits = fit([Stretch(fleet, Residuals(residuals, residuals.copy()), context)], (signal,), fleet.step)
    residuals[2, 5] = WINDOW
    stuck = in_units(residuals, limits.own_scale, context, (signal,))[2]
    assert (stuck[5] > 10).all()
    assert (np.delete(stuck, 5, axis=0) < 3).all()


def test_a_leak_is_a_trend_and_a_jump_or_noise_is_none() -> None:
    steps = np.arange(60, dtype=np.float32)
    leak, jump = 0.01 * steps, np.where(steps < 50, 0.1, 0.9)
    noise = np.random.default_rng(7).standard_normal(60)
    found = trend(np.stack([leak, jump, noise])[:, None].astype(np.float32), 55)[:, 0]
    np.testing.assert_allclose(found[0], 0.01 * TREND, rtol=1e-3)
    assert not found[1].any()
    assert not found[2].any()


def test_what_befalls_a_whole_node_is_its_own_and_one_gpu_is_left_as_it_is() -> None:
    fleet = fleets.gpus(2)
    residuals = np.zeros((1, 16, 1), np.float32)
    residuals[0, :8] = 3.0  # the first node
    residuals[0, 12] = 4.0  # one GPU of the second
    telling = np.ones(residuals.shape, np.bool_)
    apart, common = apart_from_node(residuals, telling, fleet)
    assert apart[0, :, 0].tolist() == [*[0.0] * 12, 4.0, 0.0, 0.0, 0.0]
    assert common[0, :, 0].tolist() == [*[3.0] * 8, *[0.0] * 8]
    telling[0, :5] = False  # five whose jobs nobody else works for leave too few to say what is the node's
    apart, common = apart_from_node(residuals, telling, fleet)
    np.testing.assert_array_equal(apart[0, :8, 0], residuals[0, :8, 0])
    assert np.isnan(common[0, :8]).all()


def test_who_lacks_much_of_what_lately_came_says_nothing_of_its_groups() -> None:
    fleet = fleets.telemetry(steps=70)
    fleet.values[0, 0, -1] = np.nan  # one of five
    fleet.values[:2, 1, -1] = np.nan
    fleet.values[:2, 2] = np.nan  # never came
    resolution = np.ones(len(fleet.signals), np.float32)
    model = np.zeros(len(fleet.gpus), np.int64)
    scaling = Scaling.fit(fleet.values, model, 1, resolution)
    prepared = prepare(fleet, fleet.values, scaling, ("H100",), STATE, 69)
    assert np.flatnonzero(patchy(prepared)[:, -1]).tolist() == [1]


def test_heat_that_a_nodes_ranks_share_is_no_fault_of_one_of_them() -> None:
    fleet = (*fleets.gpus(2, per_node=4), *fleets.gpus(3, per_node=1)[2:])
    job = np.zeros((9, 3), np.int32)
    job[2:4], job[6:8] = 1, IDLE  # of the first node two each; of the second two work; the third has only one GPU
    plain = np.zeros((1, 9, 1), np.float32)
    plain[0, :, 0] = [5.0, 4.0, 5.0, 0.5, 3.0, -2.0, np.nan, 2.0, 6.0]
    apart = apart_from_neighbours(plain, fleet, job)[0, :, 0]
    expected = np.array([1.0, 0.0, 4.5, 0.0, 3.0, 0.0, NAN, NAN, 6.0])
    np.testing.assert_array_equal(apart, expected)


def test_of_who_is_compared_in_vain_only_the_errors_count() -> None:
    counted, gauge = signals.load().describe("ecc_corrected_total"), signals.load().describe("power_watts")
    found = Residuals(np.ones((4, 3, 5), np.float32), np.ones((6, 3, 5), np.float32))
    found.forget(np.array([False, True, False]), (counted, gauge))
    assert np.isnan(found.own[:, 1]).all(axis=1).tolist() == [False, True] * 2
    assert np.isnan(found.shared[:, 1]).all(axis=1).tolist() == [False, False, False, True, False, False]
    assert not np.isnan(found.own[:, [0, 2]]).any()
    assert not np.isnan(found.shared[:, [0, 2]]).any()


@pytest.mark.parametrize(
    ("residual", "common", "expected"),
    [(5.0, 3.0, 2.0), (5.0, 7.0, 0.0), (-5.0, -3.0, -2.0), (0.5, 13.0, 0.0), (0.5, -13.0, 0.5), (4.0, np.nan, 4.0)],
)
def test_nobody_is_off_for_standing_where_the_others_do_not(residual: float, common: float, expected: float) -> None:
    assert beyond(np.full((1, 1), residual, np.float32), np.full((1, 1), common, np.float32)).item() == expected
    assert np.isnan(beyond(np.full((1, 1), np.nan, np.float32), np.full((1, 1), common, np.float32))).all()


@pytest.mark.parametrize(
    ("model", "plain", "expected"),
    [(3.0, 5.0, 3.0), (5.0, 2.0, 2.0), (4.0, -1.0, 0.0), (-4.0, -1.0, -1.0), (4.0, np.nan, 4.0), (np.nan, 4.0, np.nan)],
)
def test_the_model_says_no_more_than_the_plain_comparison_bears_out(
    model: float, plain: float, expected: float
) -> None:
    one = np.full((1, 1, 1), 1.0, np.float32)
    found = within(one * np.float32(model), one * np.float32(plain), np.full((1, 1), LONELY_CONTEXT))
    np.testing.assert_array_equal(found, one * np.float32(expected))


def test_of_a_rank_nothing_is_said_while_too_few_of_the_others_report() -> None:
    own, plain = np.full((1, 3, 1), 4.0, np.float32), np.full((1, 3, 1), np.nan, np.float32)
    context = np.array([[BUSY_CONTEXT], [LONELY_CONTEXT], [IDLE_CONTEXT]])
    found = within(own, plain, context)
    np.testing.assert_array_equal(found[0, :, 0], np.array([np.nan, 4.0, np.nan], np.float32))


def test_a_rank_whose_others_are_mostly_on_one_other_node_awaits_what_is_told_of_that() -> None:
    fleet = fleets.telemetry(30, nodes=3)
    members = np.array([0, 1, 2, 3, 4, 8, *range(9, 13), *range(16, 20)], np.int32)  # five and one; four and four
    of = np.full(24, -1, np.int32)
    of[members[:6]], of[members[6:]] = 0, 1
    groups = Groups(members, np.array([0, 6, 14], np.int32), of)
    job = np.repeat(of[:, None], 30, axis=1)
    since = np.full((24, 2), [AFTERMATH - 1, AFTERMATH])
    found = awaiting([{"job": groups}] * 2, since, replace(fleet, job=job, jobs=("a", "b")))
    assert np.flatnonzero(found[:, 0]).tolist() == [8]
    assert not found[:, 1].any()
    job[8], of[8] = job[20], -1
    apart = Groups(members[:5], np.array([0, 5], np.int32), of)
    assert not awaiting([{"job": apart}], since[:, :1], replace(fleet, job=job, jobs=("a", "b"))).any()


def test_without_ranks_only_what_a_gpu_is_off_by_itself_counts() -> None:
    own = np.array([-9.0, -9.0, 9.0, -9.0, -9.0], np.float32)[None, :, None]
    single = np.array([-0.5, -12.0, -2.0, -0.5, NAN], np.float32)[None, :, None]
    context = np.array([*[LONELY_CONTEXT] * 3, BUSY_CONTEXT, LONELY_CONTEXT])[:, None]
    found = by_itself(own, single, context)[0, :, 0]
    np.testing.assert_array_equal(found, np.array([-0.5, -9.0, 0.0, -9.0, NAN], np.float32))


def test_a_node_stands_still_as_long_as_nothing_of_it_changes_and_two_gpus_are_no_group() -> None:
    fleet = fleets.gpus(2)
    unchanged = np.full((2, 16, 2), 5.0, np.float32)  # both nodes' exporters hang, since five steps and since four
    unchanged[0, 3] = 30.0  # a sensor was stuck before
    unchanged[1, 5] = NAN
    unchanged[:, 8:] -= 1.0
    unchanged[0, 9, 1] = 0.0  # the second node's goes on
    found = standing_still(unchanged, fleet)
    np.testing.assert_array_equal(found[:8], np.full((8, 2), 5.0))
    np.testing.assert_array_equal(found[8:], np.tile([4.0, 0.0], (8, 1)))
    assert not standing_still(unchanged[:, :2], fleet[:2]).any()
    assert not standing_still(unchanged, tuple(replace(gpu, node="") for gpu in fleet)).any()


def test_heat_is_the_ranks_own_where_both_comparisons_say_so() -> None:
    own = np.array([4.0, 4.0, -4.0, 4.0, 4.0, 4.0], np.float32)[None, :, None]
    plain = np.array([3.0, 5.0, 3.0, NAN, 0.0, 0.0], np.float32)[None, :, None]
    context = np.array([*[BUSY_CONTEXT] * 4, LONELY_CONTEXT, IDLE_CONTEXT])[:, None]
    found = hot_within(np.concatenate([own, plain]), np.array([True]), context)
    np.testing.assert_array_equal(found[0, :, 0], np.array([3.0, 4.0, 0.0, 4.0, 4.0, 4.0], np.float32))
    np.testing.assert_array_equal(found[1], plain[0])
    np.testing.assert_array_equal(hot_within(np.concatenate([own, plain]), np.array([False]), context)[0], own[0])


def test_the_only_rank_on_a_node_is_no_hotter_than_ranks_elsewhere_bear_out() -> None:
    own = np.array([4.0, 4.0, 4.0, 4.0, -4.0], np.float32)[None, :, None]
    plain = np.array([NAN, NAN, 2.0, NAN, NAN], np.float32)[None, :, None]  # the third has neighbours
    elsewhere = np.array([3.0, -1.0, 1.0, NAN, 3.0], np.float32)[None, :, None]
    context = np.full((5, 1), BUSY_CONTEXT)
    found = bounded_by_ranks(own, plain, elsewhere, context)[0, :, 0]
    np.testing.assert_array_equal(found, np.array([3.0, 0.0, 4.0, 4.0, 0.0], np.float32))
    np.testing.assert_array_equal(bounded_by_ranks(own, plain, elsewhere, np.full((5, 1), LONELY_CONTEXT)), own)


def test_what_three_ranks_of_a_node_draw_more_is_none_of_theirs_and_what_two_do_is() -> None:
    fleet = fleets.gpus(1)
    job = np.array([0, 0, 0, 1, 1, 1, 1, IDLE], np.int32)[:, None]
    plain = np.array([9.0, 6.0, 5.0, 7.0, 7.0, 0.0, 0.0, 8.0], np.float32)[None, :, None]
    residuals = np.concatenate([plain - 1, plain])
    found = not_alone(residuals, np.array([True]), fleet, job)
    np.testing.assert_array_equal(found[1, :, 0], np.array([3, 0, 0, 7, 7, 0, 0, 8], np.float32))
    np.testing.assert_array_equal(found[0, :, 0], np.array([3, 0, 0, 6, 6, 0, 0, 7], np.float32))
    np.testing.assert_array_equal(not_alone(residuals, np.array([False]), fleet, job), residuals)
    residuals[1, 0] = NAN  # without likes the model's opinion stands, and two share nothing
    np.testing.assert_array_equal(not_alone(residuals, np.array([True]), fleet, job)[0, :3, 0], residuals[0, :3, 0])


def test_one_reading_that_did_not_come_does_not_take_the_other_ranks_away() -> None:
    groups = Groups(np.arange(4, dtype=np.int32), np.array([0, 4], np.int32), np.zeros(4, np.int32))
    residuals = np.full((1, 4, 1), 5.0, np.float32)
    residuals[0, 0] = np.nan
    found = against_job(residuals, [{"job": groups}])
    np.testing.assert_array_equal(found[0, :, 0], np.array([np.nan, 0, 0, 0], np.float32))
    residuals[0, 1] = np.nan  # two tell nothing about what the job does
    np.testing.assert_array_equal(against_job(residuals, [{"job": groups}]), residuals)


def test_where_nothing_tells_busy_from_idle_nobody_is_idle() -> None:
    fleet = servers()
    _, _, context, _ = peers(fleet, fleet.values, STATE, 500)
    assert alone(context).all()


def test_who_holds_no_memory_and_works_for_no_job_is_idle_however_busy_it_says_it_is() -> None:
    fleet = fleets.telemetry(steps=80)
    held = np.full((1, *fleet.values.shape[1:]), 0.006, np.float32)
    held[0, 21] = 0.3  # somebody's work, of whom no job is named
    fleet.values[fleets.row("utilization_ratio"), 20:22] = 0.4
    fleet.job[:] = IDLE
    fleet.job[:16] = 0
    memory = signals.load().describe("memory_used_ratio")
    wide = replace(fleet, signals=(*fleet.signals, memory), values=np.concatenate([fleet.values, held]))
    _, _, context, _ = peers(wide, wide.values, STATE, 79)
    assert idle(context)[:, 0].tolist() == [*[False] * 16, *[True] * 5, False, *[True] * 10]
    _, _, context, _ = peers(fleet, fleet.values, STATE, 79)
    assert not idle(context)[20:22].any()


def test_without_a_model_such_servers_are_compared_with_one_another() -> None:
    fleet = servers(count=6)
    fleet.values[:] = 1.0 + 0.01 * np.random.default_rng(8).standard_normal(fleet.values.shape)
    fleet.values[2, 3, 550:] = 2.0
    found = PeerJudge(fleet.signals, STATE).residuals(fleet, 500).own
    assert np.isfinite(found).all()
    assert found[2, 3, 60:].min() > 5
    assert np.abs(np.delete(found, 3, axis=1)).max() < 5
