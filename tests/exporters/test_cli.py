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

from exporters.dcgm import Names
from tests.exporters.conftest import until

ROOT = Path(__file__).parents[2]

# The command with a library that behaves like NVML.
FAKED = """
from exporters import __main__, nvml
from tests.exporters.fake_nvml import FakeGpu, FakeNvml
nvml.load = lambda: FakeNvml(FakeGpu("GPU-4a1d6b1c-0b6e-5c0e-9a2e-0d8f5f9d7a11", {card!r}))
__main__.main()
"""


def command(*arguments: str, home: Path, faked: str | None = None) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, *(["-m", "exporters"] if faked is None else ["-c", FAKED.format(card=faked)]), *arguments],
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


@pytest.mark.parametrize(
    ("card", "names"), [("a100", "legacy"), ("h100", "both"), ("l40s", "dcgm47"), ("geforce", "legacy")]
)
def test_the_page_of_nvml_begins_exactly_as_the_golden_file(tmp_path: Path, card: str, names: Names) -> None:
    options = ["--node", "node-01", "--interval", "0.5", "--metric-names", names, "--kernel-log", "none", "--port", "0"]
    process = command("nvml", *options, home=tmp_path, faked=card)
    try:
        assert process.stderr is not None
        found = re.search(r"http://[0-9.:]+", process.stderr.readline())
        assert found is not None
        golden = (Path(__file__).with_name("golden") / f"{card}.{names}.prom").read_text()
        url = f"{found[0]}/nodes/node-01/metrics"
        assert until(lambda: httpx.get(url).text.partition("# HELP stethos_")[0] == golden, 20)
    finally:
        process.terminate()
        process.communicate(timeout=20)
    assert process.returncode == 0


def test_recording_and_a_bad_file(tmp_path: Path) -> None:
    out = tmp_path / "out"
    arguments = ["--nodes", "1", "--hours", "0.1", "--step", "5", "--faults", "2", "--out", str(out)]
    assert outcome("record", *arguments, home=tmp_path)[0] == 0
    assert sorted(each.name for each in out.iterdir()) == ["recording.parquet", "truth.parquet"]
    code, errors = outcome("replay", str(out / "truth.parquet"), "--port", "0", home=tmp_path)
    assert code == 1
    assert errors.startswith(f"Error: {out / 'truth.parquet'} lacks the column 'timestamp'")


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("synthetic --nodes 0", "'--nodes': 0 is not in the range"),
        ("synthetic --speed nan --port 0", "'--speed': nan is not a finite number"),
        (f"synthetic --host {'ü' * 70} --port 0 --nodes 1", ":0: encoding of hostname failed"),
        ("record --hours inf --out x", "'--hours': inf is not a finite number"),
        ("record --hours 0.01 --step 60 --out x", "0.01 h is shorter than its step of 60 s"),
        ("record --start 9999-12-31T23:00:00 --out x", "do not end before the year 10000"),
        ("record --kind gremlins --out x", "'gremlins' is not one of"),
    ],
)
def test_a_wrong_value_is_named(tmp_path: Path, arguments: str, said: str) -> None:
    code, errors = outcome(*arguments.split(), home=tmp_path)
    assert code in (1, 2)
    assert said in errors
    assert "Traceback" not in errors
