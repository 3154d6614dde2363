"""What a person sees of a command: progress that reads well in a terminal and in a log, tables, and how it ends."""

from __future__ import annotations

import os
import sys
import threading
import time
import warnings
from collections.abc import Mapping, Sequence
from typing import IO, Any

import typer
from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.live import Live
from rich.markup import escape
from rich.table import Table

from tract_ray.config import InputError, MachineFailed, RunFailed
from tract_ray.disk import is_full
from tract_ray.stopping import TERMINATED, end_at_sigterm, terminated

_UsageError: Any = typer.BadParameter.__base__  # typer brings its own or click's, and names neither

LOG_SECONDS = 15.0
LOG_COLUMNS = 140


def make_console(stream: IO[str] | None = None) -> Console:
    """What everything is printed to: as wide as the terminal; in a log, wide enough for a table."""
    console = Console(file=stream or sys.stdout, highlight=False, soft_wrap=True)
    if not console.is_terminal and "COLUMNS" not in os.environ:
        console.width = LOG_COLUMNS
    return console


def duration(seconds: float) -> str:
    """`75` -> `1:15`."""
    minutes, rest = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


class Progress:
    """Rate, time left and best so far of long work that is counted in training images.

    In a terminal one line is redrawn; elsewhere a line is printed when something ends and at most every 15 seconds.
    """

    def __init__(self, title: str, total: int, stream: IO[str] | None = None, unit: str = "images") -> None:
        self.title, self.total, self.unit = title, max(total, 1), unit
        self.console = make_console(stream)
        self.done: dict[str, int] = {}
        self.note = ""
        self.started = time.monotonic()
        self._first: int | None = None
        self._printed = self.started
        self._lock = threading.Lock()
        self._live = Live(console=self.console, refresh_per_second=4) if self.console.is_terminal else None

    def __enter__(self) -> Progress:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *error: object) -> None:
        if self._live:
            self._live.stop()

    def update(self, part: str, done: int, note: str | None = None) -> None:
        """`part` (a trial) has seen `done` images; `note` replaces what follows the numbers."""
        with self._lock:
            self.done[part] = max(done, self.done.get(part, 0))
            if self._first is None:  # a rate counts from here: before, machines were starting
                self._first, self.started = sum(self.done.values()), time.monotonic()
                self._printed = self.started
            self.note = note if note is not None else self.note
            if self._live:
                self._live.update(self.line(self.console.width))
            elif time.monotonic() - self._printed >= LOG_SECONDS:
                self._printed = time.monotonic()
                self.console.print(self.line())

    def say(self, text: str) -> None:
        """A line that stays."""
        self.console.print(text)

    def line(self, width: int | None = None) -> str:
        """`mu search  45%  27,000 of 60,000 images  3,120/s  0:11 left  best 4.85`; without the counts where it must
        fit into fewer columns, which would cut off the best.
        """
        seen, elapsed = sum(self.done.values()), time.monotonic() - self.started
        rate = (seen - (self._first or 0)) / max(elapsed, 1e-6)
        left = duration(max(0, self.total - seen) / rate) if rate > 0 else "?"
        part, counts = f"{self.title}  {min(1.0, seen / self.total):4.0%}", f"{seen:,} of {self.total:,} {self.unit}"
        rest = f"{rate:,.0f}/s  {left} left  {self.note}".rstrip()
        whole = f"{part}  {counts}  {rest}"
        return whole if width is None or len(whole) <= width else f"{part}  {rest}"


def print_table(console: Console, title: str, rows: Sequence[Mapping[str, Any]], right: tuple[str, ...] = ()) -> None:
    """Rows as a table; columns are the first row's keys."""
    table = Table(title=title, title_justify="left", title_style="bold", box=SIMPLE_HEAD, pad_edge=False)
    for number, column in enumerate(rows[0]):
        table.add_column(column, justify="right" if column in right else "left", no_wrap=number == 0, overflow="fold")
    for row in rows:
        table.add_row(*("" if value is None else escape(str(value)) for value in row.values()))
    console.print(table)


def run_app(app: typer.Typer, continues: str = "the same command continues") -> None:
    """Run a command line and exit with its status, in one line: 2 for bad input, 1 for a run that diverged, 75 for what
    the machine failed (`EX_TEMPFAIL`: to be tried again), 130 for Ctrl-C, 143 for SIGTERM.
    """
    end_at_sigterm(continues)
    warnings.filterwarnings("ignore", category=FutureWarning)
    try:
        status = app(standalone_mode=False)
    except _UsageError as error:
        if type(error).__name__ == "NoArgsIsHelpError":  # nothing was typed: its message is the help
            error.show()
            sys.exit(2)
        where = f" (see `{error.ctx.command_path} --help`)" if error.ctx else ""
        print(f"error: {' '.join(error.format_message().split()).rstrip('.')}{where}", file=sys.stderr)
        sys.exit(2)
    except InputError as error:
        # Ray hands an error of a task on as one that carries the task's traceback; the cause is the line itself.
        print(f"error: {getattr(error, 'cause', error)}", file=sys.stderr)
        sys.exit(2)
    except RunFailed as failure:
        print(f"failed: {getattr(failure, 'cause', failure)}", file=sys.stderr)
        sys.exit(1)
    except KeyboardInterrupt:
        status = 130
    except Exception as failure:
        full = "storage: no space is left on a disk" if is_full(failure) else ""
        if not full and not isinstance(failure, MachineFailed):
            raise
        if terminated():
            sys.exit(TERMINATED)
        line = full if not isinstance(failure, MachineFailed) else getattr(failure, "cause", failure)
        print(f"failed: {line}; {continues}", file=sys.stderr)
        sys.exit(os.EX_TEMPFAIL)
    if status == 130:  # typer makes the one into the other
        sys.stdout.flush()
        if terminated():
            sys.exit(TERMINATED)
        print(f"interrupted; {continues}", file=sys.stderr)
    sys.exit(status if isinstance(status, int) else 0)
