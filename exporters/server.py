"""Runs an application on uvicorn: a busy port is one sentence, Ctrl-C and SIGTERM end it with exit code 0."""

import asyncio
import gc
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager

import structlog
import uvicorn
from starlette.applications import Starlette

log = structlog.get_logger()


class AddressError(Exception):
    """The address cannot be listened on."""


class _Server(uvicorn.Server):
    # uvicorn raises the caught signal again after its shutdown, which would end the process by that signal.
    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        loop = asyncio.get_running_loop()
        caught = (signal.SIGINT, signal.SIGTERM)
        for each in caught:
            loop.add_signal_handler(each, self._stop)
        yield
        for each in caught:
            loop.remove_signal_handler(each)

    def _stop(self) -> None:
        self.force_exit = self.should_exit
        self.should_exit = True


def listen(host: str, port: int) -> socket.socket:
    """A listening socket; port 0 takes a free one. Raises `AddressError`."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # asyncio turns Nagle off only where the socket names TCP; with it each answer would wait 40 ms for an ACK.
    listener = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
        listener.bind((host, port))
        listener.listen(512)
        return listener
    except (OSError, TypeError) as error:  # the latter for what cannot be a name
        listener.close()
        reason = error.strerror if isinstance(error, OSError) else error
        raise AddressError(f"cannot listen on {host}:{port}: {reason}") from error


def serve(app: Starlette, listener: socket.socket, **facts: object) -> None:
    """Serves until a signal; `facts` go into the line that says where."""
    host, port = listener.getsockname()[:2]
    shown = f"[{host}]" if ":" in host else host
    log.info("listening", url=f"http://{shown}:{port}", **facts)
    config = uvicorn.Config(app, log_config=None, access_log=False, server_header=False, timeout_graceful_shutdown=3)
    gc.freeze()  # a full collection would go through every imported module, some 40 ms
    _Server(config).run(sockets=[listener])
    log.info("stopped")
