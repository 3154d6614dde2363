"""Encoded pictures to one array of pixels."""

from __future__ import annotations

import os
import zlib
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import IO, Any
from zipfile import BadZipFile

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from tract_ray.config import InputError

SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}
# What PIL, and a zip around it, raise for damaged, encrypted or absurdly large content.
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


def centre_crop_box(image: Image.Image, size: int) -> Image.Image:
    """The central square, reduced by averaging: ImageNet-64's standard treatment (box filter)."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BOX)


def decode(names: Sequence[str], size: int, source: Callable[[str], Path | IO[bytes]], inside: str = "") -> Tensor:
    """RGB images `(N, 3, size, size)`, uint8; `source` gives the file of a name, `inside` tells where names belong.

    One array is filled in place by a thread per core (PIL decodes outside Python's lock), so nothing but it and the
    names stays in memory. Raises `InputError` that names the first picture found unreadable.
    """
    images = torch.empty(len(names), 3, size, size, dtype=torch.uint8)
    pixels: np.ndarray[Any, Any] = images.numpy()

    def fill(start: int) -> None:
        for i in range(start, min(start + _CHUNK, len(names))):
            try:
                with Image.open(source(names[i])) as image:
                    pixels[i] = np.asarray(centre_crop_box(image.convert("RGB"), size)).transpose(2, 0, 1)
            except _UNREADABLE:
                place = names[i] + inside
                raise InputError(f"dataset: {place} is not a readable image; remove or replace it") from None

    with ThreadPoolExecutor(min(32, os.cpu_count() or 1)) as pool:
        for _ in pool.map(fill, range(0, len(names), _CHUNK)):
            pass  # asks for the result, and so for the error
    return images
