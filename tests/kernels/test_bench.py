"""The benchmark: no timings without equality, and a table that a program can read."""

import json
from pathlib import Path

import pytest
from click.testing import CliRunner

from kernels import Deviation, bench, peer_deviation
from kernels.group_deviation.arrays import Floats, Integers


@pytest.fixture(autouse=True)
def brief(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(bench, "SHAPES", ((2, 40),))
    monkeypatch.setattr(bench, "COPY_BYTES", 2**20)
    monkeypatch.setattr(bench, "SECONDS", 0)


def test_the_table_is_written(tmp_path: Path) -> None:
    file = tmp_path / "timings.json"
    result = CliRunner().invoke(bench.main, ["--json", str(file)])
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

    monkeypatch.setattr(bench, "peer_deviation", wrong)
    file = tmp_path / "timings.json"
    result = CliRunner().invoke(bench.main, ["--json", str(file)])
    assert result.exit_code == 1
    assert "mad differs from the reference" in result.output
    assert "median " not in result.output
    assert not file.exists()
