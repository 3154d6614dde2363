"""Sample grids: what a person looks at."""

from __future__ import annotations

from pathlib import Path

import torch
from PIL import Image
from torch import Tensor

from tract_ray.data.dataset import to_uint8

GAP, GREY = 2, 64  # between and around the images


def image_grid(images: Tensor, columns: int = 8, scale: int = 1) -> Image.Image:
    """A picture of `images` `(N, C, H, W)` in [-1, 1] (or uint8), `scale` screen pixels per image pixel."""
    pixels = images if images.dtype == torch.uint8 else to_uint8(images)
    large = pixels.cpu().repeat_interleave(scale, dim=2).repeat_interleave(scale, dim=3)
    count, _, height, width = large.shape
    columns = min(columns, count)
    high, wide = height + GAP, width + GAP
    grid = torch.full((3, -(-count // columns) * high + GAP, columns * wide + GAP), GREY, dtype=torch.uint8)
    for index, image in enumerate(large):
        top, left = GAP + index // columns * high, GAP + index % columns * wide
        grid[:, top : top + height, left : left + width] = image
    return Image.fromarray(grid.permute(1, 2, 0).numpy())


def grid_scale(image_size: int) -> int:
    """Enlargement that makes small images visible: about 64 screen pixels a side."""
    return max(1, 64 // image_size)


def save_grid(images: Tensor, path: Path, columns: int = 8) -> Path:
    """Write `image_grid` as a PNG, enlarged to be seen; returns the path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image_grid(images, columns, grid_scale(images.shape[-1])).save(path)
    return path
