"""What an evaluation samples from: noise and labels that are functions of a seed and of the sample's number.

They are made on the CPU, in chunks of 500, so that every machine, device and number of workers starts from the same.
Two sets are told apart by name: what is chosen (a mark, an average of a bank) is chosen on `select`, and what is
reported is measured on `report`, because the least of several numbers is too small a one on the noise that chose it.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Literal

import torch
from torch import Tensor

CHUNK = 500
Noise = Literal["report", "select"]
LABELS = ("balanced", "random")


def set_seed(seed: int, noise: Noise) -> int:
    """The seed of one of the sets of an evaluation; that of `report` is the evaluation's own."""
    return seed if noise == "report" else _named(seed, noise)


def fixed_noise(seed: int, start: int, count: int, shape: tuple[int, int, int]) -> Tensor:
    """Standard normal `(count, C, H, W)` for samples `start …`."""
    return _chunked(seed, start, count, lambda generator: torch.randn((CHUNK, *shape), generator=generator))


def fixed_labels(seed: int, start: int, count: int, classes: int, kind: str = "balanced") -> Tensor:
    """Labels `(count,)` of samples `start …`: the classes in turn (`balanced`), or drawn with equal chances (`random`),
    as EDM's and TRACT's authors do.
    """
    if kind == "balanced":
        return torch.arange(start, start + count) % classes
    drawn = _named(seed, "labels")
    return _chunked(drawn, start, count, lambda generator: torch.randint(classes, (CHUNK,), generator=generator))


def _chunked(seed: int, start: int, count: int, draw: Callable[[torch.Generator], Tensor]) -> Tensor:
    parts = [
        draw(torch.Generator().manual_seed(seed * 1_000_003 + chunk))
        for chunk in range(start // CHUNK, -(-(start + count) // CHUNK))
    ]
    offset = start % CHUNK
    return torch.cat(parts)[offset : offset + count]


def _named(seed: int, name: str) -> int:
    """40 bits, so that the chunks of one set have room below 2^64 and meet no other's."""
    return int.from_bytes(hashlib.sha256(f"{seed}/{name}".encode()).digest()[:5], "little")
