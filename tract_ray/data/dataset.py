"""A data set in memory."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor


@dataclass(frozen=True)
class Dataset:
    """Images `(N, C, H, W)` as uint8, labels `(N,)` as int64; on any device.

    `flip` says that mirrored images belong to the same distribution (photographs, not digits).
    """

    name: str
    images: Tensor
    labels: Tensor
    num_classes: int
    flip: bool = False

    def __len__(self) -> int:
        return self.images.shape[0]

    @property
    def shape(self) -> tuple[int, int, int]:
        """`(C, H, W)` of one image."""
        _, channels, height, width = self.images.shape
        return channels, height, width

    def to(self, device: torch.device | str) -> Dataset:
        """The same data on `device`: uint8 is small enough to live beside the networks."""
        return replace(self, images=self.images.to(device), labels=self.labels.to(device))

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
    """Floats in [-1, 1] (clipped) to uint8 in 0..255, rounded."""
    return ((images.float() + 1) * 127.5).round().clamp(0, 255).to(torch.uint8)
