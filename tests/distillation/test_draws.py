"""Random numbers belong to samples, not to processes."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from tract_ray.distillation import Draws, derive_seed


def numbers(draws: Draws) -> list[Tensor]:
    return [draws.normal((2, 3)), draws.uniform(), draws.integers(10), draws.normal((1,))]


@pytest.mark.parametrize("world", [1, 2, 4])
def test_shards_join_to_the_global_batch(world: int) -> None:
    whole = numbers(Draws(5, 12))
    shards = [numbers(Draws(5, 12, rank=rank, world=world)) for rank in range(world)]
    for expected, *parts in zip(whole, *shards, strict=True):
        assert torch.equal(torch.cat(parts), expected)
        assert len({len(part) for part in parts}) == 1


def test_the_seed_decides() -> None:
    assert all(torch.equal(a, b) for a, b in zip(numbers(Draws(5, 4)), numbers(Draws(5, 4)), strict=True))
    assert not torch.equal(Draws(5, 4).uniform(), Draws(6, 4).uniform())


def test_draws_leave_the_global_generator_alone() -> None:
    torch.manual_seed(0)
    before = torch.get_rng_state()
    numbers(Draws(5, 4))
    assert torch.equal(torch.get_rng_state(), before)


def test_integers_reach_both_ends_and_uniforms_stay_inside() -> None:
    draws = Draws(0, 4096)
    assert draws.integers(7).unique().tolist() == list(range(7))
    uniform = draws.uniform()
    assert uniform.dtype == torch.float64
    assert 0 <= float(uniform.min()) < 0.01
    assert 0.99 < float(uniform.max()) < 1


def test_derived_seeds_differ_and_stay() -> None:
    seeds = {derive_seed(run, step) for run in range(20) for step in range(20)}
    assert len(seeds) == 400
    assert all(0 <= seed < 1 << 63 for seed in seeds)
    assert derive_seed(1, 2) == derive_seed(1, 2) != derive_seed(2, 1)
    assert derive_seed("pairs", 0, 256) == 1689952468214540770
