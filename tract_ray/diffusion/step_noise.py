"""Noise that a sampler adds on its way: a function of the sample's own starting noise and of the step.

So an image depends neither on the batch that it is made in, nor on the worker, nor on the device. The generator is
Philox4x32-10 (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3"), which needs no state: it enciphers a
counter with a key. Its integers are exact everywhere, and their logarithm and cosine are taken in float64.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

MASK = 0xFFFFFFFF
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10

Words = tuple[Tensor, Tensor, Tensor, Tensor]


def philox(counter: Words, key: tuple[Tensor, Tensor]) -> Words:
    """Four random 32-bit words for each `counter` of four and `key` of two; all int64 in [0, 2^32), broadcast."""
    (c0, c1, c2, c3), (k0, k1) = counter, key
    for _ in range(ROUNDS):
        # The product's 64 bits wrap around in int64; both of its halves are read off exactly.
        p0, p1 = MULTIPLIERS[0] * c0, MULTIPLIERS[1] * c2
        c0, c1, c2, c3 = (p1 >> 32 & MASK) ^ c1 ^ k0, p1 & MASK, (p0 >> 32 & MASK) ^ c3 ^ k1, p0 & MASK
        k0, k1 = k0 + WEYL[0] & MASK, k1 + WEYL[1] & MASK
    return c0, c1, c2, c3


def step_noise(noise: Tensor, step: int) -> Tensor:
    """Standard normal numbers `(B, C, H, W)`, float32, for one `step`: each sample's own, by its `noise`."""
    bits = noise.detach().float().contiguous().view(torch.int32).flatten(1).long()
    weights = 2 * torch.arange(bits.shape[1], device=bits.device) + 1
    # A sum with odd weights that wraps around: exact on every machine, and different for different noise.
    seeds = (bits * weights).sum(1, keepdim=True)
    block = torch.arange(-(-bits.shape[1] // 4), device=bits.device)[None]
    zero = torch.zeros_like(block)
    words = philox((block, zero + step, zero, zero), (seeds & MASK, seeds >> 32 & MASK))
    normal = torch.cat([*_box_muller(words[0], words[1]), *_box_muller(words[2], words[3])], dim=1)
    return normal[:, : bits.shape[1]].reshape(noise.shape).float()


def _box_muller(first: Tensor, second: Tensor) -> tuple[Tensor, Tensor]:
    """Two independent normal numbers from two 32-bit words; at most 6.7 in size."""
    radius = torch.sqrt(-2 * torch.log((first.double() + 1) / 2**32))
    angle = 2 * math.pi * (second.double() / 2**32)
    return radius * torch.cos(angle), radius * torch.sin(angle)
