"""A real synthetic fleet: a process of the exporters."""

from pathlib import Path
from typing import Self

import httpx

from scheduler.server import listen

from .processes import Json, Process, until


def free_port() -> int:
    socket = listen("127.0.0.1", 0)
    with socket:
        return int(socket.getsockname()[1])


class Fleet:
    """`python -m exporters synthetic` with two nodes of two GPUs, under the token of the scheduler of that home."""

    def __init__(self, home: Path, token: str, *options: str, port: int | None = None) -> None:
        port = port or free_port()
        self.url = f"http://127.0.0.1:{port}"
        options = ("--nodes", "2", "--gpus-per-node", "2", "--port", str(port), *options)
        self.process = Process(["exporters", "synthetic", *options], home, home / "fleet.log")
        self.http = httpx.Client(base_url=self.url, headers={"Authorization": f"Bearer {token}"}, timeout=10)
        until(self._ready, 30)

    def _ready(self) -> bool:
        try:
            return self.http.get("/v1/nodes").is_success
        except httpx.TransportError:
            return False

    def loads(self) -> list[Json]:
        found: list[Json] = self.http.get("/v1/loads").json()["loads"]
        return [load for load in found if load["state"] == "running"]

    def fault(self, kind: str, node: str, gpu: int | None = None, severity: float = 1.0) -> str:
        """Put on a fault; its id."""
        wanted = {"kind": kind, "node": node, "gpu": gpu, "severity": severity}
        answer = self.http.post("/v1/faults", json={name: value for name, value in wanted.items() if value is not None})
        assert answer.status_code == 201, answer.text
        return str(answer.json()["id"])

    def limit(self, node: str, gpu: int) -> Json:
        """Heat, draw and power limit of a GPU."""
        gpus: list[Json] = self.http.get("/v1/power-limits").json()["gpus"]
        return next(each for each in gpus if (each["node"], each["gpu"]) == (node, gpu))

    def close(self) -> None:
        self.http.close()
        self.process.__exit__()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
