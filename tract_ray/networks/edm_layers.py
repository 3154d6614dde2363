"""What EDM's two U-Nets share: initialisation, resampling convolutions, the residual block, noise embeddings.

Karras et al. 2022, appendix F. Parameters carry the names of the published checkpoints, so these load directly.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tract_ray.networks.layers import Dropout
from tract_ray.networks.layout import Place


@dataclass(frozen=True)
class Init:
    """Uniform weights with Xavier's or Kaiming's bound, times `weight`; biases with the same bound, times `bias`."""

    mode: str = "xavier"
    weight: float = 1.0
    bias: float = 0.0

    def __call__(self, weight: Tensor, bias: Tensor | None) -> None:
        fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(weight)
        bound = math.sqrt(6 / (fan_in + fan_out)) if self.mode == "xavier" else math.sqrt(3 / fan_in)
        nn.init.uniform_(weight, -bound * self.weight, bound * self.weight)
        if bias is not None:
            nn.init.uniform_(bias, -bound * self.bias, bound * self.bias)


def edm_linear(in_features: int, out_features: int, init: Init, bias: bool = True) -> nn.Linear:
    layer = nn.Linear(in_features, out_features, bias=bias)
    init(layer.weight, layer.bias)
    return layer


def edm_norm(channels: int, eps: float) -> nn.GroupNorm:
    """32 groups, fewer where a group would have less than 4 channels."""
    return nn.GroupNorm(max(1, min(32, channels // 4)), channels, eps=eps)


class ResampleConv(nn.Module):
    """A convolution of the image made twice as large ("up") or small ("down"); `kernel` 0 only resamples.

    `taps` is the separable resampling filter: (1, 1) is nearest neighbour up and the mean of 2x2 pixels down. `fused`
    filters after the convolution instead of before it, which differs at the border: NCSN++'s residual encoder does.
    """

    resample_filter: Tensor

    def __init__(
        self,
        channels_in: int,
        channels: int,
        kernel: int,
        init: Init,
        *,
        resample: str = "",
        taps: Sequence[int] = (1, 1),
        fused: bool = False,
    ) -> None:
        super().__init__()
        self.channels_in, self.channels = channels_in, channels
        self.kernel, self.resample, self.fused = kernel, resample, fused
        if kernel:
            self.weight = nn.Parameter(torch.empty(channels, channels_in, kernel, kernel))
            self.bias = nn.Parameter(torch.empty(channels))
            init(self.weight, self.bias)
        if resample:
            row = torch.tensor([float(tap) for tap in taps])
            self.register_buffer("resample_filter", torch.outer(row, row)[None, None] / row.sum() ** 2)

    def _filtered(self, x: Tensor, padding: int) -> Tensor:
        channels = x.shape[1]
        taps = self.resample_filter.to(x.dtype)
        if self.resample == "up":
            return F.conv_transpose2d(x, (4 * taps).tile(channels, 1, 1, 1), stride=2, padding=padding, groups=channels)
        return F.conv2d(x, taps.tile(channels, 1, 1, 1), stride=2, padding=padding, groups=channels)

    def forward(self, x: Tensor) -> Tensor:
        filter_padding = (self.resample_filter.shape[-1] - 1) // 2 if self.resample else 0
        if self.fused:
            x = F.conv2d(x, self.weight, self.bias, padding=self.kernel // 2 + filter_padding)
            return self._filtered(x, padding=0)
        if self.resample:
            x = self._filtered(x, filter_padding)
        return F.conv2d(x, self.weight, self.bias, padding=self.kernel // 2) if self.kernel else x


@dataclass(frozen=True)
class BlockStyle:
    """What tells DDPM++ and NCSN++ (`adaptive` off) from ADM (on) inside a residual block."""

    embedding: int
    init: Init
    init_zero: Init
    init_attention: Init
    adaptive: bool
    eps: float
    dropout: float = 0.0
    skip_scale: float = 1.0
    taps: tuple[int, ...] = (1, 1)
    project_skip: bool = False  # a resampling block of unchanged width has a 1x1 convolution on its skip
    head_width: int = 0  # channels per attention head; 0 is one head


class EDMBlock(nn.Module):
    """Norm, swish, [resample], conv; conditioning; swish, dropout, conv; skip; then, where asked, self-attention."""

    def __init__(
        self, channels_in: int, channels: int, style: BlockStyle, *, resample: str = "", attention: bool = False
    ) -> None:
        super().__init__()
        self.channels_in, self.channels, self.style = channels_in, channels, style
        self.heads = 0
        self.norm0 = edm_norm(channels_in, style.eps)
        self.conv0 = ResampleConv(channels_in, channels, 3, style.init, resample=resample, taps=style.taps)
        self.affine = edm_linear(style.embedding, channels * (2 if style.adaptive else 1), style.init)
        self.norm1 = edm_norm(channels, style.eps)
        self.dropout = Dropout(style.dropout)
        self.conv1 = ResampleConv(channels, channels, 3, style.init_zero)
        self.skip: nn.Module = nn.Identity()
        if channels != channels_in or resample:
            kernel = 1 if channels != channels_in or style.project_skip else 0
            self.skip = ResampleConv(channels_in, channels, kernel, style.init, resample=resample, taps=style.taps)
        if attention:
            self.heads = max(1, channels // style.head_width) if style.head_width else 1
            self.norm2 = edm_norm(channels, style.eps)
            self.qkv = ResampleConv(channels, 3 * channels, 1, style.init_attention)
            self.proj = ResampleConv(channels, channels, 1, style.init_zero)

    def forward(self, x: Tensor, embedding: Tensor) -> Tensor:
        condition = self.affine(embedding)[:, :, None, None]
        h = self.conv0(F.silu(self.norm0(x)))
        if self.style.adaptive:
            scale, shift = condition.chunk(2, dim=1)
            h = F.silu(self.norm1(h) * (1 + scale) + shift)
        else:
            h = F.silu(self.norm1(h + condition))
        h = self.conv1(self.dropout(h))
        x = (self.skip(x) + h) * self.style.skip_scale
        return (x + self._attended(x)) * self.style.skip_scale if self.heads else x

    def _attended(self, x: Tensor) -> Tensor:
        # The published layout interleaves q, k and v: channel index = (head, channel of the head, one of q, k, v).
        qkv = self.qkv(self.norm2(x)).flatten(2).unflatten(1, (self.heads, -1, 3))
        q, k, v = (part.mT for part in qkv.unbind(3))  # (B, heads, pixels, channels / heads)
        out: Tensor = self.proj(F.scaled_dot_product_attention(q, k, v).mT.reshape(x.shape))
        return out


def positional_embedding(noise: Tensor, features: int, *, endpoint: bool) -> Tensor:
    """Cosines, then sines, of `noise` `(B,)` at frequencies from 1 to 1e-4 (reached if `endpoint`): `(B, features)`."""
    half = features // 2
    exponents = torch.arange(half, device=noise.device, dtype=noise.dtype) / (half - int(endpoint))
    angles = noise[:, None] * torch.exp(-math.log(10_000) * exponents)
    return torch.cat([angles.cos(), angles.sin()], dim=1)


class FourierEmbedding(nn.Module):
    """Cosines, then sines, of the noise level at fixed random frequencies: `(B,)` -> `(B, features)`."""

    freqs: Tensor

    def __init__(self, features: int, scale: float = 16.0) -> None:
        super().__init__()
        self.register_buffer("freqs", torch.randn(features // 2) * scale)

    def forward(self, noise: Tensor) -> Tensor:
        angles = noise[:, None] * (2 * math.pi * self.freqs).to(noise.dtype)
        return torch.cat([angles.cos(), angles.sin()], dim=1)


def edm_blocks(places: Iterable[Place], style: BlockStyle) -> dict[str, EDMBlock]:
    """A block for each place of a layout, under the published names."""
    return {
        f"{at.size}x{at.size}_{at.name}": EDMBlock(
            at.channels_in, at.channels, style, resample=at.resample, attention=at.attention
        )
        for at in places
    }
