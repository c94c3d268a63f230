"""The commands as a person runs them."""

import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import httpx
import pytest

ROOT = Path(__file__).parents[2]


def command(*arguments: str, home: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "exporters", *arguments],
        cwd=ROOT,
        env=os.environ | {"STETHOS_HOME": str(home), "STETHOS_LOG": "json"},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def outcome(*arguments: str, home: Path) -> tuple[int, str]:
    process = command(*arguments, home=home)
    _, errors = process.communicate(timeout=60)
    return process.returncode, errors


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_it_serves_until_told_to_stop(tmp_path: Path, stop: signal.Signals) -> None:
    process = command("synthetic", "--nodes", "1", "--port", "0", home=tmp_path)
    assert process.stderr is not None
    found = re.search(r"http://[0-9.:]+", process.stderr.readline())
    assert found is not None
    assert httpx.get(f"{found[0]}/nodes/node-01/metrics").status_code == 200
    token = (tmp_path / "token").read_text().strip()
    truth = httpx.get(f"{found[0]}/v1/truth", headers={"Authorization": f"Bearer {token}"})
    assert truth.json() == {"faults": []}
    process.send_signal(stop)
    _, errors = process.communicate(timeout=20)
    assert process.returncode == 0
    assert "Traceback" not in errors


def test_a_busy_port_is_one_sentence(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        code, errors = outcome("synthetic", "--nodes", "1", "--port", str(port), home=tmp_path)
    assert code == 1
    assert errors == f"Error: cannot listen on 127.0.0.1:{port}: Address already in use\n"


def test_without_a_driver_nvml_says_so_and_exits_with_69(tmp_path: Path) -> None:
    if Path("/proc/driver/nvidia").exists():
        pytest.skip("this machine has an NVIDIA driver")
    code, errors = outcome("nvml", "--port", "0", home=tmp_path)
    assert code == 69
    assert errors == "Error: NVML cannot be used here: NVML Shared Library Not Found\n"


def test_recording_and_a_bad_file(tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["--nodes", "1", "--hours", "0.1", "--step", "5", "--faults", "2", "--out", str(out)]
    assert outcome("record", *arguments, home=tmp_path)[0] == 0
    assert sorted(each.name for each in out.iterdir()) == ["recording.parquet", "truth.parquet"]
    code, errors = outcome("replay", str(out / "truth.parquet"), "--port", "0", home=tmp_path)
    assert code == 1
    assert errors.startswith(f"Error: {out / 'truth.parquet'} lacks the column 'timestamp'")


def test_a_wrong_value_is_named(tmp_path: Path) -> None:
    code, errors = outcome("synthetic", "--nodes", "0", home=tmp_path)
    assert code == 2
    assert "'--nodes': 0 is not in the range" in errors
