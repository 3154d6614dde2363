"""scikit-learn's handwritten digits: 1,797 real 8x8 images that need no download."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from tract_ray.data.dataset import Dataset


def _digits() -> tuple[Tensor, Tensor]:
    from sklearn.datasets import load_digits

    bunch = load_digits()
    return torch.from_numpy(bunch.images).float(), torch.from_numpy(bunch.target).long()


def load_digits_8(root: Path | None = None) -> Dataset:
    """`(1797, 1, 8, 8)`; the 17 grey levels of the source are spread over 0..255."""
    images, labels = _digits()
    return Dataset("digits", (images[:, None] * (255 / 16)).round().to(torch.uint8), labels, num_classes=10)


def load_digits_16(root: Path | None = None) -> Dataset:
    """`(1797, 1, 16, 16)`: the same images, enlarged bilinearly."""
    images, labels = _digits()
    large = F.interpolate(images[:, None] * (255 / 16), size=(16, 16), mode="bilinear", align_corners=False)
    return Dataset("digits16", large.round().to(torch.uint8), labels, num_classes=10)
