"""Smaller networks of a teacher's kind: its width scaled, blocks and attention left out, all else as it is."""

from __future__ import annotations

import math
from collections.abc import Mapping
from functools import cache
from typing import Any

import torch

from tract_ray.config import InputError, choose
from tract_ray.networks.edm import DhariwalUNet, SongUNet
from tract_ray.networks.presets import build_network, count_parameters, presets

Options = Mapping[str, Any]
WIDTHS = ("width", "channels")
STEPS = 64  # in which `third` looks for a width
PLAIN = {"AttnDownBlock2D": "DownBlock2D", "AttnUpBlock2D": "UpBlock2D"}  # of diffusers


def depth(name: str, options: Options) -> int:
    """Blocks (of diffusers: layers) at each resolution of the network `name` with its own `options`."""
    settings = _settings(name, options)
    return int(settings["unet"].get("layers_per_block", 2) if "unet" in settings else settings["blocks"])


def attends(name: str, options: Options) -> bool:
    """Whether the network attends at any resolution, so that attention can be left out."""
    settings = _settings(name, options)
    if "unet" in settings:
        return any(block in PLAIN for block in settings["unet"].get("down_block_types", PLAIN))
    return bool(settings.get("attention"))


def resized(
    name: str, options: Options, *, width: float = 1.0, blocks: int | None = None, attention: bool = True
) -> dict[str, Any]:
    """Options of a network `width` times as wide, with so many `blocks`, with or without `attention`.

    What is not asked for stays as in `options`, so that without any change the network is the same one.
    """
    settings = _settings(name, options)
    if "unet" in settings:
        return {**options, "unet": _resized_diffusers(dict(settings["unet"]), width, blocks, attention)}
    changed: dict[str, Any] = {}
    if width != 1:
        key = next((key for key in WIDTHS if key in settings), None)
        if key is None:
            raise InputError(f"network: {name} has no width to scale")
        changed[key] = _rounded(settings[key] * width, _unit(name, settings, key))
    if blocks is not None and blocks != settings["blocks"]:
        changed["blocks"] = blocks
    if not attention and settings.get("attention"):
        changed["attention"] = []
    return {**options, **changed}


def third(name: str, options: Options, shape: tuple[int, int, int], num_classes: int = 0) -> dict[str, Any]:
    """Options of the width that has about a third of the parameters: of 60.0M on CIFAR-10 19.4M, as in the paper."""

    @cache
    def parameters(width: float) -> int:
        smaller = {k: tuple(v) if isinstance(v, list) else v for k, v in resized(name, options, width=width).items()}
        with torch.device("meta"):
            return count_parameters(build_network(name, shape, num_classes=num_classes, options=smaller))

    wanted = parameters(1.0) / 3
    low, high = 0, STEPS  # in parts of the width; parameters grow with it
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if parameters(middle / STEPS) > wanted else (middle, high)
    width = min(max(low, 1) / STEPS, high / STEPS, key=lambda one: abs(parameters(one) - wanted))
    return resized(name, options, width=width)


def _settings(name: str, options: Options) -> dict[str, Any]:
    return {**presets[choose("network", name, presets)].settings, **options}


def _rounded(width: float, unit: int) -> int:
    return max(unit, round(width / unit) * unit)


def _unit(name: str, settings: Options, key: str) -> int:
    """What a narrower network's width is a multiple of: EDM's wide layers are normalised in 32 groups."""
    widest = 2 * settings[key] * max(settings.get("multipliers", (1,)))  # beside a skip connection
    if presets[name].build in (SongUNet, DhariwalUNet) and widest >= 128:
        return 32
    return 8 if settings[key] >= 64 else 4


def _resized_diffusers(unet: dict[str, Any], width: float, blocks: int | None, attention: bool) -> dict[str, Any]:
    """The same for a `UNet2DModel`, whose widths are multiples of its groups and of its heads."""
    if width != 1:
        unit = math.lcm(int(unet.get("norm_num_groups") or 32), int(unet.get("attention_head_dim") or 1))
        channels = unet.get("block_out_channels", (224, 448, 672, 896))
        unet["block_out_channels"] = tuple(_rounded(own * width, unit) for own in channels)
    if blocks is not None:
        unet["layers_per_block"] = blocks
    if not attention:
        for types in ("down_block_types", "up_block_types"):
            given = unet.get(types) or _default(types)
            unet[types] = tuple(PLAIN.get(block, block) for block in given)
    return unet


def _default(types: str) -> tuple[str, ...]:
    """Diffusers' own, where a configuration leaves them out."""
    if types.startswith("down"):
        return ("DownBlock2D", *["AttnDownBlock2D"] * 3)
    return (*["AttnUpBlock2D"] * 3, "UpBlock2D")
