"""A load generator that costs little: one request at a time on each of many connections."""

import asyncio
import json
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Run:
    """What a run of requests gave: how many answers came with each status, and how long each took (s, sorted)."""

    seconds: float
    statuses: dict[int, int]
    latencies: list[float]

    def figures(self, wanted: int) -> dict[str, float]:
        """Answers with the status `wanted` per second, and percentiles of their latency in milliseconds."""
        found = {"per_second": self.statuses.get(wanted, 0) / self.seconds}
        found |= {f"p{percent:g}_ms": 1000 * quantile(self.latencies, percent / 100) for percent in (50, 99, 99.9)}
        refused = sum(count for status, count in self.statuses.items() if status != wanted)
        return {name: round(value, 2) for name, value in found.items()} | {"refused": refused}


def quantile(ordered: list[float], share: float) -> float:
    """The value that `share` of the ordered ones do not exceed."""
    return ordered[min(len(ordered) - 1, int(share * len(ordered)))] if ordered else float("nan")


def request(path: str, token: str, body: object) -> bytes:
    payload = json.dumps(body).encode()
    head = (
        f"POST {path} HTTP/1.1\r\nHost: bench\r\nAuthorization: Bearer {token}\r\n"
        f"Content-Type: application/json\r\nContent-Length: {len(payload)}\r\n\r\n"
    )
    return head.encode() + payload


class _Connection(asyncio.Protocol):
    """Reads no more of an answer than its status and its length."""

    def __init__(self) -> None:
        self._answer: asyncio.Future[int] | None = None
        self._read = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.WriteTransport)
        self.transport = transport

    def send(self, message: bytes) -> asyncio.Future[int]:
        self._answer = asyncio.get_running_loop().create_future()
        self.transport.write(message)
        return self._answer

    def data_received(self, data: bytes) -> None:
        self._read += data
        head, found, body = self._read.partition(b"\r\n\r\n")
        if not found or self._answer is None:
            return
        length = head.lower().partition(b"\r\ncontent-length:")[2].partition(b"\r\n")[0]
        if len(body) >= int(length or 0):
            self._read = b""
            self._answer.set_result(int(head[9:12]))

    def connection_lost(self, error: Exception | None) -> None:
        if self._answer and not self._answer.done():
            self._answer.set_exception(error or ConnectionResetError("the server closed the connection"))


async def run(
    host: str,
    port: int,
    message: Callable[[], bytes],
    seconds: float,
    connections: int = 16,
    per_second: float | None = None,
) -> Run:
    """Send for so many seconds: as fast as the answers come, or at a fixed rate.

    At a fixed rate a latency counts from when the request was due, so that a stall is not hidden by the
    requests that it kept from being sent.
    """
    loop = asyncio.get_running_loop()
    lines = [(await loop.create_connection(_Connection, host, port))[1] for _ in range(connections)]
    statuses: dict[int, int] = {}
    latencies: list[float] = []
    started = time.perf_counter()
    due = iter(range(10**9))

    async def work(line: _Connection) -> None:
        while (now := time.perf_counter()) - started < seconds:
            at = now
            if per_second is not None:
                at = started + next(due) / per_second
                if at - started >= seconds:
                    return
                await asyncio.sleep(at - now)
            status = await line.send(message())
            latencies.append(time.perf_counter() - at)
            statuses[status] = statuses.get(status, 0) + 1

    await asyncio.gather(*(work(line) for line in lines))
    elapsed = time.perf_counter() - started
    for line in lines:
        line.transport.close()
    return Run(elapsed, statuses, sorted(latencies))
