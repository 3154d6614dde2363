"""The server, from a free port to one line at its end."""

from __future__ import annotations

import signal
import socket
from typing import Any

import uvicorn
from fastapi import FastAPI

from tract_ray.config import InputError, require

LOOPBACK = "127.0.0.1"
_PATIENCE = 5  # seconds that requests have to end


def listen(port: int) -> socket.socket:
    """A socket on loopback; `port` 0 is any free one. `InputError` where it is taken."""
    require(0 <= port < 1 << 16, "port", f"must be from 0 to {(1 << 16) - 1}, got {port}")
    place = socket.socket()
    place.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        place.bind((LOOPBACK, port))
        place.listen()
    except OSError as error:
        place.close()
        raise InputError(
            f"port: {port} cannot be had ({error.strerror}); choose another, or 0 for a free one"
        ) from None
    return place


def serve_until_stopped(app: FastAPI, place: socket.socket) -> None:
    """Answer until Ctrl-C or SIGTERM; requests that run then are finished."""

    def stop(*_: Any) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)  # the server raises it anew when it has ended
    try:
        config = uvicorn.Config(app, log_level="warning", access_log=False, timeout_graceful_shutdown=_PATIENCE)
        uvicorn.Server(config).run(sockets=[place])
    except KeyboardInterrupt:
        pass
    finally:
        signal.signal(signal.SIGTERM, before)
        place.close()
