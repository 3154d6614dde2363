"""A residual perceptron over pixels: the fastest network for 8x8 images on a CPU, used by `make science`."""

from __future__ import annotations

import torch.nn.functional as F
from torch import Tensor, nn

from tract_ray.networks.layers import ClassEmbedding, Dropout, linear, noise_level, sinusoidal_embedding


class MLPBlock(nn.Module):
    def __init__(self, width: int, embedding: int, dropout: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.film = linear(embedding, 2 * width, scale=0)
        self.dense1 = linear(width, width)
        self.dropout = Dropout(dropout)
        self.dense2 = linear(width, width, scale=0)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        scale, shift = self.film(embedding).chunk(2, dim=1)
        h = F.silu(self.dense1(self.norm(x) * (1 + scale) + shift))
        out: Tensor = x + self.dense2(self.dropout(h))
        return out


class MLP(nn.Module):
    """`network(x, logsnr, labels)`: `(B, in_channels, H, W)` -> `(B, out_channels, H, W)`; H, W are `image_size`."""

    def __init__(
        self,
        *,
        image_size: int,
        in_channels: int,
        out_channels: int,
        width: int,
        blocks: int,
        embedding: int,
        dropout: float = 0.0,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        pixels = image_size**2
        self.embedding = embedding
        self.embed = nn.Sequential(linear(embedding, embedding), nn.SiLU(), linear(embedding, embedding), nn.SiLU())
        self.embed_class = ClassEmbedding(num_classes, embedding) if num_classes else None
        self.dense_in = linear(in_channels * pixels, width)
        self.blocks = nn.ModuleList([MLPBlock(width, embedding, dropout) for _ in range(blocks)])
        self.norm_out = nn.LayerNorm(width)
        self.dense_out = linear(width, out_channels * pixels, scale=0)

    def forward(self, x: Tensor, logsnr: Tensor, labels: Tensor | None = None) -> Tensor:
        embedding = self.embed(sinusoidal_embedding(noise_level(logsnr), self.embedding))
        if self.embed_class is not None:
            embedding = embedding + self.embed_class(labels)
        h = self.dense_in(x.flatten(1))
        for block in self.blocks:
            h = block(h, embedding)
        out: Tensor = self.dense_out(self.norm_out(h)).unflatten(1, (-1, *x.shape[2:]))
        return out
