"""Claims: of the processes that need the same thing, the first makes it and the others wait for it.

A claim is a lock of the file system and dies with its process; one that waited then makes the thing, or continues it.
"""

from __future__ import annotations

import fcntl
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

from tract_ray.config import InputError
from tract_ray.files import open_lock
from tract_ray.training.worker import Worker

POLL_SECONDS = 0.3
READY, MINE, BUSY = "ready", "mine", "busy"


@contextmanager
def claim(lock: Path, ready: Callable[[], bool], worker: Worker) -> Iterator[bool]:
    """Yields True where the thing is `ready`, at once or after waiting, and False with the right to make it.

    All workers of a run call this and are told the same; the leading one holds the file `lock` until the block ends.
    The file stays: whoever removed it could remove one that another process has just locked.
    """
    with ExitStack() as held:
        while (answer := worker.gather(_try(lock, ready, held) if worker.leads else "")[0]) == BUSY:
            time.sleep(POLL_SECONDS)
        yield answer == READY


def _try(lock: Path, ready: Callable[[], bool], held: ExitStack) -> str:
    """How things stand; with the answer `MINE`, the lock is in `held`."""
    if ready():
        return READY
    lock.parent.mkdir(parents=True, exist_ok=True)
    with ExitStack() as opened:
        try:
            file = opened.enter_context(open_lock(lock))
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            return BUSY
        except OSError as error:
            raise InputError(f"storage: {lock} cannot be locked ({error.strerror}); choose another place") from None
        if ready():  # made between the two looks
            return READY
        held.enter_context(opened.pop_all())
        return MINE
