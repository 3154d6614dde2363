"""Rows of several seeds: whose mu_i, and the mean of what."""

from __future__ import annotations

import pytest

from tract_ray.analysis.rows import pooled
from tract_ray.training import RunResult


def result(distances: dict[float, float], select: str) -> RunResult:
    """One seed's; its own mu_i comes first."""
    mu = next(iter(distances)) if select == "own" else min(distances, key=distances.__getitem__)
    return RunResult(
        metric="fid_digits",
        distance=distances[mu],
        mu_i=mu,
        distances=distances,
        steps=1,
        samples=1024,
        parameters=10,
        seconds_per_image=1e-3,
        trained=1024,
        seconds=1.0,
        device_seconds=1.0,
        student="student",
        key="key",
        evaluation={},
        select=select,
    )


SEEDS = ({0.9: 1.0, 0.0: 2.0, 0.5: 1.5}, {0.9: 4.0, 0.0: 3.0, 0.5: 1.5})


def test_the_best_mu_i_is_best_in_the_mean() -> None:
    """0.9 is the first seed's best, 0.5 that of both: 2.5, 2.5 and 1.5."""
    row = pooled([result(distances, "best") for distances in SEEDS])
    assert (row["mu_i"], row["distance"], row["seeds"]) == (0.5, 1.5, (1.5, 1.5))
    assert row["distances"] == {0.9: 2.5, 0.0: 2.5, 0.5: 1.5}


@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
def test_an_own_mu_i_stays_though_it_is_the_first_seeds_best(order: tuple[int, int]) -> None:
    row = pooled([result(SEEDS[k], "own") for k in order])
    assert (row["mu_i"], row["distance"]) == (0.9, 2.5)
    assert row["seeds"] == tuple(SEEDS[k][0.9] for k in order)
