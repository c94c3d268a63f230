"""Commands: run, told apart, ended with their whole group, and not lost with their agent."""

import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from .processes import Json, Process, Scheduler, until


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scheduler]:
    scheduler = Scheduler(tmp_path_factory.mktemp("commands"))
    with agent(scheduler):
        until(lambda: scheduler.get("/v1/fleet")["counts"]["nodes"]["healthy"] == 1)
        yield scheduler
    scheduler.close()


def agent(scheduler: Scheduler, *more: str) -> Process:
    return scheduler.agent("--node", "real", "--gpus", "4", "--allow-commands", *more)


def command(scheduler: Scheduler, *argv: str, **more: object) -> Json:
    wanted: dict[str, object] = {"type": "command", "parameters": {"argv": list(argv)}, "duration_seconds": None}
    return scheduler.submit(None, **(wanted | more))


def script(scheduler: Scheduler, text: str, **more: object) -> Json:
    return command(scheduler, sys.executable, "-c", text, **more)


def gone(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"


def test_what_a_command_says_is_kept_to_its_newest_part(server: Scheduler) -> None:
    text = "import os, sys; print('x' * 30000 + 'end'); print(os.environ['CUDA_VISIBLE_DEVICES'], file=sys.stderr)"
    ended = server.becomes(script(server, text, gpus=2), "succeeded", "failed")
    assert ended["state"] == "succeeded"
    assert ended["result"]["exit_code"] == 0
    assert ended["result"]["stdout"].endswith("xend\n")
    assert len(ended["result"]["stdout"]) == 16_384
    assert ended["result"]["stderr"].strip() == ",".join(
        str(gpu) for gpu in ended["attempts"][0]["placement"][0]["gpus"]
    )


def test_a_command_that_fails_says_how(server: Scheduler) -> None:
    ended = server.becomes(script(server, "raise SystemExit('no data')"), "failed")
    assert ended["reason"] == "the command ended with exit code 1: no data"
    assert ended["retries_used"] == 0
    missing = server.becomes(command(server, "/no/such/program"), "failed")
    assert missing["reason"] == "the command ended with exit code 127: No such file or directory: /no/such/program"


def test_a_cancelled_command_is_ended_with_what_it_has_started(server: Scheduler, tmp_path: Path) -> None:
    text = (
        "import subprocess, sys, pathlib, time;"
        "child = subprocess.Popen(['sleep', '300']);"
        f"pathlib.Path({str(tmp_path / 'pid')!r}).write_text(str(child.pid));"
        "time.sleep(300)"
    )
    job = script(server, text, gpus=4)
    until(lambda: (tmp_path / "pid").exists() and (tmp_path / "pid").read_text())
    child = int((tmp_path / "pid").read_text())
    server.post(f"/v1/jobs/{job['id']}/cancel")
    until(lambda: gone(child))
    server.becomes(script(server, "pass", gpus=4), "succeeded")


def test_a_command_is_ended_at_its_timeout_even_if_it_will_not(server: Scheduler) -> None:
    text = "import signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(300)"
    ended = server.becomes(script(server, text, gpus=4, timeout_seconds=1), "timed_out")
    assert ended["reason"] == "ran longer than 1 s"
    server.becomes(script(server, "pass", gpus=4), "succeeded", seconds=30)


def test_a_command_outlives_the_death_of_its_agent_and_is_reported_once(tmp_path: Path) -> None:
    scheduler = Scheduler(tmp_path, "--node-timeout", "60")
    done = tmp_path / "done"
    text = f"import time, pathlib; time.sleep(4); file = pathlib.Path({str(done)!r}); file.open('a').write('once\\n')"
    try:
        with agent(scheduler) as first:
            job = scheduler.becomes(script(scheduler, text), "running")
            first.send(signal.SIGKILL)
        with agent(scheduler):
            ended = scheduler.becomes(job, "succeeded", "failed", seconds=30)
            assert (ended["state"], ended["retries_used"], len(ended["attempts"])) == ("succeeded", 0, 1)
            assert done.read_text() == "once\n"
            until(lambda: not list((tmp_path / "commands").iterdir()))
    finally:
        scheduler.close()


def test_a_result_waits_for_the_next_agent(tmp_path: Path) -> None:
    scheduler = Scheduler(tmp_path, "--node-timeout", "60")
    try:
        with agent(scheduler) as first:
            job = scheduler.becomes(script(scheduler, "import time; time.sleep(1); print(7)"), "running")
            first.send(signal.SIGKILL)
        until(lambda: list((tmp_path / "commands").glob("*/result.json")))
        time.sleep(0.2)
        with agent(scheduler):
            assert scheduler.becomes(job, "succeeded", seconds=30)["result"]["stdout"] == "7\n"
    finally:
        scheduler.close()


def test_commands_are_off_unless_the_agent_allows_them(tmp_path: Path) -> None:
    scheduler = Scheduler(tmp_path)
    try:
        with scheduler.agent("--node", "careful", "--gpus", "1"):
            ended = scheduler.becomes(script(scheduler, "pass"), "failed")
            assert ended["reason"] == "the agent of careful was not started with --allow-commands"
    finally:
        scheduler.close()


@pytest.mark.parametrize(
    "parameters", [{}, {"argv": []}, {"argv": "ls"}, {"argv": ["ls", "a\0b"]}, {"argv": ["ls"], "shell": True}]
)
def test_what_is_no_command_is_refused(server: Scheduler, parameters: Json) -> None:
    answer = server.http.post("/v1/jobs", json={"type": "command", "gpus": 1, "parameters": parameters})
    assert answer.status_code == 422
    assert answer.json()["errors"][0]["pointer"].startswith("/parameters")
