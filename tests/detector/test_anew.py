"""A GPU's own past ends where its limit, driver or firmware became another, and nowhere else."""

from dataclasses import replace

import numpy as np
import pytest

from detector import anew, offsets, signals
from detector.offsets import Offsets
from detector.telemetry import UNKNOWN, Telemetry
from detector.window import Window

from .fleets import STEP, row, telemetry

NAN = np.nan


@pytest.mark.parametrize(
    ("readings", "steps"),
    [
        ([700, 700, 500, 500], [2]),
        ([700, NAN, NAN, 500], [3]),  # set while nobody heard it
        ([NAN, 700, 701, 700], []),
        ([700, NAN, 700, 700], []),  # a scrape that was missed
        ([700, 500, 700, 700], [1]),  # not yet at rest
        ([700, 690, *range(680, 500, -5), *[505] * 24, 500], [1, 62]),  # what creeps was not set again and again
    ],
)
def test_a_reading_that_moved_is_another_than_the_last_that_came(readings: list[float], steps: list[int]) -> None:
    planes = np.array([readings, [NAN] * len(readings)], np.float32)
    whole = anew.moved(planes, anew.nothing(2), 2.0)
    assert np.flatnonzero(whole[0]).tolist() == steps
    assert not whole[1].any()
    known = anew.nothing(2)
    piecemeal = [anew.moved(planes[:, step : step + 1], known, 2.0) for step in range(len(readings))]
    np.testing.assert_array_equal(np.concatenate(piecemeal, axis=1), whole)


def running(fleet: Telemetry, *changes: tuple[int, int, str]) -> Telemetry:
    """Driver a, on some GPUs from a step on another; not told of at a step here and there."""
    software = np.zeros(fleet.job.shape, np.int32)
    names = ["a"]
    for gpu, step, name in changes:
        names.append(name)
        software[gpu, step:] = len(names) - 1
    software[:, 7::10] = UNKNOWN
    return replace(fleet, software=software, releases=tuple(names))


def test_a_driver_that_is_not_told_of_for_a_while_is_still_the_same_and_another_one_is_not() -> None:
    fleet = running(telemetry(steps=60), (3, 27, "b"))
    begins = anew.beginnings(fleet)
    assert np.argwhere(begins).tolist() == [[3, 28]]  # at step 27 nobody tells
    past = anew.before(fleet)
    assert past[3].tolist() == [True] * 28 + [False] * 32
    assert past.sum() == 28
    assert fleet.software is not None
    assert {gpu.software for gpu in anew.labelled(fleet.gpus, fleet.software[:, :20], fleet.releases)} == {"a"}
    assert anew.labelled(fleet.gpus, fleet.software, fleet.releases)[3].software == "b"


def test_a_window_drops_the_past_of_whom_it_is_no_longer_true_and_of_nobody_else() -> None:
    fleet = running(telemetry(steps=60), (3, 40, "b"))
    window, at = Window(50, STEP), fleet.timestamps
    everyone, software = np.arange(len(fleet.gpus)), fleet.software
    assert software is not None
    for step in range(45):
        window.advance(at[step])
        window.include(fleet.signals, fleet.gpus)
        window.write("power_watts", everyone, np.full(len(everyone), at[step]), np.full(len(everyone), 100.0 + step))
        rows = everyone[software[:, step] != UNKNOWN]
        told = window.release(fleet.releases)[software[rows, step]]
        if 40 <= step < 43:  # of one more GPU there is another series beside that of the one before
            rows, told = np.append(rows, 5), np.append(told, window.release(["b"]))
        window.write_software(rows, told, np.full(len(rows), at[step]))
        assert window.begin_anew(1).tolist() == ([3] if step == 40 else [])
    power = window.telemetry().values[row("power_watts")]
    assert np.isnan(power[3, -45:-5]).all()
    assert not np.isnan(power[3, -5:]).any()
    assert not np.isnan(np.delete(power[:, -45:], 3, axis=0)).any()
    assert [gpu.software for gpu in window.gpus.values()][2:6] == ["a", "b", "a", "a"]
    window.forget({("node-01", "0")})
    window.advance(at[45])
    assert window.begin_anew(1).tolist() == []


def test_offsets_are_of_what_ran_then() -> None:
    gpus = tuple(replace(gpu, software="a") for gpu in telemetry(steps=2).gpus[:3])
    known = Offsets(
        tuple((gpu.node, gpu.gpu) for gpu in gpus), np.ones((3, 2, 3), np.float32), np.full((3, 2), 2.0), ("a", "a", "")
    )
    now = [replace(gpu, software=name) for gpu, name in zip(gpus, ("b", "", "b"), strict=True)]
    usual = known.usual(now, np.zeros((3, 1), np.int64))
    assert usual[:, :, 0].tolist() == [[0, 1, 1]] * 3  # who does not tell is taken for the same
    assert known.unit(now)[0, :, 0].tolist() == [1, 2, 2]
    assert offsets.merged([known, replace(known, software=("c",) * 3)]).software == ("c",) * 3


def test_what_restarts_is_what_the_signals_file_says() -> None:
    assert [query.signal.name for query in signals.load().queries if query.signal and query.signal.restarts] == [
        "power_limit_watts"
    ]
