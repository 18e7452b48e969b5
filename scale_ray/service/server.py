"""The HTTP server of the service: a port that is taken before any work, and an end by Ctrl-C or SIGTERM."""

import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import uvicorn
from fastapi import FastAPI

from scale_ray.config import ConfigError

_GRACE = 5  # seconds for requests that are under way when the server is told to end


def listen(host: str, port: int) -> socket.socket:
    """A socket that listens there.

    Raises:
        ConfigError: another program does already, or the host is no address of this machine.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        return socket.create_server((host, port), family=family, backlog=2048)
    except OSError as error:
        reason = str(error.strerror).partition(" (")[0]  # Python adds the address, in words of its own
        raise ConfigError(
            f"{host}:{port}: the service cannot listen there ({reason}): is another one running? Choose --port"
        ) from None


def serve_until_told(app: FastAPI, listening: socket.socket) -> None:
    """Serve until Ctrl-C or SIGTERM.

    Raises:
        KeyboardInterrupt: after Ctrl-C.
    """
    server = _Server(uvicorn.Config(app, log_config=None, timeout_graceful_shutdown=_GRACE))
    server.run([listening])
    if server.ended_by == signal.SIGINT:
        raise KeyboardInterrupt


class _Server(uvicorn.Server):
    """uvicorn's own raises the signal again at its end, which would count as a second Ctrl-C."""

    ended_by = 0

    def handle_exit(self, number: int, frame: FrameType | None) -> None:
        self.ended_by = number
        super().handle_exit(number, frame)

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
