"""The order of a run's data, as a function of the seed and the global sample index alone."""

from __future__ import annotations

from functools import lru_cache

import torch
from torch import Tensor


@lru_cache(maxsize=4)
def _epoch_order(size: int, seed: int, epoch: int) -> Tensor:
    generator = torch.Generator().manual_seed((seed * 1_000_003 + epoch) % (1 << 63))
    return torch.randperm(size, generator=generator)


def sample_indices(size: int, seed: int, start: int, count: int) -> Tensor:
    """Data indices of the global samples `start … start + count - 1`, `(count,)`.

    Every epoch is a fresh permutation of the `size` images; a batch may cross from one epoch to the next. Because
    nothing but the arguments matters, an interrupted run and a run on other workers see the same data.
    """
    parts = []
    while count > 0:
        epoch, offset = divmod(start, size)
        part = _epoch_order(size, seed, epoch)[offset : offset + count]
        parts.append(part)
        start, count = start + len(part), count - len(part)
    return torch.cat(parts) if parts else torch.empty(0, dtype=torch.int64)
