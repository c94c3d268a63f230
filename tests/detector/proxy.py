"""A TCP proxy in front of a server that a test slows down or breaks."""

from __future__ import annotations

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Literal

Mode = Literal["through", "late", "stall", "cut", "drip"]

_LATE = 3.0  # seconds
_BEFORE = 150  # bytes of an answer, more than its head, that come before it stalls, drips or is cut
_DRIP = 0.05  # seconds between two bytes


class Proxy:
    """Hands on what both sides say. mode: what becomes of the server's answers from now on."""

    def __init__(self, port: int) -> None:
        self.mode: Mode = "through"
        self._server = "127.0.0.1", port
        self._closing = threading.Event()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        self._sockets: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    def close(self) -> None:
        self._closing.set()
        for each in (self._listener, *self._sockets):
            _shut(each)
        for thread in self._threads:
            thread.join()

    def _start(self, target: object, *arguments: object) -> None:
        thread = threading.Thread(target=target, args=arguments)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        with suppress(OSError):
            while not self._closing.is_set():
                client = self._listener.accept()[0]
                self._sockets.append(client)
                server = socket.create_connection(self._server)
                self._sockets.append(server)
                self._start(self._ask, client, server)
                self._start(self._answer, server, client)

    def _ask(self, client: socket.socket, server: socket.socket) -> None:
        with suppress(OSError):
            while said := client.recv(65536):
                server.sendall(said)
        _shut(server)

    def _answer(self, server: socket.socket, client: socket.socket) -> None:
        with suppress(OSError):
            while said := server.recv(65536):
                if not self._say(client, said):
                    break
        _shut(client)

    def _say(self, client: socket.socket, said: bytes) -> bool:
        """Whether the connection goes on."""
        mode = self.mode
        if mode == "late":
            self._closing.wait(_LATE)
        if mode in ("through", "late"):
            client.sendall(said)
            return True
        client.sendall(said[:_BEFORE])
        if mode == "drip":
            for byte in said[_BEFORE:]:
                client.sendall(bytes([byte]))
                self._closing.wait(_DRIP)
            return True
        while mode == "stall" == self.mode and not self._closing.wait(0.05):
            pass
        return False


@contextmanager
def proxy(port: int) -> Iterator[Proxy]:
    made = Proxy(port)
    try:
        yield made
    finally:
        made.close()


def _shut(one: socket.socket) -> None:
    with suppress(OSError):
        one.shutdown(socket.SHUT_RDWR)
    one.close()
