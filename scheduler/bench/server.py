"""A scheduler of its own for each measurement: a process, a fresh home, a free port."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx


@dataclass(frozen=True, slots=True)
class Server:
    url: str
    token: str
    process: "subprocess.Popen[bytes]"
    #: From the start of the process to its first ready answer.
    ready_seconds: float

    @property
    def port(self) -> int:
        return int(self.url.rpartition(":")[2])

    def cpu_seconds(self) -> float:
        """Processor time it has taken so far, which other load on the machine does not stretch."""
        user, system = Path(f"/proc/{self.process.pid}/stat").read_text().rpartition(")")[2].split()[11:13]
        return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")

    def client(self) -> httpx.Client:
        return httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {self.token}"}, timeout=60)


@contextmanager
def running(home: Path, *options: str) -> Iterator[Server]:
    """A server that answers /readyz; killed (-9) at the end."""
    log = home / "serve.log"
    home.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "scheduler", "serve", "--port", "0", *options]
    started = time.perf_counter()
    with log.open("wb") as file:
        process = subprocess.Popen(  # noqa: S603 - our own program
            command, env={**os.environ, "STETHOS_HOME": str(home), "STETHOS_LOG": "json"}, stdout=file, stderr=file
        )
    try:
        url, token = _announced(process, log)
        while not _ready(url):
            time.sleep(0.005)
        yield Server(url, token, process, time.perf_counter() - started)
    finally:
        process.kill()
        process.wait()


def _announced(process: "subprocess.Popen[bytes]", log: Path) -> Sequence[str]:
    while not (found := re.search(r"Stethos: (\S+)/login\?token=(\S+)", log.read_text())):
        if process.poll() is not None:
            raise RuntimeError(f"the scheduler did not start: {log.read_text()}")
        time.sleep(0.005)
    return found.groups()


def _ready(url: str) -> bool:
    try:
        return httpx.get(f"{url}/readyz", timeout=5).is_success
    except httpx.TransportError:
        return False
