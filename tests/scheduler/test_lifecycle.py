"""Jobs on real agents, from submission to their end."""

import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

from .processes import Process, Scheduler, until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scheduler]:
    scheduler = Scheduler(tmp_path_factory.mktemp("lifecycle"))
    with scheduler.agent("--node", "real", "--gpus", "4"):
        until(lambda: scheduler.get("/v1/fleet")["counts"]["nodes"]["healthy"] == 1)
        yield scheduler
    scheduler.close()


def test_every_type_of_job_runs(server: Scheduler) -> None:
    jobs = {
        kind: server.submit(type=kind, duration_seconds=0.3, parameters=parameters)
        for kind, parameters in {
            "sleep": {},
            "compute": {"iterations": 2_500_000},
            "matrix": {"size": 129},
            "fault": {"after_seconds": 0.1},
        }.items()
    }
    ended = {kind: server.becomes(job, "succeeded", "failed") for kind, job in jobs.items()}
    assert {kind: job["state"] for kind, job in ended.items()} == {
        "sleep": "succeeded",
        "compute": "succeeded",
        "matrix": "succeeded",
        "fault": "failed",
    }
    assert ended["compute"]["result"]["iterations"] == 2_500_000
    assert ended["matrix"]["result"]["products"] >= 1
    assert ended["matrix"]["result"]["residual"] < 1e-5
    assert ended["fault"]["reason"] == "failed as told after 0.1 s"
    assert ended["fault"]["retries_used"] == 0


def test_a_job_is_stopped_on_cancel_and_its_gpus_are_free(server: Scheduler) -> None:
    job = server.becomes(server.submit(gpus=4, duration_seconds=60), "running")
    assert server.post(f"/v1/jobs/{job['id']}/cancel")["state"] == "cancelled"
    assert server.post(f"/v1/jobs/{job['id']}/cancel")["state"] == "cancelled"
    next_job = server.submit(gpus=4)
    assert server.becomes(next_job, "succeeded")["attempts"][0]["placement"] == [{"node": "real", "gpus": [0, 1, 2, 3]}]
    assert server.http.post(f"/v1/jobs/{next_job['id']}/cancel").status_code == 409


def test_a_job_is_stopped_at_its_timeout(server: Scheduler) -> None:
    job = server.submit(gpus=4, duration_seconds=60, timeout_seconds=0.5)
    ended = server.becomes(job, "timed_out")
    assert ended["reason"] == "ran longer than 0.5 s"
    assert server.becomes(server.submit(gpus=4), "succeeded")


def test_jobs_run_side_by_side(server: Scheduler) -> None:
    jobs = [server.submit(duration_seconds=1.5) for _ in range(4)]
    for job in jobs:
        server.becomes(job, "running")
    assert server.get("/v1/fleet")["queue"]["running"] == 4
    for job in jobs:
        server.becomes(job, "succeeded")


def test_an_agent_that_is_stopped_hands_its_work_back(server: Scheduler) -> None:
    with server.agent("--node", "leaver", "--gpus", "8", log="leaver.log") as leaver:
        job = server.becomes(server.submit(gpus=8, duration_seconds=30), "running")
        assert leaver.send(signal.SIGTERM) == 0
    back = server.job(job["id"])
    assert (back["state"], back["retries_used"]) == ("queued", 0)
    assert back["attempts"][0]["state"] == "handed_back"
    assert server.get("/v1/nodes/leaver")["reason"] == "its agent was stopped"
    assert server.post(f"/v1/jobs/{job['id']}/cancel")["state"] == "cancelled"
    assert "Traceback" not in (server.home / "leaver.log").read_text()


def test_an_agent_without_gpus_says_what_is_missing(server: Scheduler, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nonexistent")
    agent = server.agent(log="none.log")
    until(lambda: agent.ended)
    assert "say how many there are with --gpus" in (server.home / "none.log").read_text()


def test_a_node_lost_with_its_agent_gives_its_jobs_to_another(own_scheduler: Scheduler) -> None:
    with (
        own_scheduler.agent("--node", "first", "--gpus", "1", log="first.log") as first,
        own_scheduler.agent("--node", "last", "--gpus", "8", log="last.log"),
    ):
        until(lambda: own_scheduler.get("/v1/fleet")["counts"]["nodes"]["healthy"] == 2)
        job = own_scheduler.becomes(own_scheduler.submit(duration_seconds=2), "running")
        assert job["node"] == "first"
        first.send(signal.SIGKILL)
        ended = own_scheduler.becomes(job, "succeeded", seconds=25)
    lost, good = ended["attempts"]
    assert (lost["state"], good["state"], ended["retries_used"]) == ("lost", "succeeded", 1)
    assert lost["reason"].startswith("node lost: first was not heard for ")
    assert (good["placement"][0]["node"], ended["node"]) == ("last", "last")
    assert own_scheduler.get("/v1/nodes/first")["state"] == "unreachable"


def test_an_agent_keeps_its_jobs_while_the_scheduler_is_away(own_scheduler: Scheduler) -> None:
    with own_scheduler.agent("--node", "n", "--gpus", "1"):
        job = own_scheduler.becomes(own_scheduler.submit(duration_seconds=1.5), "running")
        own_scheduler.process.send(signal.SIGKILL)
        own_scheduler.start(own_scheduler.port)
        ended = own_scheduler.becomes(job, "succeeded")
    assert len(ended["attempts"]) == 1


def test_the_scheduler_ends_cleanly_when_asked(tmp_path: Path) -> None:
    scheduler = Scheduler(tmp_path)
    with scheduler.agent("--node", "n", "--gpus", "1"):
        until(lambda: scheduler.get("/v1/fleet")["counts"]["nodes"]["healthy"] == 1)
        with scheduler.http.stream("GET", "/v1/events") as stream:
            assert stream.status_code == 200
            assert scheduler.process.send(signal.SIGTERM) == 0
    assert "Traceback" not in (tmp_path / "serve.log").read_text()
    scheduler.close()


def test_a_busy_port_is_one_sentence(own_scheduler: Scheduler, tmp_path: Path) -> None:
    log = tmp_path / "second.log"
    second = Process(["scheduler", "serve", "--port", str(own_scheduler.port)], tmp_path / "second", log)
    until(lambda: second.ended)
    assert log.read_text() == f"Error: cannot listen on 127.0.0.1:{own_scheduler.port}: Address already in use\n"
