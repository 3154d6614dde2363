"""On which device a call computes, and what a person sees of it meanwhile."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import IO

import torch

from tract_ray.config import InputError, require
from tract_ray.terminal import Progress
from tract_ray.training import Worker, default_device

Say = Callable[[str], None]
Seen = Callable[[int, str | None], None]
"""Told how many images were seen, and what to say beside that (None: what was said last)."""


def worker_on(device: str | torch.device | None = None, threads: int = 0) -> Worker:
    """One process on `device` (default: the GPU where there is one) with so many CPU `threads` (0: torch's choice)."""
    if threads:
        require(threads > 0, "threads", f"must be positive, got {threads}")
        most = max(64, os.cpu_count() or 1)
        require(threads <= most, "threads", f"must be at most {most} on this machine, got {threads}")
        torch.set_num_threads(threads)
    if device is None:
        return Worker(device=default_device())
    try:
        chosen = torch.device(device)
        torch.zeros(1, device=chosen).cpu()
    except (RuntimeError, AssertionError, UnicodeError) as error:
        raise InputError(f"device: {str(device)!r} does not work here ({str(error).splitlines()[0]})") from None
    return Worker(device=chosen)


@contextmanager
def shown(title: str, total: int, progress: bool | IO[str]) -> Iterator[tuple[Seen, Say]]:
    """Progress of `total` images and lines that stay, to the stream `progress` (True: stderr; False: nowhere).

    A line that was said is not said again.
    """
    if progress is False:
        yield lambda seen, note: None, lambda text: None
        return
    said = set[str]()
    with Progress(title, total, sys.stderr if progress is True else progress) as line:

        def say(text: str) -> None:
            if text not in said:
                said.add(text)
                line.say(text)

        yield lambda seen, note: line.update(title, seen, note), say
