"""Rows of several seeds: whose mu_i, and the mean of what."""

from __future__ import annotations

from typing import Any

import pytest

from tract_ray.search.seeds import pooled


def result(distances: dict[float, float], select: str) -> dict[str, Any]:
    """One seed's, as it is reported; its own mu_i comes first. Fresh noise says 0.75 more of a chosen one."""
    mu = next(iter(distances)) if select == "own" else min(distances, key=distances.__getitem__)
    fresh = distances[mu] + (0.0 if select == "own" else 0.75)
    return {"distance": fresh, "mu_i": mu, "distances": {repr(m): d for m, d in distances.items()}}


SEEDS = ({0.9: 1.0, 0.0: 2.0, 0.5: 1.5}, {0.9: 4.0, 0.0: 3.0, 0.5: 1.5})


def test_the_best_mu_i_is_best_in_the_mean() -> None:
    """0.9 is the first seed's best, 0.5 that of both: 2.5, 2.5 and 1.5. The distance is what the seeds report."""
    row = pooled([result(distances, "best") for distances in SEEDS])
    assert (row.mu_i, row.distance, row.seeds) == (0.5, 2.0, (1.75, 2.25))
    assert row.distances == {0.9: 2.5, 0.0: 2.5, 0.5: 1.5}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_an_own_mu_i_stays_though_it_is_the_first_seeds_best(order: tuple[int, int]) -> None:
    row = pooled([result(SEEDS[k], "own") for k in order], "own")
    assert (row.mu_i, row.distance) == (0.9, 2.5)
    assert row.seeds == tuple(SEEDS[k][0.9] for k in order)


def test_without_a_bank_it_is_the_mean() -> None:
    """A single average, as consistency has: each seed reports one distance."""
    row = pooled([{"distance": 1.0, "mu_i": 0.5}, {"distance": 2.0, "mu_i": 0.5}])
    assert (row.distance, row.mu_i, row.seeds, row.distances) == (1.5, 0.5, (1.0, 2.0), {})
