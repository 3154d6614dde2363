"""SIGTERM (preemption, `ray job stop`) ends a command in order: training writes a checkpoint, and the status is 143."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

TERMINATED = 143
"""The status of a command that SIGTERM has ended, as shells know it."""


class _Terminal:
    """What this process has heard of SIGTERM."""

    line = ""
    came = False


def end_at_sigterm(line: str) -> None:
    """From now on SIGTERM raises KeyboardInterrupt in the main thread, after `line` has been printed: who stops a
    process may not wait until it has tidied up. A second one changes nothing.
    """
    if threading.current_thread() is threading.main_thread():
        _Terminal.line, _Terminal.came = line, False
        signal.signal(signal.SIGTERM, _terminate)


def leave(reason: str) -> None:
    """End a command at once, from any thread, as what its machine failed; does nothing to a process that is none."""
    if _Terminal.line:
        with suppress(Exception):
            sys.stdout.flush()
        os.write(2, f"{_clear()}failed: {reason}; {_Terminal.line}\n".encode())
        os._exit(os.EX_TEMPFAIL)


def terminated() -> bool:
    """Whether SIGTERM has come."""
    return _Terminal.came


def _say() -> None:
    """To standard error, past its buffer, which the interrupted code may be filling."""
    os.write(2, f"{_clear()}terminated; {_Terminal.line}\n".encode())


def _clear() -> str:
    return "\r\x1b[2K" if os.isatty(2) else ""  # a line of progress may stand there


def _terminate(*_: object) -> None:
    if not _Terminal.came:
        _Terminal.came = True
        _say()
        raise KeyboardInterrupt


def _hold(*_: object) -> None:
    if not _Terminal.came:
        _Terminal.came = True
        _say()


def _is_ours() -> bool:
    main = threading.current_thread() is threading.main_thread()
    return main and signal.getsignal(signal.SIGTERM) is _terminate


@contextmanager
def keep_sigterm() -> Iterator[None]:
    """Where SIGTERM ends a command, it still does after this, whatever handler is set meanwhile."""
    ours = _is_ours()
    try:
        yield
    finally:
        if ours:
            signal.signal(signal.SIGTERM, _terminate)


@contextmanager
def hold_sigterm() -> Iterator[Callable[[], bool]]:
    """Where SIGTERM ends a command, it does so at the end of this; gives what tells that it has come."""
    ours = _is_ours()
    if ours:
        signal.signal(signal.SIGTERM, _hold)
    try:
        yield lambda: ours and _Terminal.came
    finally:
        if ours:
            signal.signal(signal.SIGTERM, _terminate)
    if ours and _Terminal.came:
        raise KeyboardInterrupt


@contextmanager
def release_sigterm() -> Iterator[None]:
    """Within `hold_sigterm`: what may be interrupted all the same, as it takes long and is done again."""
    main = threading.current_thread() is threading.main_thread()
    held = main and signal.getsignal(signal.SIGTERM) is _hold
    if held:
        if _Terminal.came:
            raise KeyboardInterrupt
        signal.signal(signal.SIGTERM, _terminate)
    try:
        yield
    finally:
        if held:
            signal.signal(signal.SIGTERM, _hold)
