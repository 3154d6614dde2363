"""Networks by name. A new network is one entry here (and one file, if its kind is new)."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from tract_ray.config import choose, require
from tract_ray.networks.diffusers_unet import DDPM_CIFAR10, DiffusersUNet
from tract_ray.networks.edm import DhariwalUNet, SongUNet
from tract_ray.networks.mlp import MLP
from tract_ray.networks.unet import UNet


@dataclass(frozen=True)
class NetworkPreset:
    """A named architecture. `shape` is the `(C, H, W)` it was made for; data of another shape adapts it."""

    build: Callable[..., nn.Module]
    shape: tuple[int, int, int]
    settings: Mapping[str, Any]
    prediction: str = "v"
    num_classes: int = 0
    note: str = ""
    requires: str = ""  # an optional package that the network is built from
    data_settings: tuple[str, ...] = field(
        default=("image_size", "in_channels", "out_channels", "num_classes"), repr=False
    )

    @property
    def options(self) -> tuple[str, ...]:
        """Names of the settings that a configuration may override."""
        return tuple(n for n in inspect.signature(self.build).parameters if n not in self.data_settings)


_BTD = {"embedding": 1024, "multipliers": (1, 1, 1), "blocks": 3, "attention": (16, 8)}
_IMAGENET64 = {
    "channels": 192,
    "multipliers": (1, 2, 3, 4),
    "blocks": 3,
    "attention": (32, 16, 8),
    "head_width": 64,
}
# The published CIFAR-10 networks were trained with augmentation labels, whose weights they keep.
_EDM_CIFAR10 = {"channels": 128, "multipliers": (2, 2, 2), "blocks": 4, "attention": (16,), "augment_dim": 9}
_NCSNPP = {
    "embedding_type": "fourier",
    "encoder_type": "residual",
    "noise_multiplier": 2,
    "resample_filter": (1, 3, 3, 1),
}

presets: dict[str, NetworkPreset] = {
    "mlp_8x8": NetworkPreset(
        MLP, (1, 8, 8), {"width": 256, "blocks": 3, "embedding": 128}, note="residual perceptron, for quick studies"
    ),
    "mlp_8x8_small": NetworkPreset(
        MLP, (1, 8, 8), {"width": 144, "blocks": 3, "embedding": 96}, note="about a third of mlp_8x8"
    ),
    "unet_8x8": NetworkPreset(
        UNet,
        (1, 8, 8),
        {"channels": 8, "embedding": 48, "multipliers": (1, 2), "blocks": 1, "attention": (4,)},
        note="tiny, for digits",
    ),
    "unet_16x16": NetworkPreset(
        UNet,
        (1, 16, 16),
        {"channels": 8, "embedding": 48, "multipliers": (1, 2, 3), "blocks": 1, "attention": (4,)},
        note="tiny, for digits at 16x16",
    ),
    "unet_cifar10": NetworkPreset(
        UNet, (3, 32, 32), {"channels": 256, **_BTD}, prediction="x0", note="BTD and TRACT, 60.0M"
    ),
    "unet_cifar10_small": NetworkPreset(
        UNet, (3, 32, 32), {"channels": 128, **_BTD}, prediction="x0", note="TRACT's distilled 19.4M student"
    ),
    "unet_imagenet64": NetworkPreset(
        UNet,
        (3, 64, 64),
        {"embedding": 768, **_IMAGENET64},
        prediction="both",
        num_classes=1000,
        note="BTD and TRACT, 296M",
    ),
    "edm_8x8": NetworkPreset(
        SongUNet,
        (1, 8, 8),
        {"channels": 16, "multipliers": (1, 2), "blocks": 1, "attention": (4,)},
        prediction="edm",
        note="tiny DDPM++, for digits",
    ),
    "edm_cifar10_ddpmpp": NetworkPreset(
        SongUNet, (3, 32, 32), _EDM_CIFAR10, prediction="edm", note="EDM's VP network, 55.7M"
    ),
    "edm_cifar10_ncsnpp": NetworkPreset(
        SongUNet, (3, 32, 32), {**_EDM_CIFAR10, **_NCSNPP}, prediction="edm", note="EDM's VE network, 56.4M"
    ),
    "edm_imagenet64_adm": NetworkPreset(
        DhariwalUNet, (3, 64, 64), _IMAGENET64, prediction="edm", num_classes=1000, note="EDM's ADM, 296M"
    ),
    "diffusers_unet": NetworkPreset(
        DiffusersUNet,
        (3, 32, 32),
        {"unet": DDPM_CIFAR10, "scheduler": {}},
        prediction="eps",
        note="any UNet2DModel by its configuration; Ho et al.'s DDPM, 35.7M",
        requires="diffusers",
    ),
}


def build_network(
    name: str,
    shape: tuple[int, int, int] | None = None,
    *,
    num_classes: int = 0,
    out_multiplier: int = 1,
    options: Mapping[str, Any] | None = None,
    seed: int | None = None,
) -> nn.Module:
    """A freshly initialised network for images `(C, H, W)`.

    `out_multiplier` is the number of output channels per image channel (2 for the `both` prediction), `options`
    override the preset's settings, `seed` makes the weights a function of the seed. Raises `InputError` for an
    unknown name, an unknown option, or a shape that the architecture cannot take.
    """
    preset = presets[choose("network", name, presets)]
    for option in options or {}:
        choose("network options", option, preset.options)
    channels, height, width = shape or preset.shape
    require(height == width, "network", f"{name} takes square images, got {height}x{width}")
    settings = {**preset.settings, **(options or {})}
    with torch.random.fork_rng(devices=[], enabled=seed is not None):
        if seed is not None:
            torch.manual_seed(seed)
        return preset.build(
            image_size=height,
            in_channels=channels,
            out_channels=channels * out_multiplier,
            num_classes=num_classes,
            **settings,
        )


def count_parameters(network: nn.Module) -> int:
    """Number of trainable parameters."""
    return sum(p.numel() for p in network.parameters())
