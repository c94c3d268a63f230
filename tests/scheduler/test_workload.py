"""The generator's rate and its presets, as the API takes them."""

import pytest

from scheduler.workload import PRESETS

from .processes import Scheduler


def test_a_preset_sets_the_rate_that_it_is_told_with(scheduler: Scheduler) -> None:
    presets = scheduler.get("/v1/workload")["presets"]
    assert presets == {"Off": 0, "Light": 0.5, "Normal": 2, "High": 10, "Extreme": 25, "MAXIMUM": 50}
    for name in ("Light", "Off"):
        answer = scheduler.http.put("/v1/workload", json={"preset": name})
        assert answer.json() == {"jobs_per_minute": presets[name], "presets": presets}
        assert scheduler.get("/v1/workload")["jobs_per_minute"] == presets[name]
        assert scheduler.get("/v1/fleet")["workload"] == {"jobs_per_minute": presets[name]}


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ('{"jobs_per_minute": NaN}', "nan"),
        ('{"jobs_per_minute": Infinity}', "inf"),
        ('{"jobs_per_minute": -1}', "-1"),
        ('{"jobs_per_minute": 50.1}', "50.1"),
        ('{"jobs_per_minute": 0.05}', "a rate is 0 (off) or 0.1 to 50 jobs per minute, not 0.05"),
        ('{"jobs_per_minute": "2"}', "'2'"),
        ('{"jobs_per_minute": true}', "True"),
        ('{"jobs_per_minute": null}', "either jobs_per_minute or preset is required, not neither"),
        ("{}", "either jobs_per_minute or preset is required, not neither"),
        ('{"preset": 2}', "2"),
        ('{"preset": "Off", "jobs_per_minute": 2}', "not both 2 and 'Off'"),
        ('{"preset": "Off", "types": {}}', "/types"),
    ],
)
def test_a_rate_that_there_is_not_is_refused(scheduler: Scheduler, body: str, said: str) -> None:
    before = scheduler.get("/v1/workload")
    answer = scheduler.http.put("/v1/workload", content=body)
    assert (answer.status_code, said in answer.json()["detail"]) == (422, True), answer.text
    assert scheduler.get("/v1/workload") == before


def test_an_unknown_preset_is_told_with_those_that_there_are(scheduler: Scheduler) -> None:
    detail = scheduler.http.put("/v1/workload", json={"preset": "Turbo"}).json()["detail"]
    assert "Turbo" in detail
    assert all(name in detail for name in PRESETS)
