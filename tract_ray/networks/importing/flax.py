"""Flax checkpoints of progressive distillation's authors (Salimans & Ho 2022): their U-Net's weights in ours.

A checkpoint is a msgpack map with the averaged weights under `ema_params`, as `{block: {layer: {kernel, bias}}}`.
Kernels of convolutions are `(H, W, in, out)`, of dense layers `(in, out)`; attention keeps an axis of heads.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from tract_ray.config import InputError, require
from tract_ray.networks.importing.teacher import ImportedTeacher
from tract_ray.networks.presets import presets
from tract_ray.networks.unet import UNet

_BLOCK = {
    "norm1": "norm1",
    "conv1": "conv1",
    "film": "temb_proj",
    "norm2": "norm2",
    "conv2": "conv2",
    "skip": "nin_shortcut",
}
_ATTENTION = {"norm": "norm", "q": "q", "k": "k", "v": "v", "out": "proj_out"}
_OUTER = {
    "embed.0": "dense0",
    "embed.2": "dense1",
    "embed_class.dense": "class_emb",
    "conv_in": "conv_in",
    "norm_out": "norm_out",
    "conv_out": "conv_out",
}
Tree = Mapping[str, Any]


def _decode(code: int, data: bytes) -> Any:
    msgpack = importlib.import_module("msgpack")
    require(code in (1, 3), "teacher", f"the flax checkpoint has an extension type {code} that is not an array")
    shape, dtype, raw = msgpack.unpackb(data)
    try:
        return np.frombuffer(raw, dtype=np.dtype(dtype)).reshape(shape)
    except TypeError:
        raise InputError(f"teacher: the flax checkpoint has an array of unknown type {dtype!r}") from None


def read_flax(path: Path) -> Tree:
    """The nested dictionary of a flax checkpoint, with numpy arrays for its leaves."""
    try:
        msgpack = importlib.import_module("msgpack")
    except ImportError:
        raise InputError("teacher: flax checkpoints need msgpack: pip install 'tract-ray[import]'") from None
    try:
        tree = msgpack.unpackb(path.read_bytes(), ext_hook=_decode, strict_map_key=False)
    except InputError:
        raise
    except Exception as error:  # msgpack has no common base class for what a broken file raises
        raise InputError(f"teacher: {path} is not a flax checkpoint: {error}") from error
    require(isinstance(tree, dict) and "ema_params" in tree, "teacher", f"{path} has no ema_params")
    params: Tree = tree["ema_params"]
    return params


def _flat(tree: Tree, prefix: str = "") -> Iterator[tuple[str, np.ndarray[Any, Any]]]:
    for name, value in tree.items():
        if isinstance(value, Mapping) and "__msgpack_chunked_array__" in value:
            pieces = [value["chunks"][str(i)] for i in range(len(value["chunks"]))]
            yield (
                prefix + name,
                np.concatenate(pieces).reshape([value["shape"][str(i)] for i in range(len(value["shape"]))]),
            )
        elif isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}/")
        else:
            yield prefix + name, value


def _converted(array: np.ndarray[Any, Any], layer: str, spatial: bool) -> Tensor:
    """A flax array as torch wants it; `layer` is the flax layer's name, `spatial` whether ours is a convolution."""
    tensor = torch.from_numpy(np.array(array, dtype=np.float32))
    if layer in ("q", "k", "v") and tensor.ndim == 3:  # (in, heads, width) -> (heads x width, in)
        tensor = tensor.flatten(1).T
    elif layer == "proj_out" and tensor.ndim == 3:  # (heads, width, out) -> (out, heads x width)
        tensor = tensor.flatten(0, 1).T
    elif tensor.ndim == 4 and tensor.shape[:3] != (1, 1, 1):
        return tensor.permute(3, 2, 0, 1).contiguous()
    elif tensor.ndim == 2 and layer not in ("q", "k", "v"):
        tensor = tensor.T
    else:  # biases of heads, and group norms of old flax versions, which are (1, 1, 1, channels)
        return tensor.flatten()
    return (tensor[:, :, None, None] if spatial else tensor).contiguous()


def _architecture(flat: Mapping[str, np.ndarray[Any, Any]]) -> tuple[dict[str, Any], set[int]]:
    """The U-Net's options, and the levels at which it attends (a resolution needs the image size)."""

    def kernel(name: str) -> np.ndarray[Any, Any]:
        if f"{name}/kernel" not in flat:
            raise InputError(f"teacher: weight {name}/kernel is missing from the flax checkpoint")
        return flat[f"{name}/kernel"]

    channels = kernel("conv_in").shape[-1]
    levels = blocks = 0
    while f"down_{levels}.block_0/conv1/kernel" in flat:
        levels += 1
    while f"down_0.block_{blocks}/conv1/kernel" in flat:
        blocks += 1
    attending = {level for level in range(levels) if f"down_{level}.attn_0/q/kernel" in flat}
    _, heads, width = kernel("mid.attn_1/q").shape
    options = {
        "channels": channels,
        "multipliers": tuple(kernel(f"down_{i}.block_0/conv1").shape[-1] // channels for i in range(levels)),
        "blocks": blocks,
        "embedding": kernel("dense0").shape[-1],
        "head_width": 0 if heads == 1 else width,
    }
    return options, attending


def _blocks(levels: int, blocks: int, attending: set[int]) -> Iterator[tuple[str, str, dict[str, str]]]:
    """Our prefix, flax's, and the names below them, for every block of the U-Net."""
    for ours, count, order in (("down", blocks, range(levels)), ("up", blocks + 1, range(levels - 1, -1, -1))):
        place = 0
        for level in order:
            for block in range(count):
                yield f"{ours}.{place}.0", f"{ours}_{level}.block_{block}", _BLOCK
                if level in attending:
                    yield f"{ours}.{place}.1", f"{ours}_{level}.attn_{block}", _ATTENTION
                place += 1
            if level != order[-1]:
                yield f"{ours}.{place}.0", f"{ours}_{level}.{ours}sample", _BLOCK
                place += 1
    yield from (("middle.0", "mid.block_1", _BLOCK), ("middle.2", "mid.block_2", _BLOCK))
    yield "middle.1", "mid.attn_1", _ATTENTION


def import_flax(path: Path, image_size: int | None = None, prediction: str | None = None) -> ImportedTeacher:
    """The `ema_params` of a flax checkpoint; see `import_teacher`."""
    flat = dict(_flat(read_flax(path)))
    options, attending = _architecture(flat)
    levels = len(options["multipliers"])

    def differences(name: str) -> dict[str, Any]:
        size = image_size or presets[name].shape[1]
        found = {**options, "attention": tuple(size >> level for level in sorted(attending))}
        known = {"head_width": 0, **presets[name].settings}
        return {option: value for option, value in found.items() if known[option] != value}

    name = min((n for n, preset in presets.items() if preset.build is UNet), key=lambda n: len(differences(n)))
    if differences(name) and not (image_size and prediction):
        raise InputError(f"teacher: no preset has the architecture {options}; give image_size and prediction")
    width = options["channels"]
    require(width % 32 == 0 and width >= 128, "teacher", f"flax normalises in 32 groups, ours in fewer at {width}")
    layers = [*_OUTER.items()]
    layers += [
        (f"{ours}.{a}", f"{theirs}/{b}")
        for ours, theirs, inner in _blocks(levels, options["blocks"], attending)
        for a, b in inner.items()
    ]
    state = {}
    for ours, theirs in layers:
        spatial = not (ours.startswith("embed") or ours.endswith("film"))
        for leaf in ("kernel", "scale", "bias"):
            array = flat.pop(f"{theirs}/{leaf}", None)
            if array is not None:
                target = f"{ours}.{'bias' if leaf == 'bias' else 'weight'}"
                state[target] = _converted(array, theirs.rpartition("/")[2], spatial)
    if flat:
        raise InputError(f"teacher: our U-Net has no place for the flax weight {next(iter(flat))}")
    size = image_size or presets[name].shape[1]
    classes = state["embed_class.dense.weight"].shape[1] if "embed_class.dense.weight" in state else 0
    return ImportedTeacher(
        network=name,
        options=differences(name),
        shape=(state["conv_in.weight"].shape[1], size, size),
        num_classes=classes,
        schedule="vp_cosine",
        prediction=prediction or presets[name].prediction,
        state_dict=state,
    )
