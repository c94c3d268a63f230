import numpy as np
import pytest
from numpy.typing import NDArray

from detector.calibration import (
    BLOCK,
    HISTORY,
    HORIZONS,
    Thresholds,
    block_maxima,
    calibrate,
    chance,
    evidence,
    incidents,
    rough,
)
from detector.habits import MOST
from detector.signals import Signal
from detector.telemetry import Floats

from . import fleets

BOTH, HIGH, LOW = Signal("both"), Signal("high", direction="high"), Signal("low", direction="low")
SHORT, LONG = HORIZONS


def constant(value: float, steps: int = 60) -> np.ndarray[tuple[int, int, int], np.dtype[np.float32]]:
    return np.full((1, 1, steps), value, np.float32)


@pytest.mark.parametrize(("signal", "sign"), [(BOTH, 1), (HIGH, -1), (LOW, 1)])
def test_only_the_bad_direction_is_evidence(signal: Signal, sign: int) -> None:
    assert evidence(constant(-2.0), [signal])[0, 0, 0, -1] == pytest.approx(2.0 * sign)


def test_noise_cancels_and_a_lasting_shift_does_not() -> None:
    wobble = np.tile(np.array([3.0, -3.0], np.float32), 30)[None, None]
    assert evidence(wobble, [BOTH])[1, 0, 0, -1] == pytest.approx(0.0)
    assert evidence(wobble + 1, [BOTH])[1, 0, 0, -1] == pytest.approx(1.0)


def test_a_mean_over_less_than_half_its_horizon_is_no_opinion() -> None:
    sparse = constant(1.0)
    sparse[..., -SHORT : -SHORT // 2 + 1] = np.nan
    assert np.isnan(evidence(sparse, [BOTH])[0, 0, 0, -1])


def test_one_wild_sample_stays_below_the_threshold() -> None:
    thresholds = Thresholds(np.ones((len(HORIZONS), 2), np.float32))
    spike = constant(0.0)
    spike[..., -1] = 1e6
    assert evidence(spike, [BOTH], thresholds.spike)[:, 0, 0, -1].max() < 1.0


def test_the_budget_is_kept_on_fresh_noise_and_a_tighter_one_is_stricter() -> None:
    random = np.random.default_rng(5)

    def noise() -> np.ndarray[tuple[int, int, int], np.dtype[np.float32]]:
        # Heavier than Gaussian and correlated in time, as residuals are.
        raw = random.standard_t(6, (1, 200, 40 * BLOCK)).astype(np.float32)
        return raw + 0.5 * np.roll(raw, 1, axis=-1)

    hours = 200 * 40 * BLOCK * 5.0 / 3600
    budget = 100.0  # alarms per 1,000 GPU-hours, so that there are enough to count
    maxima = block_maxima(evidence(noise(), [BOTH]))
    loose, strict = (calibrate(maxima, [BOTH], chance(each, 5.0)) for each in (budget, budget / 100))
    assert (strict.values[:, 0] > loose.values[:, 0]).all()

    found = evidence(noise(), [BOTH], loose.spike) / loose.values[:, :, None, None]
    blocks = np.nan_to_num(found, nan=0.0).max(axis=(0, 1))[:, : 40 * BLOCK].reshape(200, 40, BLOCK)
    alarms = int((blocks.max(axis=-1) >= 1).sum())
    expected = budget * hours / 1000
    # Tails are believed to be no lighter than exponential, so lighter ones spend less than the budget.
    assert 0 < alarms <= 1.5 * expected


def test_what_one_gpu_alone_has_shown_is_less_known() -> None:
    random = np.random.default_rng(6)
    maxima = random.exponential(0.3, (len(HORIZONS), 2, 40 * 100)).astype(np.float32)
    bearers = np.repeat(np.arange(40), 100)

    def raised(found: np.ndarray[tuple[int, int, int], np.dtype[np.float32]]) -> float:
        known, all_alike = (calibrate(found, [BOTH], 1e-5, bearers=each).values[:, 0] for each in (bearers, None))
        return float((known / all_alike).min())

    assert raised(maxima) == pytest.approx(1.0, abs=0.05)
    assert raised(np.sort(maxima, axis=-1)) > 1.2  # the same blocks, the largest of them of a few GPUs


def test_a_signal_that_is_only_an_input_never_reaches_its_threshold() -> None:
    unscored = [Signal("input", scored=False)]
    thresholds = calibrate(block_maxima(evidence(constant(1.0, 2 * BLOCK), unscored)), unscored, 1e-4)
    assert np.isinf(thresholds.values[:, 0]).all()


def test_what_moves_every_signal_a_little_shows_in_all_of_them_together() -> None:
    signals = [Signal("a"), Signal("b"), Signal("input", scored=False)]
    residuals = np.full((3, 1, 60), 0.5, np.float32)
    residuals[1] *= -1
    residuals[2] = 100
    assert evidence(residuals, signals)[0, -1, 0, -1] == pytest.approx(0.5)


def test_faults_in_the_history_do_not_set_the_thresholds() -> None:
    random = np.random.default_rng(8)
    healthy = random.standard_normal((1, 100, 20 * BLOCK)).astype(np.float32)
    history = healthy.copy()
    history[:, :8, 3 * BLOCK : 5 * BLOCK] += 4  # 16 of 2,000 blocks
    expected = calibrate(block_maxima(evidence(healthy, [BOTH])), [BOTH], 1e-5)
    found = evidence(history, [BOTH])
    maxima = block_maxima(found)
    wrong = incidents(found, rough(maxima, [BOTH], 1e-5))
    assert 16 <= wrong.sum() <= 32
    cleaned = calibrate(maxima[..., ~wrong], [BOTH], 1e-5)
    np.testing.assert_allclose(cleaned.values, expected.values, rtol=0.15)
    assert (calibrate(maxima, [BOTH], 1e-5).values > 1.5 * expected.values).any()


def test_signals_that_nobody_described_alarm_only_together_and_share_the_blame() -> None:
    signals = [Signal("a", alone=False), Signal("b", alone=False)]
    noise = np.random.default_rng(9).standard_normal((2, 50, 20 * BLOCK)).astype(np.float32)
    thresholds = calibrate(block_maxima(evidence(noise, signals)), signals, 1e-4)
    wrong = np.zeros((2, 1, HISTORY), np.float32)
    wrong[0] = 5.0
    verdict = fleets.judged(wrong, signals, thresholds)[0]
    assert verdict is not None
    assert verdict.score > 1
    name, share = verdict.contributions[0]
    assert name == "a"
    assert share == pytest.approx(1.0)


def test_whatever_the_history_was_like_signals_that_leave_their_habits_entirely_are_an_alarm() -> None:
    signals = [Signal("a", alone=False), Signal("b", alone=False)]
    residuals = np.zeros((10, 20, 4 * BLOCK), np.float32)
    residuals[6:8] = MOST
    found = evidence(residuals, signals)
    assert found[0, -1].max() == MOST
    assert calibrate(block_maxima(found), signals, 1e-4).values[0, -1] < MOST


def test_few_gpus_with_many_peaks_are_few_witnesses_but_not_fewer_than_four() -> None:
    random = np.random.default_rng(12)
    signals, bearers = [Signal("a", direction="high")], np.repeat(np.arange(50), 40)
    level = random.exponential(0.3, (len(HORIZONS), 2, len(bearers))).astype(np.float32)
    one = np.where(bearers == 7, 4 * level, level).astype(np.float32)

    def threshold(maxima: Floats, of: NDArray[np.int64]) -> float:
        return float(calibrate(maxima, signals, 1e-4, bearers=of).values[0, 0])

    everybody = np.arange(len(bearers))
    assert threshold(level, bearers) == pytest.approx(threshold(level, everybody), rel=0.15)
    alone = threshold(one, bearers) / threshold(one, everybody)
    assert 1.2 < alone < (1 + 1.645 / 2) ** 2  # once for the signal, once for the level


def test_a_budget_of_more_than_one_alarm_a_block_is_the_loosest_there_is() -> None:
    noise = np.random.default_rng(6).standard_normal((1, 20, 20 * BLOCK)).astype(np.float32)
    maxima = block_maxima(evidence(3 * noise, [BOTH]))
    loose, looser = (calibrate(maxima, [BOTH], each) for each in (1.0, 3.1))
    np.testing.assert_array_equal(loose.values, looser.values)
    assert (looser.values <= calibrate(maxima, [BOTH], 0.01).values).all()


def test_what_no_history_has_is_not_judged() -> None:
    nobody = block_maxima(evidence(np.zeros((1, 0, 4 * BLOCK), np.float32), [BOTH]))
    assert np.isnan(calibrate(nobody, [BOTH], 1e-4).values[:, 0]).all()
