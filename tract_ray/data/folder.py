"""Any folder of images, one class a sub-folder (or none), or a zip in EDM's layout: `folder:PATH@SIZE`."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import torch

from tract_ray.config import require
from tract_ray.data.dataset import Dataset
from tract_ray.data.pictures import SUFFIXES, decode
from tract_ray.data.zipped import load_zip, zip_classes

FOLDER_PREFIX = "folder:"


def parse_folder(name: str) -> tuple[Path, int]:
    """`folder:PATH@SIZE` -> (PATH, SIZE). Raises `InputError` for another form."""
    path, at, size = name.removeprefix(FOLDER_PREFIX).rpartition("@")
    require(
        bool(at and path) and size.isdigit() and int(size) > 0,
        "dataset",
        f"{name!r} is not folder:PATH@SIZE (example: folder:./photos@32)",
    )
    return Path(path).expanduser(), int(size)


def is_zip(path: Path) -> bool:
    """Whether the path means an archive and not a folder."""
    return path.suffix.lower() == ".zip" and not path.is_dir()


def count_classes(path: Path) -> int:
    """The number of classes under `path`, at least 1; also of a folder that is not there yet."""
    if is_zip(path):
        return zip_classes(path) if path.exists() else 1
    return max(1, sum(1 for entry in path.iterdir() if entry.is_dir())) if path.is_dir() else 1


def load_pictures(path: Path, size: int, name: str) -> Dataset:
    """The images below `path`, `(N, 3, size, size)`, sorted by path; a class is a folder right below it."""
    require(path.is_dir(), "dataset", f"{path} is not a folder")
    files = sorted(p for p in path.rglob("*") if p.suffix.lower() in SUFFIXES)
    require(bool(files), "dataset", f"{path} holds no image ({', '.join(sorted(SUFFIXES))})")
    depth = len(path.parts)
    folders = [file.parts[depth] if len(file.parts) > depth + 1 else "" for file in files]
    classes = sorted(set(folders) - {""})
    number = {c: i for i, c in enumerate(classes)}
    images = decode([str(file) for file in files], size, Path)
    labels = torch.tensor([number.get(folder, 0) for folder in folders], dtype=torch.int64)
    return Dataset(name, images, labels, num_classes=max(1, len(classes)), flip=True)


def load_folder(name: str) -> Callable[[Path | None], Dataset]:
    """A loader of the folder or zip that `name` names; images are RGB."""

    def load(root: Path | None = None) -> Dataset:
        path, size = parse_folder(name)
        return load_zip(path, size, name) if is_zip(path) else load_pictures(path, size, name)

    return load
