"""Time schedules as a search space: how many phases there are, and where each of them ends."""

from __future__ import annotations

from collections.abc import Sequence

Schedule = tuple[int, ...]


def finest_schedule(longest: int) -> Schedule:
    """The schedule of most phases from `longest` steps to one, smallest factors first.

    >>> finest_schedule(16), finest_schedule(40)
    ((16, 8, 4, 2, 1), (40, 20, 10, 5, 1))
    """
    chain = [longest]
    while (steps := chain[-1]) > 1:
        chain.append(steps // next(factor for factor in range(2, steps + 1) if steps % factor == 0))
    return tuple(chain)


def schedule_of(cuts: Sequence[float], finest: Schedule) -> Schedule:
    """Cuts in [0, 1] -> a part of `finest`, its ends included, as near to the cuts as strict decrease allows."""
    last = len(finest) - 1
    ends: list[int] = []
    for place, cut in enumerate(sorted(cuts)):
        left = len(cuts) - place - 1  # cuts that must still fit behind this one
        first = ends[-1] + 1 if ends else 1
        ends.append(min(max(round(cut * last), first), last - 1 - left))
    return tuple(finest[end] for end in (0, *ends, last))


def cuts_of(schedule: Schedule, finest: Schedule) -> list[float]:
    """The inverse: where the phases but the last one end, in [0, 1]."""
    return [finest.index(steps) / (len(finest) - 1) for steps in schedule[1:-1]]
