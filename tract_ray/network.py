"""Whether somebody answers at an address: one that is listened to and silent would be waited for for minutes."""

from __future__ import annotations

import socket

SECONDS = 10.0


def first_answer(host: str, port: int, asked: bytes) -> bytes:
    """The first bytes (16 at most) that come back for what is `asked`; b"" where the other side hangs up.

    Raises `OSError`, `TimeoutError` among them, where nothing comes within `SECONDS`.
    """
    with socket.create_connection((host, port), timeout=SECONDS) as connection:
        if asked:
            connection.sendall(asked)
        return connection.recv(16)
