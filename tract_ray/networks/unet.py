"""The U-Net of progressive distillation, which TRACT's CIFAR-10 and ImageNet-64 results use too.

Salimans & Ho 2022, appendix B: residual blocks with FiLM conditioning that also resample, attention at chosen
resolutions, the noise level fed as the angle of the cosine schedule.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tract_ray.networks.layers import (
    ClassEmbedding,
    Dropout,
    check_sizes,
    conv,
    group_norm,
    linear,
    noise_level,
    sinusoidal_embedding,
)
from tract_ray.networks.layout import Place, unet_layout


class ResidualBlock(nn.Module):
    """Norm, swish, [resample], conv; FiLM by the embedding; swish, dropout, conv; plus the (resampled) input."""

    def __init__(self, channels_in: int, channels: int, embedding: int, dropout: float, resample: str = "") -> None:
        super().__init__()
        self.resample = resample
        self.norm1 = group_norm(channels_in)
        self.conv1 = conv(channels_in, channels)
        self.film = linear(embedding, 2 * channels, scale=0)
        self.norm2 = group_norm(channels)
        self.dropout = Dropout(dropout)
        self.conv2 = conv(channels, channels, scale=0)
        self.skip = conv(channels_in, channels, kernel=1) if channels_in != channels else nn.Identity()

    def _resampled(self, x: Tensor) -> Tensor:
        if self.resample == "down":
            return F.avg_pool2d(x, 2)
        if self.resample == "up":
            return F.interpolate(x, scale_factor=2, mode="nearest")
        return x

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        h = self.conv1(self._resampled(F.silu(self.norm1(x))))
        scale, shift = self.film(F.silu(embedding))[:, :, None, None].chunk(2, dim=1)
        h = self.conv2(self.dropout(F.silu(self.norm2(h) * (1 + scale) + shift)))
        out: Tensor = self.skip(self._resampled(x)) + h
        return out


class AttentionBlock(nn.Module):
    """Multi-head self-attention over pixels, with a residual connection. Heads are contiguous channel groups."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = group_norm(channels)
        self.q, self.k, self.v = (conv(channels, channels, kernel=1) for _ in range(3))
        self.out = conv(channels, channels, kernel=1, scale=0)

    def forward(self, x: Tensor) -> Tensor:
        h = self.norm(x)
        # (B, heads, pixels, channels / heads)
        q, k, v = (layer(h).flatten(2).unflatten(1, (self.heads, -1)).mT for layer in (self.q, self.k, self.v))
        attended = F.scaled_dot_product_attention(q, k, v)
        out: Tensor = x + self.out(attended.mT.reshape(x.shape))
        return out


class UNet(nn.Module):
    """`network(x, logsnr, labels)`: `(B, in_channels, H, W)` -> `(B, out_channels, H, W)`.

    `attention` lists the resolutions (pixels) whose blocks attend. `head_width` sets channels per attention head;
    0 means one head. `num_classes` > 0 adds a class embedding; `labels` are then `(B,)` integers.
    """

    def __init__(
        self,
        *,
        image_size: int,
        in_channels: int,
        out_channels: int,
        channels: int,
        multipliers: Sequence[int],
        blocks: int,
        embedding: int,
        attention: Sequence[int],
        head_width: int = 0,
        dropout: float = 0.0,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        check_sizes(image_size, channels, multipliers)
        self.channels = channels
        self.embed = nn.Sequential(linear(channels, embedding), nn.SiLU(), linear(embedding, embedding))
        self.embed_class = ClassEmbedding(num_classes, embedding) if num_classes else None

        def stage(place: Place) -> nn.ModuleList:
            layers = nn.ModuleList(
                [ResidualBlock(place.channels_in, place.channels, embedding, dropout, place.resample)]
            )
            if place.attention:
                heads = place.channels // head_width if head_width else 1
                layers.append(AttentionBlock(place.channels, heads))
            return layers

        widths = [channels * multiplier for multiplier in multipliers]
        layout = unet_layout(image_size, channels, widths, blocks, attention)
        self.conv_in = conv(in_channels, channels)
        self.down = nn.ModuleList(stage(place) for place in layout.down)
        self.middle = nn.ModuleList(layer for place in layout.middle for layer in stage(place))
        self.up = nn.ModuleList(stage(place) for place in layout.up)
        self.norm_out = group_norm(widths[0])
        self.conv_out = conv(widths[0], out_channels, scale=0)

    def forward(self, x: Tensor, logsnr: Tensor, labels: Tensor | None = None) -> Tensor:
        embedding = self.embed(sinusoidal_embedding(noise_level(logsnr), self.channels))
        if self.embed_class is not None:
            embedding = embedding + self.embed_class(labels)

        def run(layers: nn.ModuleList, h: Tensor) -> Tensor:
            for layer in layers:
                h = layer(h, embedding) if isinstance(layer, ResidualBlock) else layer(h)
            return h

        h = self.conv_in(x)
        skips = [h]
        for layers in self.down:
            h = run(cast(nn.ModuleList, layers), h)
            skips.append(h)
        h = run(self.middle, h)
        for layers in self.up:
            stage = cast(nn.ModuleList, layers)
            resamples = bool(cast(ResidualBlock, stage[0]).resample)
            h = run(stage, h if resamples else torch.cat([h, skips.pop()], dim=1))
        out: Tensor = self.conv_out(F.silu(self.norm_out(h)))
        return out
