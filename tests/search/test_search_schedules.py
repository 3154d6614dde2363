"""Schedules from cuts, and cuts from schedules."""

from __future__ import annotations

from itertools import pairwise

import pytest

from tract_ray.distillation import parse_time_schedule
from tract_ray.search.schedules import cuts_of, finest_schedule, schedule_of


@pytest.mark.parametrize("longest", [1024, 40, 36, 2, 7])
def test_the_finest_schedule_has_a_phase_for_each_prime_factor(longest: int) -> None:
    finest = finest_schedule(longest)
    assert parse_time_schedule(finest) == finest
    assert (finest[0], finest[-1]) == (longest, 1)
    for before, after in pairwise(finest):
        factor = before // after
        assert all(factor % divisor for divisor in range(2, factor))


@pytest.mark.parametrize("schedule", [(1024, 32, 1), (1024, 1), (1024, 128, 8, 1), (1024, 2, 1)])
def test_cuts_are_the_inverse(schedule: tuple[int, ...]) -> None:
    finest = finest_schedule(1024)
    assert schedule_of(cuts_of(schedule, finest), finest) == schedule


def test_equal_cuts_give_phases_all_the_same() -> None:
    assert schedule_of([0, 0, 0], finest_schedule(1024)) == (1024, 512, 256, 128, 1)
    assert schedule_of([1, 1, 1], finest_schedule(40)) == (40, 20, 10, 5, 1)
    assert schedule_of([1.0], finest_schedule(40)) == (40, 5, 1)
