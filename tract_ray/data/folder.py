"""Any folder of images: `folder:PATH@SIZE`, one class a sub-folder (or none)."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from tract_ray.config import InputError, require
from tract_ray.data.dataset import Dataset

FOLDER_PREFIX = "folder:"
SUFFIXES = {".jpg", ".jpeg", ".png", ".webp", ".bmp"}


def parse_folder(name: str) -> tuple[Path, int]:
    """`folder:PATH@SIZE` -> (PATH, SIZE). Raises `InputError` for another form."""
    path, at, size = name.removeprefix(FOLDER_PREFIX).rpartition("@")
    require(
        bool(at and path) and size.isdigit() and int(size) > 0,
        "dataset",
        f"{name!r} is not folder:PATH@SIZE (example: folder:./photos@32)",
    )
    return Path(path).expanduser(), int(size)


def centre_crop_box(image: Image.Image, size: int) -> Image.Image:
    """The central square, reduced by averaging: ImageNet-64's standard treatment (box filter)."""
    side = min(image.size)
    left, top = (image.width - side) // 2, (image.height - side) // 2
    return image.crop((left, top, left + side, top + side)).resize((size, size), Image.Resampling.BOX)


def load_folder(name: str) -> Callable[[Path | None], Dataset]:
    """A loader of the folder that `name` names; images are RGB, `(N, 3, SIZE, SIZE)`, sorted by path."""

    def load(root: Path | None = None) -> Dataset:
        path, size = parse_folder(name)
        require(path.is_dir(), "dataset", f"{path} is not a folder")
        files = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
        require(bool(files), "dataset", f"{path} holds no image ({', '.join(sorted(SUFFIXES))})")
        classes = sorted({p.relative_to(path).parts[0] for p in files if len(p.relative_to(path).parts) > 1})
        number = {c: i for i, c in enumerate(classes)}
        images = np.empty((len(files), size, size, 3), dtype=np.uint8)
        labels = torch.zeros(len(files), dtype=torch.int64)
        for i, file in enumerate(files):
            try:
                with Image.open(file) as image:
                    images[i] = np.asarray(centre_crop_box(image.convert("RGB"), size))
            except (OSError, Image.DecompressionBombError):
                raise InputError(f"dataset: {file} is not a readable image; remove or replace it") from None
            labels[i] = number.get(file.relative_to(path).parts[0], 0)
        tensor = torch.from_numpy(images).permute(0, 3, 1, 2).contiguous()
        return Dataset(name, tensor, labels, num_classes=max(1, len(classes)), flip=True)

    return load
