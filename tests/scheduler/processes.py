"""Real schedulers and agents: processes with a home of their own, on free ports."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Self, TypeVar

import httpx

ROOT = Path(__file__).parents[2]
Json = dict[str, Any]
T = TypeVar("T")


class Process:
    """A child that is always waited for."""

    def __init__(self, arguments: list[str], home: Path, log: Path) -> None:
        self.log = log
        with log.open("ab") as file:
            self._child = subprocess.Popen(
                [sys.executable, "-m", *arguments],
                cwd=ROOT,
                env={**os.environ, "STETHOS_HOME": str(home), "STETHOS_LOG": "json"},
                stdout=file,
                stderr=file,
            )

    def send(self, number: signal.Signals) -> int:
        """Send a signal, and wait for the exit code."""
        self._child.send_signal(number)
        return self._child.wait(20)

    @property
    def pid(self) -> int:
        return self._child.pid

    @property
    def ended(self) -> bool:
        return self._child.poll() is not None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._child.kill()
        self._child.wait()


def until(look: Callable[[], T | None], seconds: float = 60.0) -> T:
    """The first truthy answer; fails with the last one when there is none in time."""
    end = time.monotonic() + seconds
    while not (found := look()):
        assert time.monotonic() < end, f"still {found!r} after {seconds} s"
        time.sleep(0.05)
    return found


class Scheduler:
    """A scheduler process with its HTTP client."""

    def __init__(self, home: Path, *options: str, port: int = 0) -> None:
        self.home = home
        self._options = options
        self.http = httpx.Client()
        self.start(port)

    def start(self, port: int = 0) -> None:
        log = self.home / "serve.log"
        self.home.mkdir(exist_ok=True)
        before = log.read_text() if log.exists() else ""
        self.process = Process(["scheduler", "serve", "--port", str(port), *self._options], self.home, log)

        def announced() -> "re.Match[str] | None":
            assert not self.process.ended, log.read_text()
            return re.search(r"Stethos: (\S+)/login\?token=(\S+)", log.read_text()[len(before) :])

        self.http.close()
        url, token = until(announced, 120).groups()
        self.url, self.port = url, int(url.rpartition(":")[2])
        self.token = token
        self.http = httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=10)
        until(self._ready, 60)

    def _ready(self) -> bool:
        try:
            return self.http.get("/readyz").is_success
        except httpx.TransportError:
            return False

    def agent(self, *options: str, log: str = "agent.log") -> Process:
        arguments = ["scheduler", "agent", "--server", self.url, *options]
        return Process(arguments, self.home, self.home / log)

    def close(self) -> None:
        self.http.close()
        self.process.__exit__()

    def submit(self, headers: Mapping[str, str] | None = None, **wanted: object) -> Json:
        body = {"type": "sleep", "gpus": 1, "duration_seconds": 0.1} | wanted
        answer = self.http.post("/v1/jobs", json=body, headers=headers)
        assert answer.status_code == 201, answer.text
        found: Json = answer.json()
        return found

    def job(self, id: str) -> Json:  # noqa: A002
        return self.get(f"/v1/jobs/{id}")

    def get(self, path: str) -> Json:
        answer = self.http.get(path)
        assert answer.status_code == 200, answer.text
        found: Json = answer.json()
        return found

    def post(self, path: str, body: object = None, status: int = 200) -> Json:
        answer = self.http.post(path, json=body)
        assert answer.status_code == status, answer.text
        found: Json = answer.json() if answer.content else {}
        return found

    def becomes(self, job: Json, *states: str, seconds: float = 60.0) -> Json:
        """The job once it is in one of the states."""

        def look() -> Json | None:
            found = self.job(job["id"])
            return found if found["state"] in states else None

        try:
            return until(look, seconds)
        except AssertionError:
            raise AssertionError(f"not {states}: {self.job(job['id'])}") from None

    def node(self, name: str, gpus: int = 8, **more: object) -> Json:
        """Register a node and let it be heard, as an agent does."""
        self.post("/v1/nodes", {"node": name, "gpus": gpus, **more}, 201)
        self.beat({name: []})
        return self.get(f"/v1/nodes/{name}")

    def beat(self, held: Mapping[str, list[int]], wait_seconds: float = 0.0) -> Json:
        nodes = [{"node": node, "attempts": fences} for node, fences in held.items()]
        return self.post("/v1/heartbeats", {"nodes": nodes, "wait_seconds": wait_seconds})

    def offered(self, node: str) -> Json:
        """The next attempt offered to a node, without beginning it."""
        start: Json = until(lambda: self.beat({node: []}, 0.2)["start"])[0]
        return start

    def remove_all(self) -> None:
        self.http.put("/v1/workload", json={"preset": "Off"})
        for state in ("queued", "assigned", "running"):
            for job in self.get(f"/v1/jobs?limit=1000&state={state}")["jobs"]:
                self.http.post(f"/v1/jobs/{job['id']}/cancel")
        for node in self.get("/v1/nodes")["nodes"]:
            self.http.delete(f"/v1/nodes/{node['node']}", params={"force": "true"})
