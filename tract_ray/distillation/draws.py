"""Random numbers of a training step, as a function of (seed, position) and not of process state."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence

import torch
from torch import Tensor


def derive_seed(*parts: object) -> int:
    """A 63-bit seed from anything printable: the same parts give the same seed on every machine."""
    digest = hashlib.sha256("/".join(map(str, parts)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


class Draws:
    """Numbers for the local shard of a global batch.

    Each draw makes the numbers of the whole global batch and keeps the shard `[rank b, (rank + 1) b)`, so one worker
    and four see the same noise for the same sample. The order of calls matters, the number of workers does not. `world`
    is how many processes share the batch: of more than one, each must take part in what is summed over all of it.
    """

    def __init__(
        self, seed: int, batch: int, *, rank: int = 0, world: int = 1, device: torch.device | str = "cpu"
    ) -> None:
        self.batch, self.world = batch, world
        self.local = slice(rank * batch // world, (rank + 1) * batch // world)
        self.device = torch.device(device)
        self.generator = torch.Generator(self.device).manual_seed(seed)

    def normal(self, shape: Sequence[int]) -> Tensor:
        """Standard normal `(b, *shape)`, float32."""
        return torch.randn((self.batch, *shape), generator=self.generator, device=self.device)[self.local]

    def uniform(self) -> Tensor:
        """Uniform in [0, 1), `(b,)`, float64."""
        return torch.rand(self.batch, generator=self.generator, device=self.device, dtype=torch.float64)[self.local]

    def integers(self, high: int) -> Tensor:
        """Uniform in 0 … high - 1, `(b,)`, int64."""
        return torch.randint(high, (self.batch,), generator=self.generator, device=self.device)[self.local]


class PartOfDraws(Draws):
    """The numbers of the part `piece` of a shard. The shard's are drawn once, for all parts, which share `drawn`."""

    def __init__(self, shard: Draws, piece: slice, drawn: list[Tensor]) -> None:
        self.shard, self.piece, self.drawn, self.calls = shard, piece, drawn, 0
        self.batch, self.device, self.generator = shard.batch, shard.device, shard.generator
        self.local = slice(shard.local.start + piece.start, shard.local.start + piece.stop)

    def _next(self, draw: Callable[[], Tensor]) -> Tensor:
        if self.calls == len(self.drawn):
            self.drawn.append(draw())
        self.calls += 1
        return self.drawn[self.calls - 1][self.piece]

    def normal(self, shape: Sequence[int]) -> Tensor:
        return self._next(lambda: self.shard.normal(shape))

    def uniform(self) -> Tensor:
        return self._next(self.shard.uniform)

    def integers(self, high: int) -> Tensor:
        return self._next(lambda: self.shard.integers(high))
