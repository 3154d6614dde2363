"""EDM's networks: DDPM++ and NCSN++ (`SongUNet`) and ADM (`DhariwalUNet`), under their published parameter names.

Karras et al. 2022, appendix F; Song et al. 2021; Dhariwal & Nichol 2021. They return EDM's F; the preconditioning
around it is the prediction "edm" of `tract_ray.diffusion`. The time input is `c_noise = ln(sigma) / 4`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tract_ray.config import choose
from tract_ray.networks.edm_layers import (
    BlockStyle,
    EDMBlock,
    FourierEmbedding,
    Init,
    ResampleConv,
    edm_blocks,
    edm_linear,
    edm_norm,
    positional_embedding,
)
from tract_ray.networks.layers import check_sizes, one_hot
from tract_ray.networks.layout import unet_layout


def noise_input(logsnr: Tensor) -> Tensor:
    """`c_noise = ln(sigma / alpha) / 4 = -logsnr / 8` (Karras et al. 2022, table 1)."""
    return -logsnr / 8


def unaugmented(layer: nn.Module, like: Tensor) -> Tensor:
    """What a layer without bias adds for augmentation labels of zero: zeros `(B, features)`.

    The weights take part in every step, so each has a gradient, as several workers and derivatives by all weights need.
    """
    weight = cast(Tensor, layer.weight)
    return F.linear(like.new_zeros(like.shape[0], weight.shape[1]), weight)


class SongUNet(nn.Module):
    """`network(x, logsnr, labels)`: `(B, in_channels, H, W)` -> `(B, out_channels, H, W)`.

    DDPM++ by default. NCSN++ is `embedding_type` "fourier", `encoder_type` "residual", `noise_multiplier` 2 and
    `resample_filter` (1, 3, 3, 1). `augment_dim` > 0 holds the weights of EDM's augmentation labels, which are always
    fed zeros here, the label of an image that was not augmented: they change nothing and have the gradient zero.
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
        attention: Sequence[int],
        embedding_multiplier: int = 4,
        noise_multiplier: int = 1,
        embedding_type: str = "positional",
        encoder_type: str = "standard",
        resample_filter: Sequence[int] = (1, 1),
        augment_dim: int = 0,
        dropout: float = 0.0,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        check_sizes(image_size, channels, multipliers)
        choose("embedding_type", embedding_type, ("positional", "fourier"))
        choose("encoder_type", encoder_type, ("standard", "residual"))
        self.num_classes = num_classes
        self.features, width = channels * noise_multiplier, channels * embedding_multiplier
        init, taps = Init("xavier"), tuple(resample_filter)
        style = BlockStyle(
            embedding=width,
            init=init,
            init_zero=Init("xavier", weight=1e-5),
            init_attention=Init("xavier", weight=math.sqrt(0.2)),
            adaptive=False,
            eps=1e-6,
            dropout=dropout,
            skip_scale=math.sqrt(0.5),
            taps=taps,
            project_skip=True,
        )
        self.map_noise = FourierEmbedding(self.features) if embedding_type == "fourier" else None
        self.map_label = edm_linear(num_classes, self.features, init) if num_classes else None
        self.map_augment = edm_linear(augment_dim, self.features, init, bias=False) if augment_dim else None
        self.map_layer0 = edm_linear(self.features, width, init)
        self.map_layer1 = edm_linear(width, width, init)

        widths = [channels * multiplier for multiplier in multipliers]
        layout = unet_layout(image_size, channels, widths, blocks, attention, attend_last=True)
        layers = edm_blocks(layout.down, style)
        first = {f"{image_size}x{image_size}_conv": ResampleConv(in_channels, channels, 3, init)}
        self.enc = nn.ModuleDict({**first, **layers})
        if encoder_type == "residual":
            self.enc = self._with_pyramid(self.enc, in_channels, init, taps)
        self.dec = nn.ModuleDict(edm_blocks([*layout.middle, *layout.up], style))
        self.dec[f"{image_size}x{image_size}_aux_norm"] = edm_norm(widths[0], style.eps)
        self.dec[f"{image_size}x{image_size}_aux_conv"] = ResampleConv(widths[0], out_channels, 3, style.init_zero)

    @staticmethod
    def _with_pyramid(encoder: nn.ModuleDict, in_channels: int, init: Init, taps: tuple[int, ...]) -> nn.ModuleDict:
        """NCSN++'s second way down: after each resampling block, a convolution of the image pyramid joins in."""
        layers: dict[str, nn.Module] = {}
        width = in_channels
        for name, layer in encoder.items():
            layers[name] = layer
            if isinstance(layer, EDMBlock) and name.endswith("_down"):
                aux = ResampleConv(width, layer.channels, 3, init, resample="down", taps=taps, fused=True)
                layers[name.replace("_down", "_aux_residual")] = aux
                width = layer.channels
        return nn.ModuleDict(layers)

    def _embedding(self, logsnr: Tensor, labels: Tensor | None) -> Tensor:
        noise = noise_input(logsnr)
        embed = self.map_noise or (lambda level: positional_embedding(level, self.features, endpoint=True))
        # The weights expect the sines first.
        h: Tensor = torch.cat(embed(noise).chunk(2, dim=1)[::-1], dim=1)
        if self.map_label is not None:
            # One-hot labels have unit variance per class in EDM, hence the root.
            h = h + self.map_label(one_hot(labels, self.num_classes, h) * math.sqrt(self.num_classes))
        if self.map_augment is not None:
            h = h + unaugmented(self.map_augment, h)
        return F.silu(self.map_layer1(F.silu(self.map_layer0(h))))

    def forward(self, x: Tensor, logsnr: Tensor, labels: Tensor | None = None) -> Tensor:
        embedding = self._embedding(logsnr, labels)
        skips: list[Tensor] = []
        aux = x
        for name, layer in self.enc.items():
            if "aux_residual" in name:
                x = skips[-1] = aux = (x + layer(aux)) / math.sqrt(2)
            else:
                x = layer(x, embedding) if isinstance(layer, EDMBlock) else layer(x)
                skips.append(x)
        for name, layer in self.dec.items():
            if isinstance(layer, EDMBlock):
                x = layer(torch.cat([x, skips.pop()], dim=1) if "_block" in name else x, embedding)
            else:
                x = layer(F.silu(x)) if "aux_conv" in name else layer(x)
        return x


class DhariwalUNet(nn.Module):
    """`network(x, logsnr, labels)`: `(B, in_channels, H, W)` -> `(B, out_channels, H, W)`.

    `head_width` is the number of channels per attention head; the other options are `SongUNet`'s.
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
        attention: Sequence[int],
        embedding_multiplier: int = 4,
        head_width: int = 64,
        augment_dim: int = 0,
        dropout: float = 0.0,
        num_classes: int = 0,
    ) -> None:
        super().__init__()
        check_sizes(image_size, channels, multipliers)
        self.num_classes = num_classes
        self.features, width = channels, channels * embedding_multiplier
        init = Init("kaiming", weight=math.sqrt(1 / 3), bias=math.sqrt(1 / 3))
        zero = Init("kaiming", weight=0)
        style = BlockStyle(
            embedding=width,
            init=init,
            init_zero=zero,
            init_attention=init,
            adaptive=True,
            eps=1e-5,
            dropout=dropout,
            head_width=head_width,
        )
        self.map_augment = edm_linear(augment_dim, channels, zero, bias=False) if augment_dim else None
        self.map_layer0 = edm_linear(channels, width, init)
        self.map_layer1 = edm_linear(width, width, init)
        self.map_label = None
        if num_classes:
            self.map_label = nn.Linear(num_classes, width, bias=False)
            nn.init.normal_(self.map_label.weight)

        widths = [channels * multiplier for multiplier in multipliers]
        layout = unet_layout(image_size, widths[0], widths, blocks, attention)
        layers = edm_blocks(layout.down, style)
        first = {f"{image_size}x{image_size}_conv": ResampleConv(in_channels, widths[0], 3, init)}
        self.enc = nn.ModuleDict({**first, **layers})
        self.dec = nn.ModuleDict(edm_blocks([*layout.middle, *layout.up], style))
        self.out_norm = edm_norm(widths[0], style.eps)
        self.out_conv = ResampleConv(widths[0], out_channels, 3, zero)

    def forward(self, x: Tensor, logsnr: Tensor, labels: Tensor | None = None) -> Tensor:
        embedding = positional_embedding(noise_input(logsnr), self.features, endpoint=False)
        if self.map_augment is not None:
            embedding = embedding + unaugmented(self.map_augment, embedding)
        embedding = self.map_layer1(F.silu(self.map_layer0(embedding)))
        if self.map_label is not None:
            embedding = embedding + self.map_label(one_hot(labels, self.num_classes, embedding))
        embedding = F.silu(embedding)
        skips: list[Tensor] = []
        for layer in self.enc.values():
            x = layer(x, embedding) if isinstance(layer, EDMBlock) else layer(x)
            skips.append(x)
        for name, layer in self.dec.items():
            x = layer(torch.cat([x, skips.pop()], dim=1) if "_block" in name else x, embedding)
        out: Tensor = self.out_conv(F.silu(self.out_norm(x)))
        return out
