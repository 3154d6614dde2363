"""Zip files as EDM's `dataset_tool.py` writes them."""

from __future__ import annotations

import io
import json
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
from PIL import Image


def picture(seed: int, size: tuple[int, int]) -> np.ndarray[Any, Any]:
    """Random RGB pixels `(H, W, 3)`; `size` is (width, height) as PIL has it."""
    return np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8)


def encode(pixels: np.ndarray[Any, Any], form: str = "PNG") -> bytes:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


def write_zip(path: Path, images: dict[str, bytes], labels: Any = None) -> Path:
    """`labels` are what `dataset.json` holds under that name; "none" leaves the file out."""
    with ZipFile(path, "w") as archive:
        for name, content in images.items():
            archive.writestr(name, content)
        if labels != "none":
            archive.writestr("dataset.json", json.dumps({"labels": labels}))
    return path
