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
from tract_ray.data.imagenet64 import find_imagenet64, load_imagenet64
from tract_ray.data.on_disk import FOLDER_PREFIX, Pictures, scan


@dataclass(frozen=True)
class DatasetInfo:
    """What is known of a data set before it is loaded. `size` is its number of images, 0 where only a look tells.

    `stamp` is of the files as they are now: another one means that they must be read again.
    """

    name: str
    shape: tuple[int, int, int]
    num_classes: int
    size: int
    network: str
    features: str
    note: str
    load: Callable[[Path | None], Dataset]
    stamp: Callable[[Path | None], str] = lambda root: ""


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
            lambda root: scan(find_imagenet64(root)).stamp,
        ),
    )
}


def dataset_info(name: str) -> DatasetInfo:
    """What is known of the data set `name`; a folder or zip (`folder:PATH@SIZE`) is described without its images."""
    if name.startswith(FOLDER_PREFIX):
        found = Pictures.parse(name)
        return DatasetInfo(
            name,
            (3, found.size, found.size),
            found.classes,
            0,
            "",
            "inception",
            "images on disk",
            lambda root: found.load(name),
            lambda root: found.source().stamp,
        )
    try:
        return datasets[choose("dataset", name, datasets)]
    except InputError as error:
        raise InputError(f"{error}, or folder:PATH@SIZE for images on disk") from None


def check_dataset(name: str) -> None:
    """Raise `InputError` where the folder or zip that `folder:PATH@SIZE` names is not there."""
    if name.startswith(FOLDER_PREFIX):
        path = Pictures.parse(name).path
        require(path.exists(), "dataset", f"{path} does not exist")


def load_dataset(name: str, root: str | None = None) -> Dataset:
    """The data set `name`, in memory or mapped. `root` is where downloaded sets live (`~/.cache/tract-ray/data`).

    Files that have changed are read again. Raises `InputError` when the name is unknown, or when the data is neither
    on disk nor reachable.
    """
    place = Path(root).expanduser() if root else None
    return _loaded(name, place, dataset_info(name).stamp(place))


@lru_cache(maxsize=4)
def _loaded(name: str, root: Path | None, stamp: str) -> Dataset:
    return dataset_info(name).load(root)


def dataset_fingerprint(name: str, root: str | None = None) -> str:
    """`Dataset.fingerprint` of the data set `name`, whose images are decoded if they have never been."""
    return load_dataset(name, root).fingerprint
