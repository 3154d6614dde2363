"""ImageNet at 64x64 with its 1,000 classes, from an image folder or from a zip in EDM's layout."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tract_ray.config import InputError, require
from tract_ray.data.cifar10 import DEFAULT_ROOT
from tract_ray.data.dataset import Dataset
from tract_ray.data.folder import load_pictures
from tract_ray.data.zipped import load_zip

SIZE, CLASSES = 64, 1000


def load_imagenet64(root: Path | None = None) -> Dataset:
    """`(N, 3, 64, 64)`: `imagenet64.zip` (EDM's `dataset_tool.py`) or `imagenet64/train/<class>/*.JPEG` under `root`.

    Where both are there the zip is read, which is much faster. Classes of a folder are numbered in the order of their
    names, as everywhere for ImageNet; its pictures are cropped to the central square and reduced by a box filter.

    All 1,281,167 training images take 15.7 GB of memory (and as much of a GPU's where they are moved to one), with
    up to 3 GB more for the directory of the zip while it is read. Reading uses a thread per core.
    """
    folder = (root or DEFAULT_ROOT).expanduser()
    zipped, pictures = folder / "imagenet64.zip", folder / "imagenet64"
    if zipped.is_file():
        data = load_zip(zipped, SIZE, "imagenet64")
        require(data.num_classes > 1, "dataset", f"{zipped} has no labels; make it with dataset_tool.py's labels")
        require(data.num_classes <= CLASSES, "dataset", f"{zipped} has labels beyond ImageNet's {CLASSES} classes")
    elif pictures.is_dir():
        train = pictures / "train" if (pictures / "train").is_dir() else pictures
        # Counted before an hour of decoding: with classes missing, every later one would get a wrong number.
        found = sum(1 for entry in train.iterdir() if entry.is_dir())
        require(found == CLASSES, "dataset", f"{train} has {found} class folders, ImageNet has {CLASSES}")
        data = load_pictures(train, SIZE, "imagenet64")
        require(data.num_classes == CLASSES, "dataset", f"{train} has pictures of only {data.num_classes} classes")
    else:
        raise InputError(
            f"dataset: imagenet64 is not in {folder}: put imagenet64/train/<class>/*.JPEG or imagenet64.zip (EDM's "
            "dataset_tool.py) there, or name its folder with --data-root"
        )
    return replace(data, num_classes=CLASSES)
