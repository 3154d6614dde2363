"""The cluster's head, without which nothing of a sweep goes on: its loss is one line and not Ray's dump."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from tract_ray.cluster.resources import answers
from tract_ray.config import InputError, MachineFailed, RunFailed
from tract_ray.stopping import leave

LOST_SECONDS = 30.0
"""A head that does not answer for so long is gone; Ray itself aborts its driver after 60."""
LOOK_SECONDS = 2.0


@contextmanager
def watched_head() -> Iterator[None]:
    """While this is open, a command whose head is gone ends as one that its machine failed.

    Ray's calls hang by then, or raise one of many errors, and its end at exit hangs too: the process is left at once.
    What it had computed is on disk.
    """
    address, over = str(ray.get_runtime_context().gcs_address), threading.Event()
    line = f"cluster: its head at {address} is gone"

    def watch() -> None:
        silent = 0.0
        while not over.wait(LOOK_SECONDS):
            silent = 0.0 if answers(address) else silent + LOOK_SECONDS
            if silent >= LOST_SECONDS:
                leave(line)

    thread = threading.Thread(target=watch, name="head", daemon=True)
    thread.start()
    try:
        yield
    except (InputError, MachineFailed, RunFailed):
        raise
    except Exception as error:
        if answers(address):
            raise
        leave(line)
        raise MachineFailed(line) from error
    finally:
        over.set()
