"""What is judged on a card is what is judged without one; without a card, by the same code on the processor."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from detector import bench_compute, bench_fleet, registry, signals, training
from detector.batches import peers
from detector.calibration import HISTORY
from detector.card.device import DeviceError, chosen
from detector.card.judge import CardJudge
from detector.fleet import LENGTH, Fleet, Wishes
from detector.habits import Habits
from detector.promql import Prometheus
from detector.registry import Card
from detector.residuals import Judge, ModelJudge, Residuals
from detector.signals import Signal
from detector.telemetry import IDLE, Telemetry, clean
from detector.training import Settings
from detector.window import Window

from .conftest import Serve
from .fleets import START, STEP, row, telemetry

STATE = ("utilization_ratio", "power_watts")
LIVE = 61  # steps before the one that is judged live


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request: pytest.FixtureRequest) -> torch.device:
    try:
        return chosen(request.param)
    except DeviceError as error:
        pytest.skip(str(error))


def with_islands(fleet: Telemetry) -> Telemetry:
    """NVLink joins four GPUs at a time."""
    return replace(fleet, gpus=tuple(replace(gpu, island=f"{gpu.node}/{int(gpu.gpu) // 4}") for gpu in fleet.gpus))


@pytest.fixture(scope="module")
def trained() -> tuple[ModelJudge, Card]:
    return training.train([with_islands(telemetry(400, seed=7))], STATE, Settings(1.0, 15, 0), lambda *_: None)


@pytest.fixture(scope="module")
def model(trained: tuple[ModelJudge, Card]) -> ModelJudge:
    assert "island" in trained[0].network.kinds
    return trained[0]


@pytest.fixture(scope="module")
def eventful() -> Telemetry:
    """Gaps, an infinity, a counter's reset, a newcomer, a stuck reading, a silent GPU, jobs that change, two models."""
    fleet = telemetry(150, seed=3, nodes=5)
    values = fleet.values
    values[np.random.default_rng(0).random(values.shape) < 0.05] = np.nan
    values[row("power_watts"), 2, 70] = np.inf
    values[row("ecc_corrected_total"), 3, 60:], values[row("ecc_corrected_total"), 3, 100:] = 7, 2
    values[:, 33, :90] = np.nan
    values[row("temperature_celsius"), 21, 120:] = 55
    values[:, 6, 128:] = np.nan
    fleet.job[:8, 80:] = np.where(fleet.job[:8, 80:] == IDLE, IDLE, 1)
    fleet.job[20:29, 100:] = 2
    gpus = tuple(
        replace(gpu, model="A100" if place % 8 < 4 and place >= 24 else gpu.model)
        for place, gpu in enumerate(fleet.gpus)
    )
    return with_islands(replace(fleet, gpus=gpus, jobs=("job-a", "job-b", "job-c")))


def nameless(fleet: Telemetry) -> Telemetry:
    """Nobody names a job, and two of them pause in step."""
    values = fleet.values.copy()
    for ranks, period in ((slice(0, 8), 7), (slice(8, 16), 9)):
        values[:3, ranks, ::period] *= 0.3
    return replace(fleet, values=values, job=np.full_like(fleet.job, IDLE))


def assert_same(found: Residuals, expected: Residuals, device: torch.device) -> None:
    # A card adds up a product of matrices in another order, and a residual is over a scale of as little as exp(-4).
    tolerance = 1e-5 if device.type == "cpu" else 1e-3
    for one, other in ((found.own, expected.own), (found.shared, expected.shared)):
        assert (~np.isnan(other)).mean() > 0.05
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("first", [0, LIVE, 140])
def test_residuals_are_the_models(model: ModelJudge, eventful: Telemetry, device: torch.device, first: int) -> None:
    assert_same(CardJudge(model, device).residuals(eventful, first), model.residuals(eventful, first), device)


def test_so_they_are_where_no_job_is_named(model: ModelJudge, eventful: Telemetry, device: torch.device) -> None:
    fleet = nameless(eventful)
    graph = peers(fleet, clean(fleet.signals, fleet.values), STATE, LIVE)[1]
    assert any((step["job"].of >= 0).any() for step in graph)
    assert_same(CardJudge(model, device).residuals(fleet, LIVE), model.residuals(fleet, LIVE), device)


@pytest.mark.parametrize("edges", [frozenset({"node", "load"}), frozenset({"job"})])
def test_and_without_some_kinds_of_peers(
    model: ModelJudge, eventful: Telemetry, device: torch.device, edges: frozenset[str]
) -> None:
    fleet = replace(eventful, edges=edges)
    assert_same(CardJudge(model, device).residuals(fleet, 140), model.residuals(fleet, 140), device)


def test_and_where_signals_are_missing_or_nothing_tells_busy_from_idle(
    model: ModelJudge, eventful: Telemetry, device: torch.device
) -> None:
    fewer = replace(eventful, signals=eventful.signals[1:3], values=eventful.values[1:3])
    for fleet in (fewer, replace(fewer, values=fewer.values[:1], signals=fewer.signals[:1])):
        assert_same(CardJudge(model, device).residuals(fleet, 140), model.residuals(fleet, 140), device)


def test_undescribed_signals_keep_their_habits(device: torch.device) -> None:
    random = np.random.default_rng(1)
    fleet = telemetry(400, seed=4, nodes=1)
    signals = tuple(Signal(f"channel-{place}", alone=False) for place in range(3))
    values = np.cumsum(random.standard_normal((3, 8, 400)), axis=2).astype(np.float32)
    foreign = replace(fleet, signals=signals, values=values)
    model = training.train([foreign], ("", ""), Settings(1.0, 5, 0), lambda *_: None)[0]
    assert isinstance(model.habits, Habits)
    found = CardJudge(model, device).residuals(foreign, 380)
    assert found.own.shape == (4 * 3, 8, 20)
    assert_same(found, model.residuals(foreign, 380), device)


def report(window: Window, fleet: Telemetry, steps: range) -> None:
    """What the fleet reads at these steps, as the service writes it."""
    window.advance(float(fleet.timestamps[steps[-1]]))
    window.include(fleet.signals, [gpu for gpu in fleet.gpus if (gpu.node, gpu.gpu) not in window.gpus])
    rows = window.rows((gpu.node, gpu.gpu) for gpu in fleet.gpus)
    names = window.number([(name, "") for name in fleet.jobs])
    for step in steps:
        at = np.full(len(rows), fleet.timestamps[step])
        for signal, plane in zip(fleet.signals, fleet.values, strict=True):
            window.write(signal.name, rows, at, plane[:, step].astype(np.float64))
        busy = fleet.job[:, step] != IDLE
        window.write_job(rows[busy], names[fleet.job[busy, step]], at[busy])


def test_the_windows_copy_is_the_window_whatever_happens_to_it(
    model: ModelJudge, eventful: Telemetry, device: torch.device
) -> None:
    """Half of a fleet, then all of it; a late sample, a limit set anew, a GPU that leaves, the end of the arrays."""
    length = LIVE + HISTORY
    judge, window = CardJudge(model, device), Window(length, STEP)
    restarting = tuple(replace(signal, restarts=signal.name == "sm_clock_hertz") for signal in eventful.signals)
    eventful = replace(eventful, signals=restarting)
    half = replace(eventful, gpus=eventful.gpus[:20], values=eventful.values[:, :20], job=eventful.job[:20])

    def judged(new: int = 1) -> int:
        seen = window.telemetry().newest(LIVE + new)
        assert_same(judge.residuals(seen, LIVE), model.residuals(seen, LIVE), device)
        return judge.uploaded

    report(window, half, range(90))
    whole = judged(new=HISTORY)
    assert whole == 4 * (5 + 1) * 20 * length
    assert judged() == 0
    for step in range(90, 95):
        report(window, half, range(step, step + 1))
        assert judged() == whole // length
    late = np.array([3]), eventful.timestamps[[92]], np.array([80.0])
    window.write("temperature_celsius", *late)
    assert judged() == whole // length
    report(window, eventful, range(95, 96))
    assert judged() == 2 * whole * (LIVE + 1) // length
    report(window, eventful, range(96, 115))
    judged()
    window.begin_anew(24)
    window.forget({("node-01", "2")})
    judged()
    begun: list[int] = []
    for step in range(117, 150, 4):
        report(window, eventful, range(step - 2, step + 1))
        begun.append(len(window.begin_anew(3)))
        judged()
    assert sum(begun) > 0


def test_the_service_says_the_same(
    prometheus: Serve, trained: tuple[ModelJudge, Card], eventful: Telemetry, device: torch.device, tmp_path: Path
) -> None:
    registry.write(tmp_path, *trained)
    judges: list[Judge] = []

    def placed(model: ModelJudge) -> Judge:
        judges.append(CardJudge(model, device))
        return judges[-1]

    with Prometheus(prometheus(eventful)) as client:
        fleets = [Fleet(client, signals.load(), tmp_path, STEP, wishes) for wishes in (Wishes(), Wishes(placed=placed))]
        for step in (110, 111, 118):
            one, other = (fleet.tick(START + step * STEP + 1.0) for fleet in fleets)
            np.testing.assert_allclose(other.verdicts.score, one.verdicts.score, rtol=1e-4, atol=1e-4)
            assert other.groups == pytest.approx(dict(one.groups), abs=1e-4)
            assert one.basis == other.basis
    assert len(judges) == 1
    assert fleets[1].tally.gpu_hours == fleets[0].tally.gpu_hours > 0


def test_the_benchmark_holds_one_against_the_other(model: ModelJudge, device: torch.device) -> None:
    measured = bench_compute.measure(model, bench_fleet.telemetry(64, 12, LENGTH + 2, STEP), device, ticks=1)
    assert measured.apart < (1e-5 if device.type == "cpu" else 1e-3)
    assert measured.uploaded == 4 * (5 + 1) * 64
    assert all(measured.device[stage] > 0 for stage in bench_compute.STAGES)
    assert bench_compute.table(measured, "this").startswith("64 GPUs: this\n")


def test_a_device_that_cannot_be_used_is_named() -> None:
    assert chosen("cpu") == torch.device("cpu")
    for name in ("gpu", "cuda:x", "cuda:", "cpu:0", ""):
        with pytest.raises(DeviceError, match=f"device '{name}' is none of cpu, cuda, cuda:N"):
            chosen(name)
    with pytest.raises(DeviceError, match=r"device cuda:999 (needs a torch built for CUDA|is not there)"):
        chosen("cuda:999")
