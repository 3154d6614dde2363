"""Data sets by name. A new one is one file that loads it and one line here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from tract_ray.config import InputError, choose, require
from tract_ray.data.cifar10 import load_cifar10
from tract_ray.data.dataset import Dataset
from tract_ray.data.digits import load_digits_8, load_digits_16
from tract_ray.data.folder import FOLDER_PREFIX, count_classes, load_folder, parse_folder
from tract_ray.data.imagenet64 import load_imagenet64


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set before it is loaded. `size` is its number of images, 0 where only a look tells."""

    name: str
    shape: tuple[int, int, int]
    num_classes: int
    size: int
    network: str
    features: str
    note: str
    load: Callable[[Path | None], Dataset]


datasets: dict[str, DatasetInfo] = {
    info.name: info
    for info in (
        DatasetInfo(
            "digits", (1, 8, 8), 10, 1797, "mlp_8x8", "classifier", "scikit-learn's handwritten digits", load_digits_8
        ),
        DatasetInfo(
            "digits16", (1, 16, 16), 10, 1797, "unet_16x16", "classifier", "the digits at 16x16", load_digits_16
        ),
        DatasetInfo(
            "cifar10",
            (3, 32, 32),
            10,
            50_000,
            "unet_cifar10",
            "inception",
            "torchvision's CIFAR-10, training half",
            load_cifar10,
        ),
        DatasetInfo(
            "imagenet64",
            (3, 64, 64),
            1000,
            1_281_167,
            "unet_imagenet64",
            "inception",
            "ImageNet's training images, folder or zip",
            load_imagenet64,
        ),
    )
}


def dataset_info(name: str) -> DatasetInfo:
    """What is known of the data set `name`; a folder or zip (`folder:PATH@SIZE`) is described without its images."""
    if name.startswith(FOLDER_PREFIX):
        path, size = parse_folder(name)
        classes = count_classes(path)
        return DatasetInfo(name, (3, size, size), classes, 0, "", "inception", "images on disk", load_folder(name))
    try:
        return datasets[choose("dataset", name, datasets)]
    except InputError as error:
        raise InputError(f"{error}, or folder:PATH@SIZE for images on disk") from None


def check_dataset(name: str) -> None:
    """Raise `InputError` where the folder or zip that `folder:PATH@SIZE` names is not there."""
    if name.startswith(FOLDER_PREFIX):
        path, _ = parse_folder(name)
        require(path.exists(), "dataset", f"{path} does not exist")


@lru_cache(maxsize=2)
def load_dataset(name: str, root: str | None = None) -> Dataset:
    """The data set `name` in memory. `root` is where downloaded sets live (default `~/.cache/tract-ray/data`).

    Raises `InputError` when the name is unknown, or when the data is neither on disk nor reachable.
    """
    return dataset_info(name).load(Path(root).expanduser() if root else None)
