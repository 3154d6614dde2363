"""Averages of weights against their definition."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tract_ray.distillation import EMA, heuristic_mu


def one_weight(value: float) -> nn.Linear:
    network = nn.Linear(1, 1, bias=False).double()
    with torch.no_grad():
        network.weight.fill_(value)
    return network


def follow(mu: float, values: list[float], start: float = 100.0) -> float:
    average = EMA(one_weight(start), mu)
    for value in values:
        average.update(one_weight(value))
    return average.network.weight.item()  # type: ignore[union-attr,operator]


VALUES = [3.0, -1.0, 4.0, 1.0, -5.0, 9.0, 2.0, 6.0]


@pytest.mark.parametrize("mu", [0.1, 0.5, 0.9, 0.99, 0.99995])
@pytest.mark.parametrize("count", [1, 2, 8])
def test_the_average_is_the_direct_weighted_sum(mu: float, count: int) -> None:
    """`sum_i mu^(n-i) phi_i / sum_i mu^(n-i)`: the closed form of the bias-corrected recursion."""
    weights = [mu ** (count - 1 - i) for i in range(count)]
    expected = sum(w * v for w, v in zip(weights, VALUES, strict=False)) / sum(weights)
    assert follow(mu, VALUES[:count]) == pytest.approx(expected, rel=1e-12)


def test_the_first_update_copies_whatever_the_start() -> None:
    assert follow(0.999, [2.5]) == 2.5


def test_mu_zero_copies_bit_by_bit() -> None:
    network = nn.Linear(7, 5)
    average = EMA(nn.Linear(7, 5), 0.0)
    for _ in range(3):
        with torch.no_grad():
            network.weight.normal_()
        average.update(network)
        assert torch.equal(average.network.weight, network.weight)  # type: ignore[arg-type]


def test_reset_forgets() -> None:
    average = EMA(one_weight(1.0), 0.9)
    average.update(one_weight(5.0))
    average.reset(one_weight(7.0))
    assert (average.updates, average.network.weight.item()) == (0, 7.0)  # type: ignore[union-attr,operator]
    average.update(one_weight(3.0))
    assert average.network.weight.item() == 3.0  # type: ignore[union-attr,operator]


def test_the_average_neither_trains_nor_drops() -> None:
    average = EMA(nn.Sequential(nn.Linear(2, 2), nn.Dropout(0.5)).train(), 0.5)
    assert not average.network.training
    assert not any(p.requires_grad for p in average.network.parameters())


def test_the_heuristic_leaves_the_residual() -> None:
    for steps in (1, 10, 375_000):
        assert heuristic_mu(1e-3, steps) ** steps == pytest.approx(1e-3, rel=1e-9)
    assert heuristic_mu(1e-4, 393_216) == pytest.approx(0.99998, abs=5e-6)
