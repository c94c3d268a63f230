"""uvicorn with a socket opened first, so that a busy port is a sentence and port 0 is known."""

import gc
import socket
from types import FrameType

import uvicorn
from starlette.applications import Starlette


class BusyPortError(Exception):
    """The address cannot be listened on."""


def listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    # The protocol by name, because asyncio turns Nagle's delay off only where it reads TCP.
    listening = socket.socket(family, socket.SOCK_STREAM, socket.IPPROTO_TCP)
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listening.bind((host, port))
    except OSError as error:
        listening.close()
        raise BusyPortError(f"cannot listen on {host}:{port}: {error.strerror}") from error
    return listening


class Server(uvicorn.Server):
    """Tells the application's endless answers to end when it is time to stop."""

    def __init__(self, app: Starlette) -> None:
        config = uvicorn.Config(app, log_config=None, access_log=False, lifespan="on", timeout_graceful_shutdown=3)
        super().__init__(config)
        self._app = app

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        self._app.state.stop()
        super().handle_exit(sig, frame)
        # A signal is how this server is meant to end: uvicorn would raise it again afterwards.
        self._captured_signals.clear()


def serve(app: Starlette, listening: socket.socket) -> None:
    gc.freeze()  # a full collection would go through every imported module, some 40 ms
    Server(app).run(sockets=[listening])
