"""CIFAR-10 through torchvision."""

from __future__ import annotations

from contextlib import suppress
from pathlib import Path

import torch

from tract_ray.config import InputError
from tract_ray.data.dataset import Dataset

DEFAULT_ROOT = Path("~/.cache/tract-ray/data")


def load_cifar10(root: Path | None = None) -> Dataset:
    """The 50,000 training images, `(N, 3, 32, 32)`; downloaded by torchvision where they are not on disk."""
    from torchvision.datasets import CIFAR10

    folder = (root or DEFAULT_ROOT).expanduser()
    try:
        source = CIFAR10(str(folder), train=True, download=False)
    except RuntimeError:  # torchvision's word for "not there, or its checksum is wrong"
        missing = [place for place in (folder, *folder.parents) if not place.exists()]
        try:
            source = CIFAR10(str(folder), train=True, download=True)
        except Exception as error:
            with suppress(OSError):  # torchvision makes the folder before it asks for anything
                for place in missing:
                    place.rmdir()
            raise InputError(
                f"dataset: cifar10 is not in {folder} and its download failed ({type(error).__name__}); put "
                "cifar-10-python.tar.gz there, name its folder with --data-root, or use folder:PATH@32"
            ) from None
    images = torch.from_numpy(source.data).permute(0, 3, 1, 2).contiguous()
    return Dataset("cifar10", images, torch.tensor(source.targets), num_classes=10, flip=True)
