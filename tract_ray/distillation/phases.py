"""Phases: which steps a student of fewer steps learns to skip, and for how long."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from operator import index

from tract_ray.config import InputError, require

MAX_STEPS = 1 << 20
"""More steps than this no sampler has."""


@dataclass(frozen=True)
class Phase:
    """Optimiser steps `start … start + steps - 1` of a run, which turn `teacher_steps` into `student_steps`."""

    index: int
    start: int
    steps: int
    teacher_steps: int
    student_steps: int

    @property
    def end(self) -> int:
        """The first optimiser step after this phase."""
        return self.start + self.steps

    @property
    def group(self) -> int:
        """Teacher steps that the student covers in one: T / T'."""
        return self.teacher_steps // self.student_steps


def phase_at(phases: Sequence[Phase], step: int) -> Phase:
    """The phase that optimiser step `step` of a run belongs to."""
    return next(phase for phase in phases if phase.start <= step < phase.end)


def parse_time_schedule(text: str | Sequence[int]) -> tuple[int, ...]:
    """`"1024,32,1"` -> `(1024, 32, 1)`. Raises `InputError` unless each number divides the one before.

    A number may follow itself: 1024,32,32,1 has a phase of equal steps, in which another network learns what the
    teacher knows (knowledge distillation; TRACT, section 4.2).
    """
    try:
        numbers = tuple(int(part) for part in text.split(",")) if isinstance(text, str) else tuple(map(index, text))
    except (ValueError, TypeError):
        raise InputError(f"time_schedule: {text!r} is not a list of whole numbers (example: 1024,32,1)") from None
    require(len(numbers) >= 2, "time_schedule", f"{text!r} needs at least two numbers (example: 1024,32,1)")
    require(numbers[0] <= MAX_STEPS, "time_schedule", f"begins with at most {MAX_STEPS} steps, got {numbers[0]}")
    for before, after in pairwise(numbers):
        require(0 < after <= before, "time_schedule", f"must not grow, nor end below 1, but {after} follows {before}")
        require(
            before % after == 0,
            "time_schedule",
            f"each number must divide the one before: {after} does not divide {before}",
        )
    return numbers


def lay_out_phases(time_schedule: Sequence[int], steps: int, shares: Sequence[float] = ()) -> tuple[Phase, ...]:
    """Phases of a run of `steps` optimiser steps. `shares` are their relative lengths, equal by default."""
    count = len(time_schedule) - 1
    require(
        not shares or len(shares) == count, "phase_shares", f"{count} phases need {count} shares, got {len(shares)}"
    )
    require(all(share > 0 for share in shares), "phase_shares", "every share must be positive")
    require(steps >= count, "samples", f"{steps} optimiser steps are too few for {count} phases")
    weights = list(shares) or [1.0] * count
    total = sum(weights)
    ends = [round(steps * sum(weights[: k + 1]) / total) for k in range(count)]
    starts = [0, *ends[:-1]]
    require(all(a < b for a, b in zip(starts, ends, strict=True)), "phase_shares", "a phase is shorter than one step")
    return tuple(
        Phase(k, start, end - start, before, after)
        for k, (start, end, (before, after)) in enumerate(zip(starts, ends, pairwise(time_schedule), strict=True))
    )
