"""The past of a fleet that is larger than Prometheus gives out at once."""

from dataclasses import replace

import numpy as np
import pytest

from detector import history, signals
from detector.promql import Prometheus, PrometheusError

from .conftest import Serve
from .fleets import START, STEP, telemetry


def test_a_stretch_of_more_samples_than_prometheus_may_load_is_read_in_pieces(prometheus: Serve) -> None:
    fleet = telemetry(400, nodes=2)
    url = prometheus(fleet, "--query.max-samples=1000")
    told: list[float] = []
    with Prometheus(url) as client:
        with pytest.raises(PrometheusError, match="too many samples"):
            client.range("gpu:power:watts", START, START + 399 * STEP, STEP)
        back = history.read(client, signals.load(), START, START + 399 * STEP, STEP, progress=told.append)
    assert told == sorted(told)
    assert len(told) > 400 * 16 / 1000
    assert told[-1] == 1
    order = [back.gpus.index(gpu) for gpu in fleet.gpus]
    names = [signal.name for signal in back.signals]
    for signal, plane in zip(fleet.signals, fleet.values, strict=True):
        np.testing.assert_array_equal(back.values[names.index(signal.name)][order], plane)
    np.testing.assert_array_equal(back.job[order] >= 0, fleet.job >= 0)


def test_a_single_step_that_is_too_much_is_told(prometheus: Serve) -> None:
    stretch = START, START + 19 * STEP, STEP
    with (
        Prometheus(prometheus(telemetry(20, nodes=2), "--query.max-samples=10")) as client,
        pytest.raises(PrometheusError, match="too many samples"),
    ):
        history.read(client, signals.load(), *stretch)


def test_a_past_without_one_of_its_signals_is_not_learned_from(prometheus: Serve) -> None:
    wanted = signals.load()
    typo = replace(wanted, queries=(*wanted.queries[1:], replace(wanted.queries[0], promql="sum by (")))
    with (
        Prometheus(prometheus(telemetry(20, nodes=1))) as client,
        pytest.raises(PrometheusError, match=r"refuses 'max by .*sum by \("),
    ):
        history.read(client, typo, START, START + 19 * STEP, STEP)
