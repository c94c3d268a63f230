"""What is no fault and looks like one: a job's phases, bursts, stalls, and air that warms by day."""

from dataclasses import dataclass

import numpy as np
import pytest

from exporters.synthetic.air import Air
from exporters.synthetic.arrays import Floats
from exporters.synthetic.workload import Demand, Workload

HOUR = 3600


@dataclass
class Run:
    """A job on two GPUs, second by second."""

    workload: Workload
    slot: int
    demands: list[Demand]

    def __getitem__(self, field: str) -> Floats:
        both = np.array([getattr(each, field) for each in self.demands])
        assert (both[:, 0] == both[:, 1]).all()  # all ranks do it together
        return np.asarray(both[:, 0])


def run(kind: str, seconds: int, seed: int = 7, stalled: int = 0) -> Run:
    workload, rng = Workload(), np.random.default_rng(seed)
    slot = workload.open(kind, 1.0, 1.0, rng)
    made = Run(workload, slot, [])
    for second in range(seconds):
        if stalled and second == stalled:
            workload.slots.stall[slot] = 60.0
        workload.step(1.0, rng)
        made.demands.append(workload.demand(np.array([slot, slot]), np.full(2, 2.0)))
    return made


@pytest.fixture(scope="module")
def training() -> Run:
    return run("training", HOUR)


def test_a_job_loads_before_it_works(training: Run) -> None:
    loading = int(training.workload.slots.loading[training.slot])
    assert 15 <= loading <= 60
    assert (training["pcie_rx"][: loading - 1] == 0.3).all()
    assert (training["utilization"][: loading - 1] < 0.1).all()
    assert (np.diff(training["memory"][: loading - 1]) > 0).all()
    assert training["utilization"][loading + 2] > 0.7
    assert len(set(training["memory"][loading + 1 :])) == 1


def test_a_job_saves_and_evaluates_now_and_then(training: Run) -> None:
    saving, busy = training["pcie_tx"] == 0.25, training["utilization"]
    begins = np.flatnonzero(np.diff(saving.astype(int)) == 1) + 1
    assert len(begins) >= 2
    assert (busy[saving] < 0.1).all()
    for begin in begins[:-1]:
        after = begin + int(training.workload.slots.checkpoint_length[training.slot]) + 5
        before = begin - 10
        assert training["nvlink"][after] < 0.2 * training["nvlink"][before]
        assert 0.4 < training["tensor"][after] / training["tensor"][before] < 0.8
        assert busy[after] > 0.7


def test_inference_comes_in_bursts(training: Run) -> None:
    def spread(job: Run) -> float:
        busy = job["utilization"][90:]
        return float(np.std(busy[busy > 0.1]))

    assert spread(run("inference", 1200)) > 3 * spread(run("matrix", 1200))


def test_a_job_may_stall_as_a_whole() -> None:
    usual, stalled = run("matrix", 400), run("matrix", 400, stalled=200)
    assert stalled["utilization"][210] == pytest.approx(0.15 * usual["utilization"][210])
    assert stalled["utilization"][300] == usual["utilization"][300]


def test_a_day_warms_all_racks_and_each_a_little_differently() -> None:
    air, rng = Air(), np.random.default_rng(7)
    air.ensure(3, rng)
    hours = []
    for hour in range(48):
        air.step(HOUR, rng)
        hours.append(air.inlet_celsius(hour * HOUR))
    racks = np.array(hours)
    afternoon, night = (np.isin(np.arange(48) % 24, each) for each in ((13, 14, 15, 16, 17), (1, 2, 3, 4, 5)))
    assert (racks[afternoon].mean(axis=0) > racks[night].mean(axis=0) + 1).all()
    assert len(set(racks.mean(axis=0).round(3))) == 3
    assert ((racks > 18) & (racks < 30)).all()
