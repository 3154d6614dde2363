"""A data set in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import torch
from torch import Tensor

from tract_ray.config import RunFailed
from tract_ray.data.fingerprint import content_hash, fingerprint, remember_content


@dataclass(frozen=True)
class Dataset:
    """Images `(N, C, H, W)` as uint8, labels `(N,)` as int64; on any device, or mapped from a file.

    `flip` says that mirrored images belong to the same distribution (photographs, not digits). `skipped` counts what
    was left out, by reason.
    """

    name: str
    images: Tensor
    labels: Tensor
    num_classes: int
    flip: bool = False
    skipped: Mapping[str, int] = field(default_factory=dict)

    def __len__(self) -> int:
        return self.images.shape[0]

    @property
    def shape(self) -> tuple[int, int, int]:
        """`(C, H, W)` of one image."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    @property
    def fingerprint(self) -> str:
        """16 hexadecimal digits of the decoded images, their order and their labels; the name is no part of it."""
        return fingerprint(self.images, self.labels, self.num_classes, self.flip)

    def described(self) -> str:
        """One line for a person: images, classes, shape, and what was left out."""
        classes = f"{self.num_classes} classes" if self.num_classes > 1 else "no classes"
        left = ", ".join(f"{count:,} {reason}" for reason, count in self.skipped.items())
        shape = "x".join(map(str, self.shape))
        return f"{self.name}: {len(self):,} images, {classes}, as {shape}" + (f"; left out: {left}" if left else "")

    def to(self, device: torch.device | str) -> Dataset:
        """The same data on `device`: uint8 is small enough to live beside the networks."""
        images = self.images.to(device)
        if images is not self.images and hasattr(self.images, "_content"):
            remember_content(images, content_hash(self.images))
        return replace(self, images=images, labels=self.labels.to(device))

    def batch(self, indices: Tensor, mirror: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Images in [-1, 1], float32, and their labels. `mirror` `(B,)` flips where it is true."""
        indices = indices.to(self.images.device)
        images = self.images[indices]
        if mirror is not None:
            images = torch.where(mirror.to(images.device)[:, None, None, None], images.flip(-1), images)
        return to_float(images), self.labels[indices]


def to_float(images: Tensor) -> Tensor:
    """uint8 in 0..255 to float32 in [-1, 1]."""
    return images.float() / 127.5 - 1


def to_uint8(images: Tensor) -> Tensor:
    """Floats in [-1, 1] (clipped) to uint8 in 0..255, rounded. Raises `RunFailed` where one is no number."""
    if not bool(torch.isfinite(images).all()):
        raise RunFailed("images are not finite: the network that made them has diverged")
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
