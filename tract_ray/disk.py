"""A full disk: what is written waits for room and says so once, or ends in one line. Nothing half-written is left."""

from __future__ import annotations

import errno
import sys
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TypeVar

from tract_ray.config import MachineFailed, choose
from tract_ray.stopping import terminated

T = TypeVar("T")
POLICIES = ("wait", "fail")
FULL = (errno.ENOSPC, errno.EDQUOT)
WORDS = ("No space left on device", "disk is full", "Disk quota exceeded")
"""How libraries say it that hand no number on: safetensors, SQLite."""
WAIT_SECONDS = 1.0


def _print(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


class _Policy:
    """What this process does when a disk is full, and whom it tells."""

    name = "wait"
    say: Callable[[str], None] = staticmethod(_print)


def on_disk_full(policy: str, say: Callable[[str], None] = _print) -> None:
    """From now on this process waits for room on a full disk (`wait`, the default), which it `say`s, or it fails."""
    _Policy.name, _Policy.say = choose("on-disk-full", policy, POLICIES), staticmethod(say)


def is_full(error: BaseException | None) -> bool:
    """Whether an error, or what caused it, says that a disk, or a quota, is full."""
    while error is not None:
        number = getattr(error, "errno", None)
        if number in FULL or (number is None and any(word in str(error) for word in WORDS)):
            return True
        error = error.__cause__
    return False


def with_room(path: Path, write: Callable[[], T]) -> T:
    """What `write` returns, which writes `path`, all of it or nothing: called again until there is room.

    Raises `MachineFailed` where nobody is to wait.
    """
    waits = False
    while True:
        full: Exception | None = None
        try:
            return write()
        except Exception as error:
            if not is_full(error):
                raise
            full = error
        if _Policy.name == "fail" or terminated():
            raise MachineFailed(f"storage: no space is left for {path}") from full
        if not waits:
            waits = True
            with suppress(OSError):  # who keeps what is said may have no room either
                _Policy.say(f"storage: no space is left for {path}; waiting (--on-disk-full fail would end)")
        time.sleep(WAIT_SECONDS)
