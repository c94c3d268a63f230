"""The benchmark: no timings without equality, and a table that a program can read."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from kernels import Deviation, bench, device, peer_deviation
from kernels.arrays import Floats, Integers
from kernels.case import Case
from kernels.group_deviation import bench as group_bench


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(group_bench, "SHAPES", ((2, 40),))
    monkeypatch.setattr(device, "COPY_BYTES", 2**20)
    monkeypatch.setattr(device, "MATRIX", 64)
    monkeypatch.setattr(bench, "SECONDS", 0)


def test_the_table_is_written(tmp_path: Path) -> None:
    file = tmp_path / "timings.json"
    result = CliRunner().invoke(bench.main, ["--op", "group_deviation", "--json", str(file)])
    assert result.exit_code == 0, result.output
    (row,) = json.loads(file.read_text())
    assert (row["op"], row["size"]) == ("peer_deviation", 80)
    assert row["best_alternative"] in result.output
    assert row["seconds_median"] > 0
    assert row["ratio_to_best"] > 0
    assert 0 < row["floor_share"] < 1


def test_a_wrong_result_is_not_timed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def wrong(values: Floats, members: Integers, offsets: Integers) -> Deviation:
        result = peer_deviation(values, members, offsets)
        result.mad[0, 0] *= 1.001
        return result

    monkeypatch.setattr(group_bench, "peer_deviation", wrong)
    file = tmp_path / "timings.json"
    result = CliRunner().invoke(bench.main, ["--op", "group_deviation", "--json", str(file)])
    assert result.exit_code == 1
    assert "peer_deviation differs from the reference at 80" in result.output
    assert "mad" in result.output
    assert "median " not in result.output
    assert not file.exists()


def test_the_floor_is_the_larger_of_both() -> None:
    floor = bench.Floor(bandwidth=100, rate=1000)

    def case(operations: int) -> Case:
        return Case("op", 1, lambda: None, lambda: None, bytes=50, operations=operations, alternatives={})

    assert floor.seconds(case(100)) == 0.5
    assert floor.seconds(case(900)) == 0.9


def test_runs_take_turns_after_one_that_warms_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "SECONDS", 60)
    monkeypatch.setattr(bench, "MOST", 3)
    calls: list[str] = []
    found = bench.medians({"a": lambda: calls.append("a"), "b": lambda: calls.append("b")}, lambda: None)
    assert set(found) == {"a", "b"}
    assert calls == ["a", "b"] * 4
