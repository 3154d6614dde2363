"""Exponential moving averages of weights, with bias correction."""

from __future__ import annotations

import copy

import torch
from torch import nn


class EMA:
    """`ema_i = (1 - w_i) ema_(i-1) + w_i phi_i` with `w_i = (1 - mu) / (1 - mu^i)` (TRACT, section 3).

    The first update copies the weights, so the average never remembers its starting point; with a constant
    `w = 1 - mu` a slow average would (mu 0.99 trains visibly worse without the correction).
    """

    def __init__(self, network: nn.Module, mu: float) -> None:
        self.mu = mu
        self.updates = 0
        self.network = copy.deepcopy(network).eval().requires_grad_(False)

    def weight_of(self, update: int) -> float:
        """The weight `w_i` of update number i >= 1."""
        return (1 - self.mu) / (1 - self.mu**update)

    @property
    def settled(self) -> bool:
        """True: every update is taken in at once."""
        return True

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take in the weights of `network` after one more optimiser step."""
        self.updates += 1
        torch._foreach_lerp_(list(self.network.parameters()), list(network.parameters()), self.weight_of(self.updates))

    @torch.no_grad()
    def reset(self, network: nn.Module) -> None:
        """Start again from `network`'s weights, with no update seen."""
        self.updates = 0
        self.network.load_state_dict(network.state_dict())

    @torch.no_grad()
    def go_on_from(self, other: EMA) -> None:
        """Take over what another average, whatever its mu, has become: its weights and its number of updates."""
        self.updates = other.updates
        self.network.load_state_dict(other.network.state_dict())


def heuristic_mu(residual: float, steps: float) -> float:
    """`residual^(1/steps)`: the mu with which the first of `steps` updates keeps the weight `residual` (TRACT, 4.1)."""
    return float(residual ** (1 / max(steps, 1)))
