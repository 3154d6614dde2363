"""The authors' U-Net and its checkpoints, from their layout alone."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

FLAX = {"channels": 128, "embedding": 32, "multipliers": (1, 2), "blocks": 1, "attention": (4,), "head_width": 64}


class FlaxUNet:
    """The authors' U-Net as a function of its tree of weights, written down once more from their layout.

    Images are `(B, H, W, C)`. With no tree given it draws one, which fixes the names and shapes of every weight.
    """

    def __init__(self, tree: dict[str, Any] | None = None) -> None:
        self.drawing = tree is None
        self.tree: dict[str, Any] = {} if tree is None else tree
        self.random = np.random.default_rng(0)

    def leaf(self, path: str, name: str, shape: tuple[int, ...], mean: float = 0.0) -> Tensor:
        node = self.tree
        for part in path.split("/"):
            node = node.setdefault(part, {})
        if self.drawing:
            fan_in = math.prod(shape[:-1]) if name == "kernel" else 100
            node[name] = (mean + self.random.normal(size=shape) / math.sqrt(fan_in)).astype(np.float32)
        return torch.from_numpy(np.array(node[name])).reshape(shape)

    def norm(self, path: str, x: Tensor) -> Tensor:
        grouped = x.reshape(len(x), -1, 32, x.shape[-1] // 32)
        mean, var = grouped.mean((1, 3), keepdim=True), grouped.var((1, 3), unbiased=False, keepdim=True)
        out = ((grouped - mean) / torch.sqrt(var + 1e-6)).reshape(x.shape)
        width = (x.shape[-1],)
        return out * self.leaf(path, "scale", width, mean=1.0) + self.leaf(path, "bias", width)

    def dense(self, path: str, x: Tensor, out: int) -> Tensor:
        return x @ self.leaf(path, "kernel", (x.shape[-1], out)) + self.leaf(path, "bias", (out,))

    def conv(self, path: str, x: Tensor, out: int) -> Tensor:
        kernel = self.leaf(path, "kernel", (3, 3, x.shape[-1], out))
        padded = F.pad(x, (0, 0, 1, 1, 1, 1))
        height, width = x.shape[1:3]
        shifted = (padded[:, i : i + height, j : j + width] @ kernel[i, j] for i in range(3) for j in range(3))
        return torch.stack(list(shifted)).sum(0) + self.leaf(path, "bias", (out,))

    def block(self, path: str, x: Tensor, embedding: Tensor, out: int, resample: str = "") -> Tensor:
        def resampled(z: Tensor) -> Tensor:
            if resample == "down":
                return (z[:, ::2, ::2] + z[:, 1::2, ::2] + z[:, ::2, 1::2] + z[:, 1::2, 1::2]) / 4
            return z.repeat_interleave(2, 1).repeat_interleave(2, 2) if resample else z

        h = self.conv(f"{path}/conv1", resampled(F.silu(self.norm(f"{path}/norm1", x))), out)
        film = self.dense(f"{path}/temb_proj", F.silu(embedding), 2 * out)[:, None, None]
        h = self.norm(f"{path}/norm2", h) * (1 + film[..., :out]) + film[..., out:]
        h = self.conv(f"{path}/conv2", F.silu(h), out)
        x = resampled(x)
        return h + (self.dense(f"{path}/nin_shortcut", x, out) if x.shape[-1] != out else x)

    def attention(self, path: str, x: Tensor, width: int) -> Tensor:
        channels = x.shape[-1]
        heads = channels // width
        h = self.norm(f"{path}/norm", x).flatten(1, 2)
        q, k, v = (
            torch.einsum("bpc,chd->bphd", h, self.leaf(f"{path}/{n}", "kernel", (channels, heads, width)))
            + self.leaf(f"{path}/{n}", "bias", (heads, width))
            for n in "qkv"
        )
        weights = torch.softmax(torch.einsum("bphd,bqhd->bhpq", q, k) / math.sqrt(width), dim=-1)
        kernel = self.leaf(f"{path}/proj_out", "kernel", (heads, width, channels))
        out = torch.einsum("bhpq,bqhd,hdc->bpc", weights, v, kernel) + self.leaf(
            f"{path}/proj_out", "bias", (channels,)
        )
        return x + out.reshape(x.shape)

    def __call__(self, x: Tensor, logsnr: Tensor, labels: Tensor, out: int) -> Tensor:
        channels, multipliers, width = FLAX["channels"], FLAX["multipliers"], FLAX["head_width"]
        level = torch.atan(torch.exp(-0.5 * logsnr)) / (math.pi / 2)
        frequencies = torch.exp(-math.log(10_000) / (channels // 2 - 1) * torch.arange(channels // 2))
        angles = 1000 * level[:, None] * frequencies
        emb = self.dense("dense0", torch.cat([angles.sin(), angles.cos()], 1), FLAX["embedding"])
        emb = self.dense("dense1", F.silu(emb), FLAX["embedding"])
        emb = emb + self.dense("class_emb", F.one_hot(labels, 3).float(), FLAX["embedding"])
        h = self.conv("conv_in", x, channels)
        skips = [h]
        for i, multiplier in enumerate(multipliers):
            h = self.block(f"down_{i}.block_0", h, emb, channels * multiplier)
            h = self.attention(f"down_{i}.attn_0", h, width) if h.shape[1] in FLAX["attention"] else h
            skips.append(h)
            if i < len(multipliers) - 1:
                h = self.block(f"down_{i}.downsample", h, emb, h.shape[-1], "down")
                skips.append(h)
        h = self.block("mid.block_1", h, emb, h.shape[-1])
        h = self.attention("mid.attn_1", h, width)
        h = self.block("mid.block_2", h, emb, h.shape[-1])
        for i, multiplier in reversed(list(enumerate(multipliers))):
            for j in range(2):
                h = self.block(f"up_{i}.block_{j}", torch.cat([h, skips.pop()], -1), emb, channels * multiplier)
                h = self.attention(f"up_{i}.attn_{j}", h, width) if h.shape[1] in FLAX["attention"] else h
            h = self.block(f"up_{i}.upsample", h, emb, h.shape[-1], "up") if i else h
        return self.conv("conv_out", F.silu(self.norm("norm_out", h)), out)


def write_flax(path: Path, tree: dict[str, Any], *, old_norms: bool = False, chunked: str = "") -> Path:
    """As flax serialises a training state: arrays are extension 1, `(shape, type, bytes)`, large ones in chunks."""
    msgpack = pytest.importorskip("msgpack")

    def encode(array: np.ndarray[Any, Any]) -> Any:
        return msgpack.ExtType(1, msgpack.packb((array.shape, array.dtype.name, array.tobytes()), use_bin_type=True))

    def encoded(node: Any, place: str) -> Any:
        if isinstance(node, dict):
            return {name: encoded(value, f"{place}/{name}") for name, value in node.items()}
        if old_norms and "norm" in place:
            node = node[None, None, None]
        if place.strip("/") == chunked:
            pieces = np.array_split(node.reshape(-1), 3)
            shape = {str(i): size for i, size in enumerate(node.shape)}
            chunks = {str(i): encode(piece) for i, piece in enumerate(pieces)}
            return {"__msgpack_chunked_array__": True, "shape": shape, "chunks": chunks}
        return encode(node)

    state = {"step": 7, "optimizer": None, "ema_params": encoded(tree, ""), "num_sample_steps": 0}
    path.write_bytes(msgpack.packb(state, use_bin_type=True))
    return path
