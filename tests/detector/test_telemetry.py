import numpy as np

from detector.signals import Signal
from detector.telemetry import clean

NAN = np.nan


def cleaned(signal: Signal, *samples: float) -> list[float]:
    result: list[float] = clean((signal,), np.array([[samples]], np.float32))[0, 0].tolist()
    return result


def test_infinite_and_impossible_readings_count_as_absent() -> None:
    heat = Signal("temperature", range=(0, 150))
    np.testing.assert_array_equal(cleaned(heat, 40, np.inf, -np.inf, 151, -1, 150), [40, NAN, NAN, NAN, NAN, 150])


def test_a_counter_becomes_its_increase() -> None:
    np.testing.assert_array_equal(cleaned(Signal("errors", "counter"), 5, 5, 8), [NAN, 0, 3])


def test_after_a_reset_the_whole_total_is_new() -> None:
    np.testing.assert_array_equal(cleaned(Signal("errors", "counter"), 90, 4), [NAN, 4])


def test_an_increase_over_a_gap_is_not_known() -> None:
    np.testing.assert_array_equal(cleaned(Signal("errors", "counter"), 1, NAN, 7, 8), [NAN, NAN, NAN, 1])
