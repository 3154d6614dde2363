"""Checkpoints beside the training: the state is copied at a step and written by a thread while the steps go on."""

from __future__ import annotations

import time
from collections.abc import Iterable, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from types import TracebackType

import torch

from tract_ray.distillation import Method
from tract_ray.training.checkpoint import Position, checkpoint_content, write_checkpoint

SHARE = 0.02
"""Of a run's time, what checkpoints may take; where they take longer, they are written less often."""
ASKED = "save-now"
"""A file of this name beside a checkpoint asks for one at once; it is gone when that is written."""
LOOK_SECONDS = 0.5


class CheckpointWriter:
    """Replaces the checkpoint at `path` about every `seconds` (0: only when told), one at a time.

    What is written is the state at the step of `save`, in one copy on the host; until it is written, the older one
    stays. Leaving the context waits for the thread. A disabled one (ranks > 0) writes nothing.
    """

    def __init__(self, path: Path, key: str, seconds: float, enabled: bool = True) -> None:
        self.path, self.key, self.seconds, self.enabled = path, key, seconds, enabled
        self.cost = 0.0  # seconds of the latest one, copy and writing
        self.saved = self.looked = time.monotonic()
        self.asked, self.answers = path.with_name(ASKED), False
        if enabled:
            self.asked.unlink(missing_ok=True)  # of whom nobody waits any more
        self.thread = ThreadPoolExecutor(1, thread_name_prefix="checkpoint")
        self.pending: Future[float] | None = None

    def __enter__(self) -> CheckpointWriter:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.thread.shutdown(wait=True)
        if error is None:
            self.wait()

    def due(self) -> bool:
        """Whether the latest one is so old that another may be written, or one is asked for; never while one is."""
        if not self.enabled or (self.pending and not self.pending.done()):
            return False
        self.wait()
        now = time.monotonic()
        if now - self.looked > LOOK_SECONDS:
            self.looked, self.answers = now, self.asked.exists()
        return self.answers or (self.seconds > 0 and now - self.saved > max(self.seconds, self.cost / SHARE))

    def save(self, method: Method, optimizers: Mapping[str, torch.optim.Optimizer], position: Position) -> None:
        """Copy the state as it is now, and write it soon; `wait` returns when it is on disk."""
        if not self.enabled:
            return
        self.wait()
        begun = time.monotonic()
        tensors, state = checkpoint_content(method, optimizers, position, self.key)
        copies = {name: tensor.detach().to("cpu", copy=True) for name, tensor in tensors.items()}
        copied = time.monotonic() - begun
        answers, self.answers = self.answers, False

        def write() -> float:
            started = time.monotonic()
            write_checkpoint(self.path, copies, state)
            copies.clear()
            if answers:
                self.asked.unlink(missing_ok=True)
            return copied + time.monotonic() - started

        self.pending = self.thread.submit(write)

    def wait(self) -> None:
        """Return when nothing is being written; raises what kept it from being written."""
        if self.pending is not None:
            pending, self.pending = self.pending, None
            self.cost, self.saved = pending.result(), time.monotonic()


def save_now(folders: Iterable[Path], seconds: float) -> None:
    """Ask the runs in `folders` for a checkpoint; returns when all are written, or after so many `seconds`."""
    asked = []
    for folder in folders:
        with suppress(OSError):  # one that has not begun has no folder
            (folder / ASKED).touch()
            asked.append(folder / ASKED)
    until = time.monotonic() + seconds
    while any(file.exists() for file in asked) and time.monotonic() < until:
        time.sleep(0.05)
