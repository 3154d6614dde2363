"""Times the calls of a running program from outside: for measurements, not for the program itself."""

from __future__ import annotations

import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from types import TracebackType
from typing import Any, NamedTuple
from unittest import mock

import numpy as np


class Call(NamedTuple):
    """One call: when it began (seconds), how long it took, its thread's CPU seconds, and the `stage` it fell into."""

    began: float
    seconds: float
    cpu: float
    stage: int
    outermost: bool


@dataclass(frozen=True)
class Row:
    """A name's calls: how many, median and 99th percentile in milliseconds early and late, and their sums."""

    name: str
    calls: int
    early: tuple[float, float]
    late: tuple[float, float]
    seconds: float
    cpu: float


class Stopwatch:
    """`time(owner, "method", group, name)` replaces the method by one that is timed, until the `with` block ends.

    Calls inside others of the same group and thread count in their own row, but not in the group's sum. `stage` is
    set from outside, to tell early calls from late ones.
    """

    def __init__(self) -> None:
        self.calls: dict[tuple[str, str], list[Call]] = defaultdict(list)
        self.stage = 0
        self._patches = ExitStack()
        self._active = threading.local()

    def __enter__(self) -> Stopwatch:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._patches.close()

    def time(
        self, owner: Any, method: str, group: str, name: str, note: Callable[..., None] | None = None
    ) -> Stopwatch:
        """Time `owner.method`; `note(*its arguments)` is called after each. Returns itself."""
        real, calls = getattr(owner, method), self.calls[group, name]

        def timed(*args: Any, **kwargs: Any) -> Any:
            active = self._active.__dict__
            outermost = not active.get(group)
            active[group] = active.get(group, 0) + 1
            stage, began, cpu = self.stage, time.perf_counter(), time.thread_time()
            try:
                return real(*args, **kwargs)
            finally:
                calls.append(Call(began, time.perf_counter() - began, time.thread_time() - cpu, stage, outermost))
                active[group] -= 1
                if note:
                    note(*args)

        self._patches.enter_context(mock.patch.object(owner, method, timed))
        return self

    def total(self, group: str) -> tuple[float, float]:
        """Seconds and CPU seconds of a group; calls inside calls count once."""
        chosen = [c for (g, _), calls in self.calls.items() if g == group for c in calls if c.outermost]
        return sum(call.seconds for call in chosen), sum(call.cpu for call in chosen)

    def rows(self, early: range, late: range) -> Iterator[tuple[str, Row]]:
        """(group, row) of every name that was called."""
        for (group, name), calls in self.calls.items():
            if calls:
                sums = sum(call.seconds for call in calls), sum(call.cpu for call in calls)
                yield group, Row(name, len(calls), _percentiles(calls, early), _percentiles(calls, late), *sums)


def _percentiles(calls: list[Call], stages: range) -> tuple[float, float]:
    chosen = [1000 * call.seconds for call in calls if call.stage in stages]
    if not chosen:
        return float("nan"), float("nan")
    return float(np.median(chosen)), float(np.quantile(chosen, 0.99))
