"""Encoded pictures to arrays of pixels."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from zipfile import BadZipFile

import numpy as np
from PIL import Image, ImageOps

from tract_ray.config import InputError, choose
from tract_ray.data.source import Source

# What Pillow, and a zip around it, raise for damaged, encrypted or absurdly large content.
_UNREADABLE = (
    OSError,
    EOFError,
    SyntaxError,
    ValueError,
    NotImplementedError,
    RuntimeError,
    zlib.error,
    BadZipFile,
    Image.DecompressionBombError,
)
_CHUNK = 256
BACKGROUNDS = {"white": (255, 255, 255), "grey": (128, 128, 128), "black": (0, 0, 0)}
"""What shines through transparent pixels, by name."""

Pixels = np.ndarray[Any, np.dtype[np.uint8]]


def centre_crop_box(image: Image.Image, size: int) -> Image.Image:
    """The central square, reduced by averaging: ImageNet-64's standard treatment (box filter)."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BOX)


def to_rgb(image: Image.Image, background: str = "white") -> Image.Image:
    """Upright as its EXIF orientation says, transparent pixels over the `background`, 16 bits reduced to 8."""
    colour = BACKGROUNDS[choose("background", background, BACKGROUNDS)]
    image = ImageOps.exif_transpose(image)
    if image.mode in ("I", "I;16", "I;16B", "I;16L"):  # Pillow would cut them off at 255
        grey = np.asarray(image).astype(np.float64) / 257
        return Image.fromarray(grey.round().clip(0, 255).astype(np.uint8)).convert("RGB")
    if image.mode == "F":
        raise ValueError("floating-point pixels have no known range")
    if image.has_transparency_data:
        rgba = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", rgba.size, (*colour, 255)), rgba).convert("RGB")
    return image.convert("RGB")


def decode(
    source: Source, size: int, background: str = "white", skip_damaged: bool = False
) -> Iterator[tuple[list[int], Pixels, list[tuple[int, int]]]]:
    """Images in order, a few hundred at a time: which of the source's, `(n, 3, size, size)`, and their first sizes.

    A thread per core decodes (Pillow does outside Python's lock), and only a few parts are in memory. Raises
    `InputError` that names the first picture found unreadable, or leaves it out with `skip_damaged`.
    """

    def part(start: int) -> tuple[list[int], Pixels, list[tuple[int, int]]]:
        indices = range(start, min(start + _CHUNK, len(source.names)))
        pixels: Pixels = np.empty((len(indices), 3, size, size), dtype=np.uint8)
        kept, sizes = list[int](), list[tuple[int, int]]()
        for index in indices:
            try:
                with Image.open(source.read(index)) as image:
                    rgb = to_rgb(image, background)
                    pixels[len(kept)] = np.asarray(centre_crop_box(rgb, size)).transpose(2, 0, 1)
                    sizes.append(rgb.size)
                    kept.append(index)
            except _UNREADABLE:
                if not skip_damaged:
                    raise InputError(
                        f"dataset: {source.names[index]}{source.inside} is not a readable image; remove or replace it, "
                        "or leave it out with --skip-damaged"
                    ) from None
        return kept, pixels[: len(kept)], sizes

    workers = min(32, os.cpu_count() or 1)
    starts = range(0, len(source.names), _CHUNK)
    with ThreadPoolExecutor(workers) as pool:
        for first in range(0, len(starts), 4 * workers):
            yield from pool.map(part, starts[first : first + 4 * workers])
