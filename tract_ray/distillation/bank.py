"""Several averages of one network's weights, kept together: sixteen of them cost a step little more than one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tract_ray.distillation.ema import EMA

BLOCK = 8
"""Updates that are taken in together, at most: what waits needs no more memory than half of the averages."""
COLUMNS = 1 << 14
"""Weights at a time on a CPU: the averages' rows of so many stay in its cache."""


class AverageBank(Mapping[float, EMA]):
    """The averages of a network at each of `mus`, every one of them `ema.py`'s.

    An update of K averages reads and writes K networks' weights, which is what it costs. Here the weights of up to
    `BLOCK` steps are put by, and then taken in at once: `n` updates are one linear map of the average and the `n`
    weights, `ema_n = prod_i (1 - w_i) ema_0 + sum_j w_j prod_(i>j) (1 - w_i) phi_j`, the same numbers but for rounding.
    Whoever looks at an average meets it up to date. Where that falls changes the rounding of what follows, so a
    checkpoint that is to be continued bit by bit is written when the bank is `settled`.
    """

    def __init__(self, network: nn.Module, mus: Iterable[float]) -> None:
        self._members = {mu: EMA(network, mu) for mu in mus}
        self.block = min(BLOCK, len(self._members) // 2)
        self._rows = torch.empty(0)  # (K, P): the members' parameters are views of it
        self._pending = torch.empty(0)  # (block, P)
        self._slots: list[list[Tensor]] = []  # views of each pending row, in the parameters' shapes
        self._waiting = 0

    @property
    def settled(self) -> bool:
        """Whether every update has been taken in."""
        return self._waiting == 0

    @property
    def updates(self) -> int:
        """The steps seen by every average, those that wait included."""
        return self._waiting + next((average.updates for average in self._members.values()), 0)

    def __getitem__(self, mu: float) -> EMA:
        self.settle()
        return self._members[mu]

    def __iter__(self) -> Iterator[float]:
        return iter(self._members)

    def __len__(self) -> int:
        return len(self._members)

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take in the weights of `network` after one more optimiser step, now or together with later ones."""
        parameters: list[Tensor] = list(network.parameters())
        if self.block < 2 or len({p.dtype for p in parameters}) != 1:
            for average in self._members.values():
                average.update(network)
            return
        if not self._bound(parameters):
            self._bind(parameters)
        torch._foreach_copy_(self._slots[self._waiting], parameters)
        self._waiting += 1
        if self._waiting == self.block:
            self.settle()

    @torch.no_grad()
    def settle(self) -> None:
        """Take in what is pending."""
        if self.settled:
            return
        count, self._waiting = self._waiting, 0
        kept, taken = (x.to(self._rows) for x in self._map(count))
        width = COLUMNS if self._rows.device.type == "cpu" else self._rows.shape[1]
        for rows, new in zip(self._rows.split(width, 1), self._pending[:count].split(width, 1), strict=True):
            rows.mul_(kept).addmm_(taken, new)

    def _map(self, count: int) -> tuple[Tensor, Tensor]:
        """What `count` updates leave of each average `(K, 1)`, and what they take of each step's weights `(K, n)`."""
        kept, taken = torch.empty(len(self), 1, dtype=torch.float64), torch.empty(len(self), count, dtype=torch.float64)
        for row, average in enumerate(self._members.values()):
            rest = 1.0
            weights = [average.weight_of(average.updates + 1 + k) for k in range(count)]
            for column in reversed(range(count)):
                taken[row, column] = rest * weights[column]
                rest *= 1 - weights[column]
            kept[row] = rest
            average.updates += count
        return kept, taken

    def _bound(self, parameters: list[Tensor]) -> bool:
        """Whether the averages still are the rows: a network that moved to another device has left them."""
        if not self._slots or self._rows.device != parameters[0].device:
            return False
        firsts = (next(average.network.parameters()) for average in self._members.values())
        return all(first.data_ptr() == row.data_ptr() for first, row in zip(firsts, self._rows, strict=True))

    def _bind(self, parameters: list[Tensor]) -> None:
        self.settle()
        like: dict[str, Any] = {"dtype": parameters[0].dtype, "device": parameters[0].device}
        total = sum(p.numel() for p in parameters)
        self._rows = torch.empty(len(self), total, **like)
        self._pending = torch.empty(self.block, total, **like)
        self._slots = [_views(row, parameters) for row in self._pending]
        for row, average in zip(self._rows, self._members.values(), strict=True):
            for view, own in zip(_views(row, parameters), average.network.parameters(), strict=True):
                own.data = view.copy_(own)


def _views(row: Tensor, parameters: list[Tensor]) -> list[Tensor]:
    """`row` `(P,)` in pieces of the parameters' shapes."""
    pieces = row.split([p.numel() for p in parameters])
    return [piece.view(p.shape) for piece, p in zip(pieces, parameters, strict=True)]
