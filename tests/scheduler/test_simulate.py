"""Traces replayed: small ones, written here in the formats of the published."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from scheduler.__main__ import main
from scheduler.placement.policies import POLICIES, BestFit, Stethos
from scheduler.simulate import faults, health, packing, trace
from scheduler.simulate.faults import Detector, Fault
from scheduler.simulate.packing import Estimate

NODES = "sn,cpu_milli,memory_mib,gpu,model\n" + "".join(f"n{row},64000,262144,4,T4\n" for row in range(6))
HEAD = "name,cpu_milli,memory_mib,num_gpu,gpu_milli,gpu_spec,qos,pod_phase,creation_time,deletion_time,scheduled_time\n"


def write(folder: Path, *jobs: str, name: str = "default") -> Path:
    (folder / "openb_node_list_gpu_node.csv").write_text(NODES)
    rows = "".join(f"p{number},{job},,,,,\n" for number, job in enumerate(jobs))
    (folder / f"openb_pod_list_{name}.csv").write_text(HEAD + rows)
    return folder


def test_whole_gpus_that_fit_fill_the_fleet(tmp_path: Path) -> None:
    write(tmp_path, "1000,1024,1,1000,", "2000,1024,2,1000,")
    jobs = trace.workload(tmp_path, "default")
    board = trace.board(tmp_path)
    arrivals = jobs.arrivals(int(board.free.sum()), 1.3, np.random.default_rng(3))
    curve = packing.replay(board, BestFit(), jobs.shapes, arrivals)
    assert curve[0] == 0
    assert curve[50] == pytest.approx(50, abs=100 * 2 / 24)
    assert curve[130] == 100


def test_jobs_are_padded_or_thinned_to_the_load(tmp_path: Path) -> None:
    few = trace.workload(write(tmp_path, "0,0,1,500,"), "default")
    assert few.arrivals(24_000, 1.3, np.random.default_rng(1)).size == 63
    many = trace.workload(write(tmp_path, *["0,0,4,1000,"] * 50), "default")
    assert many.arrivals(24_000, 1.3, np.random.default_rng(1)).size == 8


def test_a_job_that_asks_for_a_model_gets_no_other(tmp_path: Path) -> None:
    jobs = trace.workload(write(tmp_path, "1000,1024,1,1000,V100|G2"), "default")
    board = trace.board(tmp_path)
    assert packing.replay(board, Stethos(), jobs.shapes, np.zeros(30, dtype=np.int64))[-1] == 0


def test_cutting_patterns_beat_the_best_fit_where_lengths_only_pair_one_way(tmp_path: Path) -> None:
    """650 goes with 320; two 470 make one GPU; an 810 stands alone."""
    jobs = trace.workload(write(tmp_path, *[f"0,0,1,{length}," for length in (650, 320, 470, 470, 810)] * 6), "default")
    means = []
    for policy in ("stethos", "best-fit"):
        runs = [packing._one(tmp_path, jobs, policy, seed)[100] for seed in range(12)]
        means.append(np.mean(runs))
    assert means[0] > means[1]


def test_a_broken_trace_is_named_with_its_line(tmp_path: Path) -> None:
    write(tmp_path, "1000,1024,1,1000,", "1000,1024,-1,1000,")
    with pytest.raises(trace.TraceError, match=r"default\.csv, line 3: num_gpu"):
        trace.workload(tmp_path, "default")
    with pytest.raises(trace.TraceError, match="cannot be read"):
        trace.workload(tmp_path, "none")


def test_an_interval_is_students() -> None:
    found = Estimate.of([1.0, 2.0, 3.0])
    assert (found.mean, found.low, found.high) == pytest.approx((2, -0.484, 4.484), abs=1e-3)
    assert Estimate.of([5.0]) == Estimate(5, 5, 5)


def test_the_command_prints_a_table_and_writes_json(tmp_path: Path) -> None:
    write(tmp_path, "1000,1024,1,470,", "1000,1024,1,1000,", name="default")
    write(tmp_path, "1000,1024,2,1000,", name="multigpu20")
    results = tmp_path / "expected_results" / "analysis_allo_discrete.csv"
    results.parent.mkdir()
    results.write_text("workload,sc_policy,90,95,100,110,120,130\nopenb_pod_list_default,06-FGD,1,2,95.5,4,5,6\n")
    found = CliRunner().invoke(
        main, ["simulate", "--trace", str(tmp_path), "--seeds", "2", "--json", str(tmp_path / "out.json")]
    )
    assert found.exit_code == 0, found.output
    assert "95.50" in found.output
    document = json.loads((tmp_path / "out.json").read_text())
    assert document["workloads"].keys() == {"default", "multigpu20"}
    assert document["workloads"]["default"].keys() == set(POLICIES)
    for curves in document["workloads"].values():
        for curve in curves.values():
            assert 0 <= curve["100"]["low"] <= curve["100"]["mean"] <= curve["100"]["high"]
    assert document["health"] is None


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--policy", "worst"], "'worst' is none of all, stethos"),
        (["--workload", "cpu99"], "has no workload 'cpu99'; it has default"),
        (["--recall", "nan"], "nan is not a finite number"),
    ],
)
def test_what_there_is_not_is_an_error(tmp_path: Path, options: list[str], message: str) -> None:
    write(tmp_path, "1000,1024,1,470,")
    found = CliRunner().invoke(main, ["simulate", "--trace", str(tmp_path), *options])
    assert found.exit_code != 0
    assert message in found.output


def fault_trace(path: Path, events: list[tuple[str, float, str]]) -> Path:
    kind = {"Level": "Hardware Failure", "Class": "GPU", "Desc": "GPU Lost"}
    rows = [{"node_id": n, "event_time": t, "event_type": e, "fault_type": kind} for n, t, e in events]
    path.write_text(json.dumps(rows))
    return path


def test_faults_are_read_in_hours(tmp_path: Path) -> None:
    path = fault_trace(
        tmp_path / "f.json", [("a", 1.0, "fault_start"), ("b", 2.0, "fault_start"), ("a", 3.0, "fault_end")]
    )
    assert faults.read(path) == [Fault(0, 24.0, 72.0, True)]
    path.write_text("[{}]")
    with pytest.raises(trace.TraceError, match="is no fault trace"):
        faults.read(path)


HAPPENED = [Fault(server, 30.0 + server % 5, 60.0, False) for server in range(40)]


def test_without_faults_nothing_is_lost() -> None:
    found = health.Replay("graded", [], 48.0, Detector(), 1).run()
    assert (found.interruptions, found.gpu_hours_lost, found.effective_training_time) == (0, 0, 100)
    assert found.allocation > 20


def test_a_detector_that_announces_every_fault_spares_what_it_can() -> None:
    perfect = Detector(recall=1.0, lead_hours=24.0, false_alarms=0.0)
    blind, exclude, graded = (
        health.Replay(mode, HAPPENED, 48.0, perfect, 1).run() for mode in ("blind", "exclude", "graded")
    )
    assert graded.interruptions < blind.interruptions
    assert exclude.interruptions <= blind.interruptions
    assert blind.gpu_hours_lost > 0


def test_a_detector_that_never_speaks_changes_nothing() -> None:
    silent = Detector(recall=0.0, false_alarms=0.0)
    blind, scores = (health.Replay(mode, HAPPENED, 48.0, silent, 1).run() for mode in ("blind", "scores"))
    assert scores == blind
