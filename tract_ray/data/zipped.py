"""Zip files of EDM's `dataset_tool.py`: images in folders, and their labels in `dataset.json`."""

from __future__ import annotations

import json
from functools import lru_cache
from io import BytesIO
from pathlib import Path, PurePosixPath
from threading import Lock
from zipfile import BadZipFile, ZipFile

import torch

from tract_ray.config import InputError, require
from tract_ray.data.dataset import Dataset
from tract_ray.data.pictures import SUFFIXES, decode

LABELS = "dataset.json"


def _open(path: Path) -> ZipFile:
    require(path.is_file(), "dataset", f"{path} does not exist")
    try:
        return ZipFile(path)
    except (BadZipFile, OSError) as error:
        raise InputError(f"dataset: {path} is not a readable zip file ({error})") from None


def _labels(path: Path, archive: ZipFile) -> dict[str, int]:
    """Label by file name; empty where the archive has none."""
    try:
        found = json.loads(archive.read(LABELS))["labels"] or []
    except KeyError:  # neither the file nor the entry has to be there
        return {}
    except (ValueError, TypeError, RuntimeError, BadZipFile, OSError) as error:
        raise InputError(f"dataset: {LABELS} in {path} is damaged ({error})") from None
    try:
        labels = dict(found)
    except (ValueError, TypeError):
        raise InputError(f"dataset: labels in {path} must be pairs of a file name and a class number") from None
    for name, label in labels.items():
        valid = isinstance(label, int) and not isinstance(label, bool) and label >= 0
        require(valid, "dataset", f"{path} labels {name} {label!r}; only class numbers from 0 are supported")
    return labels


@lru_cache(maxsize=8)
def zip_classes(path: Path) -> int:
    """The number of classes, at least 1. Raises `InputError` for a file that is not such a zip."""
    with _open(path) as archive:
        return max(_labels(path, archive).values(), default=0) + 1


def load_zip(path: Path, size: int, dataset: str) -> Dataset:
    """All images of the archive, `(N, 3, size, size)`, sorted by name as EDM sorts them.

    Images of another size are cropped and reduced like those of a folder. Without labels all are of class 0.
    """
    with _open(path) as archive:
        names = sorted(n for n in archive.namelist() if PurePosixPath(n).suffix.lower() in SUFFIXES)
        require(bool(names), "dataset", f"{path} holds no image ({', '.join(sorted(SUFFIXES))})")
        labels = _labels(path, archive)
        missing = next((n for n in names if n not in labels), None) if labels else None
        require(missing is None, "dataset", f"{path} has no label for {missing}")
        lock = Lock()

        def source(name: str) -> BytesIO:
            with lock:  # a ZipFile counts its open members without one
                return BytesIO(archive.read(name))

        images = decode(names, size, source, inside=f" in {path}")
    numbers = torch.tensor([labels.get(n, 0) for n in names], dtype=torch.int64)
    return Dataset(dataset, images, numbers, num_classes=max(labels.values(), default=0) + 1, flip=True)
