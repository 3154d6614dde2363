"""ImageNet at 64x64 with its 1,000 classes, from an image folder or from a zip in EDM's layout."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from tract_ray.config import InputError, require
from tract_ray.data.cifar10 import DEFAULT_ROOT
from tract_ray.data.dataset import Dataset
from tract_ray.data.decoded import decoded
from tract_ray.data.on_disk import scan

SIZE, CLASSES = 64, 1000


def load_imagenet64(root: Path | None = None) -> Dataset:
    """`(N, 3, 64, 64)`: `imagenet64.zip` (EDM's `dataset_tool.py`) or `imagenet64/train/<class>/*.JPEG` under `root`.

    Where both are there the zip is read, which is much faster. Classes of a folder are numbered in the order of their
    names, as everywhere for ImageNet; its pictures are cropped to the central square and reduced by a box filter.

    All 1,281,167 training images take 15.7 GB of the disk once they are decoded, by a thread per core, and as much of
    a GPU's memory where they are moved to one.
    """
    place = find_imagenet64(root)
    if place.is_file():
        source = scan(place)
        require(source.num_classes > 1, "dataset", f"{place} has no labels; make it with dataset_tool.py's labels")
        require(source.num_classes <= CLASSES, "dataset", f"{place} has labels beyond ImageNet's {CLASSES} classes")
    else:
        # Counted before an hour of decoding: with classes missing, every later one would get a wrong number.
        found = sum(1 for entry in place.iterdir() if entry.is_dir())
        require(found == CLASSES, "dataset", f"{place} has {found} class folders, ImageNet has {CLASSES}")
        source = scan(place)
        require(source.num_classes == CLASSES, "dataset", f"{place} has pictures of only {source.num_classes} classes")
    data = decoded(source, SIZE, "imagenet64", flip=True, background="white", skip_damaged=False)
    return replace(data, num_classes=CLASSES)


def find_imagenet64(root: Path | None = None) -> Path:
    """The zip, or the folder of class folders; an `InputError` that says where they are looked for."""
    folder = (root or DEFAULT_ROOT).expanduser()
    zipped, pictures = folder / "imagenet64.zip", folder / "imagenet64"
    if zipped.is_file():
        return zipped
    if pictures.is_dir():
        return pictures / "train" if (pictures / "train").is_dir() else pictures
    raise InputError(
        f"dataset: imagenet64 is not in {folder}: put imagenet64/train/<class>/*.JPEG or imagenet64.zip (EDM's "
        "dataset_tool.py) there, or name its folder with --data-root"
    )
