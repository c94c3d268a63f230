import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from detector import checkpoint, registry, training
from detector.training import Settings

from .fleets import telemetry
from .test_scoring import recorded

STATE = ("utilization_ratio", "power_watts")
EVERY, ITERATIONS = 3, 6


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(checkpoint, "EVERY", EVERY)


def settings(folder: Path, seed: int = 3) -> Settings:
    return Settings(1.0, ITERATIONS, seed, folder / "training.pt")


def train_and_die(folder: Path) -> None:
    torch.set_num_threads(1)
    checkpoint.EVERY = EVERY

    def progress(iteration: int, _: float) -> None:
        if iteration == EVERY + 2:
            os.kill(os.getpid(), signal.SIGKILL)

    training.train([telemetry(300, nodes=1)], STATE, settings(folder), progress)


def weights(folder: Path) -> tuple[bytes, list[int]]:
    heard: list[int] = []
    judge, _ = training.train([telemetry(300, nodes=1)], STATE, settings(folder), lambda at, _: heard.append(at))
    return registry.pack(judge), heard


@pytest.mark.slow
def test_a_training_that_was_killed_goes_on_and_ends_as_if_it_had_not_been(tmp_path: Path) -> None:
    killed = multiprocessing.get_context("spawn").Process(target=train_and_die, args=(tmp_path / "killed",))
    killed.start()
    killed.join()
    assert killed.exitcode == -signal.SIGKILL
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        resumed, heard = weights(tmp_path / "killed")
        whole, _ = weights(tmp_path / "whole")
    finally:
        torch.set_num_threads(threads)
    assert heard == list(range(EVERY + 1, ITERATIONS + 1))
    assert resumed == whole
    assert not (tmp_path / "killed" / "training.pt").exists()


@pytest.mark.slow
def test_after_a_ctrl_c_the_same_command_goes_on(tmp_path: Path) -> None:
    path, out = recorded(telemetry(300, nodes=1), tmp_path / "recording.parquet"), tmp_path / "models"
    program = ["env", "--default-signal=INT", sys.executable, "-m", "detector", "train", "--threads", "1"]
    options = ["--recording", str(path), "--out", str(out), "--iterations", "1000000"]
    process = subprocess.Popen([*program, *options], stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 300
    while not (out / ".training.pt").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.1)
    process.send_signal(signal.SIGINT)
    said = process.communicate(timeout=60)[1]
    assert process.returncode == 1
    assert "stopped; the same command goes on from here" in said
    assert "Traceback" not in said
    assert (out / ".training.pt").exists()


def test_a_checkpoint_of_another_run_or_a_damaged_one_is_passed_over(tmp_path: Path) -> None:
    class StopError(Exception):
        pass

    def stop(iteration: int, _: float) -> None:
        if iteration == EVERY + 1:
            raise StopError

    with pytest.raises(StopError):
        training.train([telemetry(300, nodes=1)], STATE, settings(tmp_path), stop)
    started: list[int] = []

    def first(iteration: int, _: float) -> None:
        started.append(iteration)
        raise StopError

    with pytest.raises(StopError):
        training.train([telemetry(300, nodes=1)], STATE, settings(tmp_path, seed=4), first)
    (tmp_path / "training.pt").write_bytes(b"half a checkp")
    with pytest.raises(StopError):
        training.train([telemetry(300, nodes=1)], STATE, settings(tmp_path), first)
    assert started == [1, 1]
