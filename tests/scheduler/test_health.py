import json
from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from scheduler.clock import now
from scheduler.health import Health, HealthUnavailableError, Reading, Thresholds, Verdict, judge, parse, parse_why

LIMITS = Thresholds()


def after(scores: Sequence[float | None], step: float = 5.0, limits: Thresholds = LIMITS) -> list[bool]:
    """Whether the GPU is blocked after each score, `step` seconds apart."""
    verdict, blocked = Verdict(), []
    for number, score in enumerate(scores):
        verdict = judge(verdict, score, number * step, limits)
        blocked.append(verdict.blocked)
    return blocked


def test_two_of_three_bad_readings_block() -> None:
    assert after([0.2, 0.99, 1.0, 1.0]) == [False, False, False, True]
    assert after([1.0, 0.2, 1.0]) == [False, False, True]
    assert after([1.0, 0.2, 0.2, 1.0]) == [False] * 4


def test_a_score_of_two_blocks_at_once() -> None:
    assert after([0.2, 2.0]) == [False, True]


def test_no_opinion_is_no_bad_reading() -> None:
    assert after([1.0, None, None, 1.0]) == [False] * 4


def test_a_gpu_is_free_again_after_twenty_seconds_under_the_clear_threshold() -> None:
    assert after([2.2, 0.6, 0.6, 0.6, 0.6, 0.6]) == [True, True, True, True, True, False]


def test_between_the_thresholds_nothing_changes() -> None:
    assert after([0.9] * 10) == [False] * 10
    assert after([2.5] + [0.8] * 10) == [True] * 11


def test_a_relapse_starts_the_wait_anew() -> None:
    assert after([2.2, 0.6, 0.6, 0.6, 0.8, 0.6, 0.6, 0.6, 0.6, 0.6])[-2:] == [True, False]


def test_silence_blocks_nothing_and_is_no_recovery() -> None:
    assert after([None] * 5) == [False] * 5
    assert after([2.2] + [None] * 100) == [True] * 101


def test_silence_is_forgotten_in_the_end() -> None:
    assert after([2.2, None, None, None], step=600.0) == [True, True, True, False]


def test_silence_does_not_count_as_time_under_the_threshold() -> None:
    assert after([2.2, 0.1, None, None, None, None, None, 0.1]) == [True] * 8


@given(st.lists(st.none() | st.floats(0, 3), max_size=60))
def test_a_gpu_is_never_free_right_after_two_bad_scores(scores: list[float | None]) -> None:
    blocked = after(scores)
    for place in range(1, len(scores)):
        bad = all(score is not None and score >= LIMITS.block for score in scores[place - 1 : place + 1])
        assert blocked[place] or not bad


def test_thresholds_must_leave_a_gap() -> None:
    with pytest.raises(ValueError, match=r"the clear threshold 1 must be under the block threshold 1"):
        Thresholds(block=1.0, clear=1.0)


def test_no_more_readings_can_confirm_than_are_looked_at() -> None:
    with pytest.raises(ValueError, match=r"4 of 3 readings cannot confirm a bad score"):
        Thresholds(confirm=4)


def answer(*series: tuple[dict[str, str], str]) -> bytes:
    result = [{"metric": labels, "value": [1000.0, value]} for labels, value in series]
    return json.dumps({"status": "success", "data": {"resultType": "vector", "result": result}}).encode()


def pair(node: str, gpu: str, score: str, at: str) -> list[tuple[dict[str, str], str]]:
    labels = {"node": node, "gpu": gpu}
    return [({**labels, "what": "score"}, score), ({**labels, "what": "timestamp"}, at)]


def test_a_score_comes_with_the_age_of_its_sample() -> None:
    assert parse(answer(*pair("n", "3", "0.5", "996.5")), 30) == {("n", 3): Health(0.5, 3.5)}


@pytest.mark.parametrize(
    "series",
    [
        pair("n", "0", "0.5", "969"),  # stale
        pair("n", "0", "NaN", "999"),
        pair("n", "0", "+Inf", "999"),
        pair("n", "²", "0.5", "999"),
        pair("n", "9" * 5000, "0.5", "999"),
        pair("n", "MIG-1", "0.5", "999"),
        pair("", "0", "0.5", "999"),
        pair("n", "0", "0.5", "999")[:1],
    ],
)
def test_what_is_no_opinion_is_left_out(series: list[tuple[dict[str, str], str]]) -> None:
    assert parse(answer(*series), 30) == {}


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"<html>",
        b'{"status": "success"}',
        b'{"status":"success","data":{"result":[1]}}',
        answer(*pair("n", "0", "high", "999")),
    ],
)
def test_another_answer_is_no_reading(text: bytes) -> None:
    with pytest.raises(HealthUnavailableError):
        parse(text, 30)


def test_a_reading_grows_old() -> None:
    reading = Reading("fresh", now() - 25, {("n", 0): Health(0.5, 1.0), ("n", 1): Health(0.5, 10.0)})
    young = reading.at(("n", 0), 30)
    assert young is not None
    assert young.age == pytest.approx(26, abs=0.5)
    assert reading.at(("n", 1), 30) is None
    assert reading.at(("n", 2), 30) is None


def test_the_reasons_of_a_score_are_read_the_largest_first() -> None:
    place = {"node": "n", "gpu": "3"}
    series = [
        {"metric": place | {"signal": "power_watts"}, "value": [10.0, "0.2"]},
        {"metric": place | {"signal": "sm_clock_hertz"}, "value": [10.0, "0.7"]},
        {"metric": place | {"signal": "odd"}, "value": [10.0, "NaN"]},
        {"metric": place | {"cause": "clock_held_down"}, "value": [10.0, "1"]},
        {"metric": {"node": "n", "gpu": "x", "signal": "power_watts"}, "value": [10.0, "1"]},
    ]
    found = parse_why(json.dumps({"status": "success", "data": {"result": series}}).encode())
    assert list(found) == [("n", 3)]
    assert found["n", 3].cause == "clock_held_down"
    assert found["n", 3].contributions == (("sm_clock_hertz", 0.7), ("power_watts", 0.2))
    with pytest.raises(HealthUnavailableError):
        parse_why(b"<html>")
