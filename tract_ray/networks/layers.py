"""What several networks share: initialisation, normalisation and the embedding of the noise level."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor, nn

from tract_ray.config import require

NEARLY_ZERO = 1e-10


def check_sizes(image_size: int, channels: int, multipliers: Sequence[int]) -> None:
    """Refuse images that cannot be halved often enough, and a width that the norms cannot take."""
    deepest = 2 ** (len(multipliers) - 1)
    require(image_size % deepest == 0, "network", f"image size {image_size} is not a multiple of {deepest}")
    require(channels % 4 == 0, "channels", f"must be a multiple of 4, got {channels}")


def scaled_init(layer: nn.Conv2d | nn.Linear, scale: float = 1.0) -> nn.Conv2d | nn.Linear:
    """Variance scaling, fan-average uniform, zero bias: DDPM's initialisation. Returns the layer."""
    fan_in, fan_out = nn.init._calculate_fan_in_and_fan_out(layer.weight)
    bound = math.sqrt(3 * max(scale, NEARLY_ZERO) / ((fan_in + fan_out) / 2))
    nn.init.uniform_(layer.weight, -bound, bound)
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
    return layer


def conv(in_channels: int, out_channels: int, kernel: int = 3, scale: float = 1.0) -> nn.Module:
    return scaled_init(nn.Conv2d(in_channels, out_channels, kernel, padding=kernel // 2), scale)


def linear(in_features: int, out_features: int, scale: float = 1.0) -> nn.Module:
    return scaled_init(nn.Linear(in_features, out_features), scale)


def group_norm(channels: int) -> nn.GroupNorm:
    """32 groups as in DDPM; narrow networks get groups of four channels."""
    groups = 32 if channels % 32 == 0 and channels >= 128 else max(1, channels // 4)
    return nn.GroupNorm(groups, channels, eps=1e-6)  # flax's epsilon, which the published weights were trained with


def noise_level(logsnr: Tensor) -> Tensor:
    """`arctan(exp(-logsnr / 2)) / (pi / 2)`: the angle of the cosine schedule, in [0, 1] (Salimans & Ho 2022)."""
    return torch.atan(torch.exp(-0.5 * logsnr.clamp(-20, 20))) / (0.5 * math.pi)


def sinusoidal_embedding(level: Tensor, features: int) -> Tensor:
    """Sines and cosines of `1000 level` at `features / 2` frequencies from 1 to 1e-4: `(B,)` -> `(B, features)`."""
    half = features // 2
    exponents = torch.arange(half, device=level.device, dtype=level.dtype) / (half - 1)
    angles = 1000 * level[:, None] * torch.exp(-math.log(10_000) * exponents)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class Dropout(nn.Module):
    """Dropout with the masks of the global batch, of which each worker keeps its samples' rows (`share_dropout`).

    A sample meets the same mask on one worker and on four. Every mask comes from the global generator.
    """

    def __init__(self, p: float) -> None:
        super().__init__()
        require(0 <= p < 1, "dropout", f"must be in [0, 1), got {p}")
        self.p, self.rank, self.world = p, 0, 1

    def forward(self, x: Tensor) -> Tensor:
        if not self.training or self.p == 0:
            return x
        own = x.shape[0]
        kept = torch.empty((self.world * own, *x.shape[1:]), dtype=x.dtype, device=x.device).bernoulli_(1 - self.p)
        return x * kept[self.rank * own : (self.rank + 1) * own].div_(1 - self.p)


def share_dropout(network: nn.Module, rank: int, world: int) -> None:
    """Tell a network's dropout that its batches are the part `rank` of `world` equal parts, in order."""
    for layer in network.modules():
        if isinstance(layer, Dropout):
            layer.rank, layer.world = rank, world


def replace_dropout(network: nn.Module) -> None:
    """Put `Dropout` in the place of torch's in a network that others made."""
    for layer in list(network.modules()):
        for name, child in layer.named_children():
            if type(child) is nn.Dropout:
                setattr(layer, name, Dropout(child.p))


def given(labels: Tensor | None) -> Tensor:
    """The `labels` of a class-conditional network; an `InputError` where there are none."""
    require(labels is not None, "labels", "this network is class-conditional and needs labels")
    return cast(Tensor, labels)


def one_hot(labels: Tensor | None, classes: int, like: Tensor) -> Tensor:
    """`(B, classes)` in the precision of `like`; a negative label, "no class", is a row of zeros."""
    return (given(labels)[:, None] == torch.arange(classes, device=like.device)).to(like.dtype)


class ClassEmbedding(nn.Module):
    """One dense layer on one-hot labels. A negative label is "no class" and embeds to the bias."""

    def __init__(self, num_classes: int, features: int) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.dense = linear(num_classes, features)

    def forward(self, labels: Tensor | None) -> Tensor:
        out: Tensor = self.dense(one_hot(labels, self.num_classes, next(self.dense.parameters())))
        return out
