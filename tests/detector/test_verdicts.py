import numpy as np
import pytest

from detector import calibration, verdicts
from detector.calibration import HISTORY, HORIZONS, Thresholds
from detector.signals import Signal

from . import fleets

HEAT = Signal("temperature", direction="high", cause_high="cooling")
POWER = Signal("power", cause_high="inefficiency", cause_low="power_loss")
SIGNALS = (HEAT, POWER)
THRESHOLDS = Thresholds(np.full((2, 3), 2.0, np.float32))


def judged(heat: float, power: float) -> verdicts.Verdict | None:
    residuals = np.empty((2, 1, HISTORY), np.float32)
    residuals[0], residuals[1] = heat, power
    return fleets.judged(residuals, SIGNALS, THRESHOLDS)[0]


def test_the_score_is_the_worst_evidence_over_its_threshold() -> None:
    verdict = judged(3.0, -2.5)
    assert verdict is not None
    assert verdict.score == pytest.approx(1.5)
    assert verdict.cause == "cooling"


def test_contributions_are_shares_led_by_the_strongest() -> None:
    verdict = judged(4.0, -2.0)
    assert verdict is not None
    assert [name for name, _ in verdict.contributions] == ["temperature", "power"]
    assert sum(share for _, share in verdict.contributions) == pytest.approx(1.0)


@pytest.mark.parametrize(("power", "cause"), [(6.0, "inefficiency"), (-6.0, "power_loss")])
def test_the_cause_depends_on_the_sign(power: float, cause: str) -> None:
    verdict = judged(0.0, power)
    assert verdict is not None
    assert verdict.cause == cause


def test_a_healthy_gpu_has_no_cause() -> None:
    verdict = judged(1.0, 0.5)
    assert verdict is not None
    assert (verdict.score < 1, verdict.cause) == (True, "")


def test_without_any_residual_there_is_no_verdict() -> None:
    assert judged(np.nan, np.nan) is None


def test_a_signal_that_is_judged_twice_counts_once_by_the_worse() -> None:
    thresholds = Thresholds(np.full((2, 5), 2.0, np.float32))
    residuals = np.zeros((4, 1, HISTORY), np.float32)
    residuals[2], residuals[3] = 4.0, -3.0  # the second rows of heat and power
    verdict = fleets.judged(residuals, SIGNALS, thresholds)[0]
    assert verdict is not None
    assert verdict.score == pytest.approx(2.0)
    assert verdict.cause == "cooling"
    assert [name for name, _ in verdict.contributions] == ["temperature", "power"]
    assert fleets.judged(residuals[:, :0], SIGNALS, thresholds) == []


def test_the_newest_step_alone_is_judged_as_among_all() -> None:
    """With gaps, spikes and rows twice over, as a model's residuals have."""
    random = np.random.default_rng(5)
    signals = [Signal("a"), Signal("b", direction="high"), Signal("c", direction="low", scored=False)]
    residuals = random.normal(0, 2, (6, 20, HISTORY + 9)).astype(np.float32)
    residuals[random.random(residuals.shape) < 0.4] = np.nan
    thresholds = Thresholds(np.full((len(HORIZONS), 7), 0.7, np.float32))
    whole = verdicts.all_ratios(residuals, signals, thresholds)
    alone = verdicts.ratios(residuals[..., -HISTORY:], signals, thresholds)
    np.testing.assert_allclose(alone, whole[..., -1], rtol=1e-6)
    assert np.isfinite(alone).any()


NAMELESS = tuple(Signal(name, alone=False) for name in "abcd")
TOGETHER = Thresholds(np.array([[*[1e3] * 20, 0.5], [*[1e3] * 20, np.inf]], np.float32))


def test_where_there_are_habits_the_contributions_are_what_adds_up_to_the_score() -> None:
    residuals = np.zeros((20, 1, HISTORY), np.float32)
    residuals[:4] = 9.0  # the model's
    residuals[12:15, 0, -1] = 1.5, 0.5, 3.0  # the habits', which say nothing of d
    residuals[15] = np.nan
    residuals[3, 0, -min(HORIZONS) :] = 0.5, -1.5, 1.0, -1.0, 1.5, -0.5
    verdict = fleets.judged(residuals, NAMELESS, TOGETHER)[0]
    assert verdict is not None
    assert verdict.score == pytest.approx((1.5 + 0.5 + 3.0 + 1.0) / 4 / 0.5)
    assert verdict.cause == "c"
    assert [name for name, _ in verdict.contributions] == ["c", "a", "d"]
    assert [share for _, share in verdict.contributions] == pytest.approx([3.0 / 6, 1.5 / 6, 1.0 / 6])


def test_with_habits_too_the_newest_step_is_judged_as_among_all() -> None:
    random = np.random.default_rng(6)
    residuals = random.normal(0, 2, (20, 20, HISTORY + 9)).astype(np.float32)
    residuals[12:16] = np.abs(residuals[12:16])
    residuals[random.random(residuals.shape) < 0.4] = np.nan
    whole = verdicts.all_ratios(residuals, NAMELESS, TOGETHER)
    alone = verdicts.ratios(residuals[..., -HISTORY:], NAMELESS, TOGETHER)
    np.testing.assert_allclose(alone, whole[..., -1], rtol=1e-6)
    sizes = calibration.sizes(residuals[..., -HISTORY:], NAMELESS, 1)[..., 0]
    np.testing.assert_allclose(alone.max(axis=0), np.nanmean(sizes, axis=0) / 0.5, rtol=1e-5)


def test_the_cause_is_that_of_the_lowest_rank_then_of_the_strongest_evidence() -> None:
    random = np.random.default_rng(9)
    signals = [
        Signal("heat", direction="high", cause_high="cooling", rank_high=-3),
        Signal("clocks", direction="low", cause_low="clocks", rank_low=-1),
        Signal("power", cause_high="inefficiency", cause_low="power_loss", rank_high=-3, rank_low=1),
        Signal("work"),
    ]
    residuals = random.normal(0, 2, (8, 300, HISTORY)).astype(np.float32)
    residuals[random.random(residuals.shape) < 0.3] = np.nan
    residuals[random.random((8, 300)) < 0.2] = np.nan
    thresholds = Thresholds(np.array([*[0.4] * 8, np.inf], np.float32)[None].repeat(len(HORIZONS), axis=0))
    ratios = verdicts.ratios(residuals, signals, thresholds)
    alone = np.array([verdicts.ratios(_only(residuals, row), signals, thresholds).max(axis=0) for row in range(8)])
    recent = np.nansum(residuals[..., -min(HORIZONS) :], axis=-1)
    for gpu, cause in enumerate(verdicts.causes_of(residuals, signals, thresholds)):
        counts = [place for place in range(4) if ratios[place, gpu] >= min(0.5, ratios[:, gpu].max())]
        rows = {place: max((place, place + 4), key=lambda row: alone[row, gpu]) for place in counts}
        ups = {place: recent[row, gpu] for place, row in rows.items()}
        assert cause == min((signals[p].rank(up), -ratios[p, gpu], signals[p].cause(up)) for p, up in ups.items())[2]


def _only(residuals: np.ndarray, row: int) -> np.ndarray:
    kept = np.full_like(residuals, np.nan)
    kept[row] = residuals[row]
    return kept
