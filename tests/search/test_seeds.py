"""Rows of several seeds: whose mu_i, and the mean of what."""

from __future__ import annotations

from itertools import permutations
from typing import Any

import pytest

from tract_ray.search.seeds import pooled


def result(distances: dict[float, float], select: str) -> dict[str, Any]:
    """One seed's, as it is reported; its own mu_i comes first. Fresh noise says 0.75 more of every average."""
    mu = next(iter(distances)) if select == "own" else min(distances, key=distances.__getitem__)
    bank, fresh = ({repr(m): d + more for m, d in distances.items()} for more in (0.0, 0.75))
    reported = fresh if select == "best" else {repr(mu): fresh[repr(mu)]}
    return {"distance": fresh[repr(mu)], "mu_i": mu, "distances": bank, "reported": reported}


SEEDS = ({0.9: 1.0, 0.0: 2.0, 0.5: 1.5}, {0.9: 4.0, 0.0: 3.0, 0.5: 1.5})


def test_the_best_mu_i_is_best_in_the_mean() -> None:
    """0.9 is the first seed's best, 0.5 that of both: 2.5, 2.5 and 1.5. All numbers are of 0.5, none of 0.9."""
    row = pooled([result(distances, "best") for distances in SEEDS])
    assert (row.mu_i, row.selection, row.distance, row.seeds) == (0.5, 1.5, 2.25, (2.25, 2.25))
    assert row.distances == {0.9: 2.5, 0.0: 2.5, 0.5: 1.5}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_an_own_mu_i_stays_though_it_is_the_first_seeds_best(order: tuple[int, int]) -> None:
    row = pooled([result(SEEDS[k], "own") for k in order], "own")
    assert (row.mu_i, row.selection, row.distance) == (0.9, 2.5, 3.25)
    assert row.seeds == tuple(SEEDS[k][0.9] + 0.75 for k in order)


def test_without_a_bank_it_is_the_mean() -> None:
    """A single average, as consistency has: each seed reports one distance."""
    row = pooled([{"distance": 1.0, "mu_i": 0.5}, {"distance": 2.0, "mu_i": 0.5}])
    assert (row.distance, row.selection, row.mu_i, row.seeds, row.distances) == (1.5, 1.5, 0.5, (1.0, 2.0), {})


def test_means_do_not_depend_on_which_seed_ends_first() -> None:
    seeds = [result({0.5: 10.0**k / 3}, "best") for k in (16, 0, 1)]
    told = {(row.selection, row.distance) for row in map(pooled, permutations(seeds))}
    assert len(told) == 1
