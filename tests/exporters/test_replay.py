"""A recording played back over HTTP."""

from pathlib import Path

import numpy as np
import pytest

from exporters import recording, service
from exporters.recording import Recording
from exporters.replay import ReplaySource
from tests.exporters.conftest import TOKEN, Serving, until
from tests.exporters.series import samples, value
from tests.exporters.test_recording import START, table, written

STEPS = 20
SIGNALS = (
    "temperature_celsius",
    "utilization_ratio",
    "sm_clock_hertz",
    "nvlink_bytes_per_second",
    "memory_used_ratio",
    "throttle_power_ratio",
    "flux",
)


def recorded() -> Recording:
    """One node, two GPUs, 5 s apart. GPU 1 loses its clock after the first step; GPU 0 runs job `a` from step 10."""
    rows = STEPS * 2
    step, series = np.divmod(np.arange(rows), 2)
    values = np.tile(np.array([[0], [0.37], [1.98e9], [1.8e11], [0.25], [0.5], [0.1]], np.float32), rows)
    values[0] = 30 + step
    values[2, (series == 1) & (step > 0)] = np.nan
    return Recording(
        microseconds=START + step * 5_000_000,
        sources=tuple(recording.Series("node-01", gpu, "NVIDIA H100 80GB HBM3", "rack-1") for gpu in "01"),
        series=series,
        jobs=(("a", ""),),
        job=np.where((series == 0) & (step >= 10), 0, -1),
        signals=SIGNALS,
        values=values,
    )


class Clock:
    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


def at(source: ReplaySource, clock: Clock, seconds: float) -> str:
    clock.now = 100.0 + seconds
    source.advance()
    return source.page("node-01")


def test_known_columns_become_dcgm_in_its_units() -> None:
    page = ReplaySource(recorded()).page("node-01")
    expected = {
        "DCGM_FI_DEV_GPU_TEMP": 30,
        "DCGM_FI_DEV_GPU_UTIL": 37,
        "DCGM_FI_DEV_SM_CLOCK": 1980,
        "DCGM_FI_DEV_NVLINK_BANDWIDTH_TOTAL": 180_000,
    }
    assert {name: value(page, name, gpu="0") for name in expected} == expected
    used, free = (value(page, f"DCGM_FI_DEV_FB_{name}", gpu="0") or 0 for name in ("USED", "FREE"))
    assert used / (used + free) == 0.25


def test_unknown_columns_become_signals() -> None:
    page = ReplaySource(recorded()).page("node-01")
    found = samples(page, "stethos_signal")
    model = "NVIDIA H100 80GB HBM3"
    expected = [{"node": "node-01", "gpu": gpu, "model": model, "signal": "flux"} for gpu in "01"]
    assert [each.labels for each in found] == expected
    assert {each.value for each in found} == {0.1}


def test_time_passes_at_the_chosen_speed() -> None:
    clock = Clock()
    source = ReplaySource(recorded(), speed=10, monotonic=clock)
    assert value(at(source, clock, 0.0), "DCGM_FI_DEV_GPU_TEMP", gpu="1") == 30
    assert value(at(source, clock, 0.49), "DCGM_FI_DEV_GPU_TEMP", gpu="1") == 30
    assert value(at(source, clock, 0.51), "DCGM_FI_DEV_GPU_TEMP", gpu="1") == 31
    assert value(at(source, clock, 9.51), "DCGM_FI_DEV_GPU_TEMP", gpu="1") == 49


def test_null_is_an_absent_series() -> None:
    clock = Clock()
    source = ReplaySource(recorded(), monotonic=clock)
    page = at(source, clock, 5.0)
    assert value(page, "DCGM_FI_DEV_SM_CLOCK", gpu="0") == 1980
    assert value(page, "DCGM_FI_DEV_SM_CLOCK", gpu="1") is None


def test_jobs_come_and_go() -> None:
    clock = Clock()
    source = ReplaySource(recorded(), monotonic=clock)
    assert samples(at(source, clock, 0.0), "stethos_job_gpu_info") == []
    jobs = samples(at(source, clock, 50.0), "stethos_job_gpu_info")
    assert [(each.labels, each.value) for each in jobs] == [({"job_id": "a", "node": "node-01", "gpu": "0"}, 1)]


def test_shares_of_throttling_become_nanoseconds_that_add_up() -> None:
    clock = Clock()
    source = ReplaySource(recorded(), monotonic=clock)
    first = value(at(source, clock, 0.0), "DCGM_FI_DEV_POWER_VIOLATION", gpu="0")
    later = value(at(source, clock, 40.0), "DCGM_FI_DEV_POWER_VIOLATION", gpu="0")
    assert first is not None
    assert later is not None
    assert (later - first) / 1e9 == 20


def test_it_begins_again_or_ends() -> None:
    clock = Clock()
    forever, once = (ReplaySource(recorded(), loop=loop, monotonic=clock) for loop in (True, False))
    assert value(at(forever, clock, 101.0), "DCGM_FI_DEV_GPU_TEMP", gpu="0") == 30
    assert value(at(forever, clock, 196.0), "DCGM_FI_DEV_GPU_TEMP", gpu="0") == 49
    assert "gpu=" not in at(once, clock, 101.0)
    assert once.ended


def test_who_falls_silent_in_the_recording_falls_silent_here() -> None:
    whole = recorded()
    kept = (whole.series == 0) | (np.arange(STEPS * 2) < 10)
    partial = Recording(
        whole.microseconds[kept],
        whole.sources,
        whole.series[kept],
        whole.jobs,
        whole.job[kept],
        whole.signals,
        whole.values[:, kept],
    )
    clock = Clock()
    source = ReplaySource(partial, monotonic=clock)
    assert value(at(source, clock, 30.0), "DCGM_FI_DEV_GPU_TEMP", gpu="1") == 34
    assert value(at(source, clock, 35.0), "DCGM_FI_DEV_GPU_TEMP", gpu="1") is None
    assert value(at(source, clock, 35.0), "DCGM_FI_DEV_GPU_TEMP", gpu="0") == 37


def test_identity_is_stable() -> None:
    pages = [ReplaySource(recorded()).page("node-01") for _ in range(2)]
    uuids = [[each.labels["UUID"] for each in samples(page, "DCGM_FI_DEV_GPU_TEMP")] for page in pages]
    assert uuids[0] == uuids[1]
    assert len(set(uuids[0])) == 2


@pytest.mark.parametrize("path", ["/discovery", "/nodes/node-01/metrics"])
def test_over_http_at_high_speed(serving: Serving, tmp_path: Path, path: str) -> None:
    source = ReplaySource(recording.read(written(tmp_path, table())), speed=100.0, loop=False)
    client = serving(service.build(source, token=TOKEN, open_reads=True, title="replay"))
    if path == "/discovery":
        labels = client.get(path).json()[0]["labels"]
        assert labels == {"__metrics_path__": "/nodes/node-01/metrics", "node": "node-01", "rack": "rack-1"}
        return
    assert until(lambda: samples(client.get(path).text, "DCGM_FI_DEV_GPU_TEMP") == [])
    assert source.ended
    assert client.get("/readyz").status_code == 200
