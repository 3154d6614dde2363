"""Sample grids: what a person looks at."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor
from torchvision.utils import make_grid

from tract_ray.data.dataset import to_uint8


def image_grid(images: Tensor, columns: int = 8, scale: int = 1) -> Image.Image:
    """A picture of `images` `(N, C, H, W)` in [-1, 1] (or uint8), `scale` screen pixels per image pixel."""
    pixels = images if images.dtype == torch.uint8 else to_uint8(images)
    large = pixels.cpu().repeat_interleave(scale, dim=2).repeat_interleave(scale, dim=3)
    grid = make_grid(large.float() / 255, nrow=columns, padding=2, pad_value=0.25)
    return Image.fromarray((grid * 255).round().to(torch.uint8).permute(1, 2, 0).numpy())


def grid_scale(image_size: int) -> int:
    """Enlargement that makes small images visible: about 64 screen pixels a side."""
    return max(1, 64 // image_size)


def save_grid(images: Tensor, path: Path, columns: int = 8) -> Path:
    """Write `image_grid` as a PNG, enlarged to be seen; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image_grid(images, columns, grid_scale(images.shape[-1])).save(path)
    return path
