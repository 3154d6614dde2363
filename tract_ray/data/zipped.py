"""Zip files of EDM's `dataset_tool.py`: images in folders, and their labels in `dataset.json`."""

from __future__ import annotations

import json
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from threading import Lock
from zipfile import BadZipFile, ZipFile

from tract_ray.config import InputError, require
from tract_ray.data.source import Source, is_picture, require_pictures, suffixes

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


def zip_classes(path: Path) -> int:
    """The number of classes, at least 1. Raises `InputError` for a file that is not such a zip."""
    require(path.is_file(), "dataset", f"{path} does not exist")
    return _zip_classes(path, path.stat().st_mtime_ns)


@lru_cache(maxsize=8)
def _zip_classes(path: Path, modified: int) -> int:
    with _open(path) as archive:
        return max(_labels(path, archive).values(), default=0) + 1


def scan_zip(path: Path, labelled: bool = True) -> Source:
    """All images of the archive, sorted by name as EDM sorts them. Without labels all are of class 0."""
    archive, known = _open(path), suffixes()
    inside = [n for n in archive.namelist() if not n.endswith("/") and n != LABELS]
    names = sorted(n for n in inside if is_picture(n, known))
    skipped = [(n, "not an image") for n in inside if not is_picture(n, known)]
    require_pictures(path, names, skipped)
    labels = _labels(path, archive) if labelled else {}
    missing = next((n for n in names if n not in labels), None) if labels else None
    require(missing is None, "dataset", f"{path} has no label for {missing}")
    lock = Lock()

    def read(index: int) -> BytesIO:
        with lock:  # a ZipFile counts its open members without one
            return BytesIO(archive.read(names[index]))

    return Source(
        path=path,
        names=names,
        labels=[labels.get(n, 0) for n in names],
        num_classes=max(labels.values(), default=0) + 1,
        read=read,
        files=[path],
        skipped=skipped,
        inside=f" in {path}",
    )
