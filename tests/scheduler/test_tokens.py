"""Tokens with scopes: made, listed and revoked on the command line, checked by the server."""

import asyncio
import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import httpx
import pytest

from scheduler.auth import Keys, Principal, check_exposure
from scheduler.clock import now
from scheduler.store import Access, Store
from scheduler.store import tokens as stored

from .processes import ROOT, Process, Scheduler, until

JOB = {"type": "sleep", "gpus": 1}


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scheduler]:
    scheduler = Scheduler(
        tmp_path_factory.mktemp("tokens"), "--queue-limit", "3", "--keep-events", "5", "--keep-jobs", "1"
    )
    yield scheduler
    scheduler.close()


def run(server: Scheduler, *arguments: str) -> "subprocess.CompletedProcess[str]":
    command = [sys.executable, "-m", "scheduler", "token", *arguments, "--home", str(server.home)]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=60)


def create(server: Scheduler, name: str, *scopes: str) -> str:
    made = run(server, "create", name, *(f"--scope={scope}" for scope in scopes))
    assert made.returncode == 0, made.stderr
    return made.stdout.strip()


def ask(server: Scheduler, token: str, method: str, path: str, body: object = None) -> httpx.Response:
    headers = {"Authorization": f"Bearer {token}"}
    return httpx.request(method, server.url + path, headers=headers, json=body, timeout=10)


def test_a_token_may_do_what_its_scopes_say_and_no_more(server: Scheduler) -> None:
    server.node("n", gpus=1)
    reader = create(server, "reader", "read")
    alerter = create(server, "alertmanager", "alerts:write")
    operator = create(server, "operator", "read", "nodes:admin")
    assert ask(server, reader, "GET", "/v1/fleet").status_code == 200
    refused = ask(server, reader, "POST", "/v1/jobs", JOB)
    assert (refused.status_code, refused.headers["content-type"]) == (403, "application/problem+json")
    assert refused.headers["www-authenticate"] == 'Bearer error="insufficient_scope", scope="jobs:write"'
    assert refused.json()["detail"] == "the token 'reader' lacks the scope jobs:write"
    assert ask(server, alerter, "POST", "/v1/alerts", {"alerts": []}).status_code == 200
    assert ask(server, alerter, "GET", "/v1/alerts").status_code == 403
    assert ask(server, operator, "POST", "/v1/nodes/n/drain", {"reason": "x"}).status_code == 200
    assert ask(server, operator, "PUT", "/v1/workload", {"jobs_per_minute": 0}).status_code == 403


def test_a_token_works_from_the_moment_it_is_made(server: Scheduler) -> None:
    before = create(server, "before", "read")
    for number in range(3):
        assert ask(server, before, "GET", "/v1/fleet").status_code == 200  # the stored tokens were read just now
        with closing(Store(server.home / "scheduler.sqlite", Access.WRITE)) as store:
            token = asyncio.run(store.write(stored.create, f"new-{number}", ["read"], None))
        assert ask(server, token, "GET", "/v1/fleet").status_code == 200


def test_tokens_that_nobody_has_keep_one_reader_busy() -> None:
    reads: list[float] = []

    async def read() -> list[stored.Token]:
        reads.append(now())
        await asyncio.sleep(0.05)
        return []

    async def guess() -> list[Principal | None]:
        keys = Keys("x" * 20, read)
        return await asyncio.gather(*(keys.find(f"guess-{number}") for number in range(500)))

    assert asyncio.run(guess()) == [None] * 500
    assert len(reads) <= 3


def test_a_revoked_token_is_void_within_a_second_or_two(server: Scheduler) -> None:
    token = create(server, "shortlived", "read")
    assert ask(server, token, "GET", "/v1/fleet").status_code == 200
    assert "shortlived  read  created" in run(server, "list").stdout
    assert token not in run(server, "list").stdout
    assert run(server, "revoke", "shortlived").returncode == 0
    until(lambda: ask(server, token, "GET", "/v1/fleet").status_code == 401, 3)
    again = run(server, "revoke", "shortlived")
    assert (again.returncode, again.stderr) == (1, "Error: there is no token named 'shortlived'\n")


def test_a_token_ends_with_its_days(server: Scheduler) -> None:
    made = run(server, "create", "brief", "--scope=read", "--days=0.000001")
    until(lambda: ask(server, made.stdout.strip(), "GET", "/v1/fleet").status_code == 401, 3)


def test_a_name_is_given_once(server: Scheduler) -> None:
    create(server, "twice", "read")
    again = run(server, "create", "twice", "--scope=read")
    assert again.returncode == 1
    assert again.stderr == "Error: there is a token named 'twice' already; revoke it first\n"
    assert run(server, "create", "odd", "--scope=everything").returncode == 2


def test_tokens_are_not_in_the_database_as_they_are(server: Scheduler) -> None:
    token = create(server, "secret", "read")
    stored = b"".join(path.read_bytes() for path in server.home.glob("scheduler.sqlite*"))
    assert b"secret" in stored
    assert token.encode() not in stored


def test_a_key_belongs_to_who_uses_it(server: Scheduler) -> None:
    other = create(server, "other", "jobs:write")
    headers = {"Idempotency-Key": "mine"}
    first = server.submit(headers=headers)
    second = httpx.post(
        f"{server.url}/v1/jobs", json=JOB, headers={**headers, "Authorization": f"Bearer {other}"}, timeout=10
    )
    assert second.status_code == 201
    assert second.json()["id"] != first["id"]
    for job in (first, second.json()):
        server.post(f"/v1/jobs/{job['id']}/cancel")


def test_a_full_queue_says_when_to_come_back(server: Scheduler) -> None:
    waiting = [server.submit(gpus=9) for _ in range(3)]
    answer = server.http.post("/v1/jobs", json=JOB)
    assert (answer.status_code, answer.headers["content-type"]) == (503, "application/problem+json")
    assert int(answer.headers["retry-after"]) >= 1
    assert answer.json()["detail"] == "3 jobs wait already, and no more than 3 may"
    server.post(f"/v1/jobs/{waiting[0]['id']}/cancel")
    assert server.http.post("/v1/jobs", json=JOB).status_code == 201


def test_a_listener_that_comes_too_late_is_told_to_read_anew(server: Scheduler) -> None:
    server.remove_all()
    for _ in range(4):
        server.post(f"/v1/jobs/{server.submit(gpus=9)['id']}/cancel")
    until(lambda: _is_gone(server), 20)
    newest = server.get("/v1/fleet?detail=none")["sequence"]
    with server.http.stream("GET", f"/v1/events?after={newest - 1}") as stream:
        assert stream.status_code == 200


def test_of_the_ended_jobs_the_newest_are_kept(server: Scheduler) -> None:
    server.remove_all()
    names = []
    for _ in range(2):
        names.append(server.submit(gpus=9)["id"])
        server.post(f"/v1/jobs/{names[-1]}/cancel")
    until(lambda: server.http.get(f"/v1/jobs/{names[0]}").status_code == 404, 20)
    assert server.job(names[1])["state"] == "cancelled"


def _is_gone(server: Scheduler) -> bool:
    """A stream has no end of its own, so only its head is read."""
    with server.http.stream("GET", "/v1/events?after=1") as stream:
        if stream.status_code != 410:
            return False
        problem = json.loads(stream.read())
    assert stream.headers["content-type"] == "application/problem+json"
    assert "the events after 1 are gone" in problem["detail"]
    return True


def test_an_open_address_needs_a_real_token(tmp_path: Path) -> None:
    check_exposure("127.0.0.1", "short", tmp_path)
    with pytest.raises(ValueError, match=r"has 5 characters; to listen on 0\.0\.0\.0, beyond loopback, it needs 20"):
        check_exposure("0.0.0.0", "short", tmp_path)  # noqa: S104
    (tmp_path / "token").write_text("short")
    log = tmp_path / "log"
    refused = Process(["scheduler", "serve", "--host", "0.0.0.0", "--port", "0"], tmp_path, log)  # noqa: S104
    until(lambda: refused.ended, 30)
    assert log.read_text().startswith("Error: the token in ")
