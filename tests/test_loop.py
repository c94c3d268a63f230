"""The whole loop on real servers, started and stopped as a user does: scripts/up, curl, Ctrl-C."""

import json
import os
import re
import shlex
import signal
import socket
import subprocess
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from tests.series import DASHBOARDS, panels, plain

ROOT = Path(__file__).parents[1]
PROCESSES = ("EXPORTERS", "DETECTOR", "PROMETHEUS", "ALERTMANAGER", "SCHEDULER", "GRAFANA")
GPUS = 64
#: What dashboards show only at times: thresholds are refitted daily, and a shadow is there only during a trial.
SELDOM = ("stethos_detector_recalibrated_timestamp_seconds", "stethos_detector_shadow_info")

pytestmark = pytest.mark.timeout(600)

Json = dict[str, Any]


def until(what: str, found: Callable[[], bool], seconds: float) -> float:
    """Wait for something to become true; returns how long that took."""
    begin = time.monotonic()
    while not found():
        if time.monotonic() - begin > seconds:
            pytest.fail(f"not within {seconds:.0f} s: {what}")
        time.sleep(0.5)
    return time.monotonic() - begin


class Loop:
    """A running stack, asked from outside."""

    def __init__(self, home: Path, ports: dict[str, int]) -> None:
        self.home = home
        self.ports = ports
        self.http = httpx.Client(headers={"Authorization": f"Bearer {(home / 'token').read_text().strip()}"})

    def url(self, process: str, path: str) -> str:
        return f"http://127.0.0.1:{self.ports[process]}{path}"

    def ask(self, promql: str) -> dict[tuple[str, str], float]:
        """An instant query, by node and GPU."""
        answer = self.http.get(self.url("PROMETHEUS", "/api/v1/query"), params={"query": promql}).json()
        return {
            (row["metric"].get("node", ""), row["metric"].get("gpu", "")): float(row["value"][1])
            for row in answer["data"]["result"]
        }

    def value(self, promql: str) -> float:
        return next(iter(self.ask(promql).values()), 0.0)

    def silent(self) -> list[str]:
        """The queries of dashboards that had no answer in the last ten minutes, without what stands in for none."""
        queries = {target["expr"] for _, panel in panels() for target in panel["targets"]}  # type: ignore[attr-defined]
        queries |= {each["expr"] for file in DASHBOARDS for each in json.loads(file.read_text())["annotations"]["list"]}
        now = time.time()

        def answered(query: str) -> bool:
            alone = re.sub(r" or label_replace\(vector\(0\).*", "", plain(query))
            asked: dict[str, str | float] = {"query": alone, "start": now - 600, "end": now, "step": 15}
            answer = self.http.get(self.url("PROMETHEUS", "/api/v1/query_range"), params=asked).json()
            return bool(answer["data"]["result"])

        return [query for query in queries if not any(name in query for name in SELDOM) and not answered(query)]

    def scores(self) -> dict[tuple[str, str], float]:
        return self.ask("stethos_anomaly_score")

    def submit(self, **job: object) -> Json:
        answer = self.http.post(self.url("SCHEDULER", "/v1/jobs"), json=job)
        assert answer.status_code == 201, answer.text
        accepted: Json = answer.json()
        return accepted

    def job(self, job: str) -> Json:
        found: Json = self.http.get(self.url("SCHEDULER", f"/v1/jobs/{job}")).json()
        return found

    def gpu(self, node: str, gpu: int) -> Json:
        found: Json = self.http.get(self.url("SCHEDULER", f"/v1/nodes/{node}")).json()["gpus"][gpu]
        return found

    def alerts(self, status: str, node: str, gpu: int) -> list[Json]:
        """The alerts about a GPU that came to the scheduler's webhook."""
        received = self.http.get(self.url("SCHEDULER", "/v1/alerts")).json()["alerts"]
        return [
            alert
            for alert in received
            if (alert["name"], alert["status"], alert["node"], alert["gpu"]) == ("GpuAnomalous", status, node, gpu)
        ]

    def break_gpu(self, node: str, gpu: int) -> str:
        fault = {"kind": "thermal_paste", "node": node, "gpu": gpu, "severity": 0.8}
        answer = self.http.post(self.url("EXPORTERS", "/v1/faults"), json=fault)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def mend(self, fault: str) -> None:
        assert self.http.delete(self.url("EXPORTERS", f"/v1/faults/{fault}")).status_code == 204

    def only_anomalous(self, gpu: tuple[str, str]) -> bool:
        """Whether that GPU is at the threshold; no other may ever be."""
        scores = self.scores()
        others = {other: score for other, score in scores.items() if other != gpu and score >= 1}
        assert not others, f"healthy GPUs called anomalous: {others}"
        return scores.get(gpu, 0.0) >= 1

    def occupy_a_node(self, seconds: float) -> tuple[str, str]:
        """Put a job on all GPUs of a node; returns the job and the node."""
        job = self.submit(type="matrix", gpus=8, duration_seconds=seconds)["id"]
        until("the job runs", lambda: self.job(job)["state"] == "running", 20)
        return job, self.job(job)["placement"][0]["node"]

    def runs(self, jobs: int) -> set[tuple[str, int]]:
        """Run that many one-GPU jobs to their end; returns the GPUs that worked for them."""
        ids = [self.submit(type="sleep", gpus=1, duration_seconds=3)["id"] for _ in range(jobs)]
        until("the jobs end", lambda: all(self.job(job)["state"] == "succeeded" for job in ids), 90)
        return {(place["node"], gpu) for job in ids for place in self.job(job)["placement"] for gpu in place["gpus"]}


def free_ports(count: int) -> list[int]:
    with ExitStack() as held:
        probes = [held.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[], Path]]:
    """Waits for a folder with a model, in the making since the fixture was asked for."""
    folder = tmp_path_factory.mktemp("trained")
    python = str(ROOT / ".venv/bin/python")
    fleet = ["--nodes", "16", "--gpus-per-node", "8", "--hours", "2", "--step", "5", "--seed", "7", "--no-upkeep"]
    record = [python, "-m", "exporters", "record", *fleet, "--out", str(folder)]
    train = ["nice", python, "-m", "detector", "train", "--recording", str(folder / "recording.parquet")]
    train += ["--iterations", "600", "--out", str(folder / "models")]
    with (folder / "train.out").open("w") as output:
        making = subprocess.Popen(
            ["sh", "-c", f"{shlex.join(record)} && exec {shlex.join(train)}"], cwd=ROOT, stdout=output, stderr=output
        )

    def ready() -> Path:
        assert making.wait(300) == 0, (folder / "train.out").read_text()
        return folder / "models"

    yield ready
    making.kill()
    making.wait()


@pytest.fixture(scope="module")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Loop, subprocess.Popen[str]]]:
    home = tmp_path_factory.mktemp("home")
    ports = dict(zip(PROCESSES, free_ports(len(PROCESSES)), strict=True))
    settings = {f"{process}_PORT": str(port) for process, port in ports.items()}
    environment = {
        **os.environ,
        "STETHOS_HOME": str(home),
        "STETHOS_SERVERS": str(ROOT / ".stethos/servers"),
        "CANARY_SECONDS": "5",
        **settings,
    }
    with (home / "up.out").open("w") as output:
        up = subprocess.Popen(
            [ROOT / "scripts/up", "--no-train"],
            env=environment,
            stdout=output,
            stderr=output,
            text=True,
            # A suite that runs in the background ignores SIGINT, and would pass that on.
            preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
        )
        try:
            until(
                "scripts/up says that it is ready",
                lambda: "Stethos is listening" in (home / "up.out").read_text() or up.poll() is not None,
                120,
            )
            assert up.poll() is None, (home / "up.out").read_text()
            loop = Loop(home, ports)
            with loop.http:
                yield loop, up
        finally:
            if up.poll() is None:
                up.send_signal(signal.SIGINT)
                up.wait(30)


@pytest.mark.usefixtures("trained")
def test_a_job_heats_its_gpu_and_a_sick_gpu_is_found_avoided_and_taken_back(
    stack: tuple[Loop, subprocess.Popen[str]],
) -> None:
    loop, _ = stack
    assert loop.value("count(stethos_anomaly_score)") == GPUS

    job = loop.submit(type="matrix", gpus=1, priority="HIGH", duration_seconds=25)["id"]
    until("the job runs", lambda: loop.job(job)["state"] == "running", 20)
    place = loop.job(job)["placement"][0]
    worker = (place["node"], str(place["gpus"][0]))
    idle = loop.ask("gpu:temperature:celsius")[worker]
    until("the job heats its GPU", lambda: loop.ask("gpu:temperature:celsius")[worker] > idle + 10, 40)
    assert loop.ask("gpu:utilization:ratio")[worker] > 0.5
    until("the job succeeds", lambda: loop.job(job)["state"] == "succeeded", 60)

    # A fault that makes heat shows at work, so the whole node works. Ranks of a matrix job do not wait for each other.
    work, node = loop.occupy_a_node(seconds=35)
    fault = loop.break_gpu(node, 3)
    until("its score, and no other, reaches 1", lambda: loop.only_anomalous((node, "3")), 60)
    until("the alert reaches the webhook", lambda: bool(loop.alerts("firing", node, 3)), 60)
    until("the GPU is cordoned", lambda: loop.gpu(node, 3)["cordon"] is not None, 10)
    until("the job on it is left to end", lambda: loop.job(work)["state"] == "succeeded", 90)
    used = loop.runs(GPUS)
    assert (node, 3) not in used
    assert len(used) > GPUS // 2

    loop.mend(fault)
    until("the alert is resolved", lambda: bool(loop.alerts("resolved", node, 3)), 240)
    until("a canary tries it out", lambda: loop.gpu(node, 3)["health"] == "probation", 60)
    until("the cordon is lifted", lambda: loop.gpu(node, 3)["health"] == "healthy", 90)
    until("the GPU works again", lambda: (node, 3) in loop.runs(GPUS), 60)


def test_a_trained_model_is_taken_up_while_the_loop_runs_and_finds_the_fault(
    stack: tuple[Loop, subprocess.Popen[str]], trained: Callable[[], Path]
) -> None:
    loop, _ = stack
    (loop.home / "models").mkdir(exist_ok=True)
    for version in trained().iterdir():
        version.rename(loop.home / "models" / version.name)
    until("the model is in use", lambda: loop.value('stethos_detector_model_info{stage="model"}') == 1, 30)
    assert loop.value("count(stethos_anomaly_score)") == GPUS

    # Temperatures may lag for a minute and a half behind a job's begin, and are not judged before.
    _, node = loop.occupy_a_node(seconds=240)
    fault = loop.break_gpu(node, 2)
    until("its score, and no other, reaches 1", lambda: loop.only_anomalous((node, "2")), 180)
    assert 'cause="cooling"' in httpx.get(loop.url("DETECTOR", "/metrics")).text
    loop.mend(fault)


def test_every_panel_and_mark_of_the_dashboards_has_data(stack: tuple[Loop, subprocess.Popen[str]]) -> None:
    loop, _ = stack
    fault = {"kind": "ecc_uncorrectable", "node": "node-07", "gpu": 1, "severity": 0.9}
    assert loop.http.post(loop.url("EXPORTERS", "/v1/faults"), json=fault).status_code == 201
    drained = loop.http.post(loop.url("SCHEDULER", "/v1/nodes/node-08/drain"), json={"reason": "to be seen"})
    assert drained.status_code == 200
    until("every query has an answer", lambda: not loop.silent(), 120)


def test_a_second_start_says_that_it_runs_already(stack: tuple[Loop, subprocess.Popen[str]]) -> None:
    loop, up = stack
    again = subprocess.run(
        [ROOT / "scripts/up"],
        env={**os.environ, "STETHOS_HOME": str(loop.home)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert again.returncode == 0
    assert "Already running" in again.stdout
    assert up.poll() is None


def test_ctrl_c_stops_everything(stack: tuple[Loop, subprocess.Popen[str]]) -> None:
    loop, up = stack
    started = psutil.Process(up.pid).children(recursive=True)
    assert len(started) >= 7
    up.send_signal(signal.SIGINT)
    assert up.wait(30) == 0
    _, left = psutil.wait_procs(started, timeout=5)
    assert not left
    for port in loop.ports.values():
        with pytest.raises(ConnectionRefusedError):
            socket.create_connection(("127.0.0.1", port), timeout=1)
