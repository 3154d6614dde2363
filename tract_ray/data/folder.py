"""Any folder of images, one class a sub-folder (or none)."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from tract_ray.config import require
from tract_ray.data.source import Source, is_picture, require_pictures, suffixes


def walk(folder: Path, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[tuple[os.DirEntry[str], str]]:
    """Every file below `folder`, sorted, with the reason to skip it, "" for none; links are followed, once."""
    here = folder.stat()
    above = above | {(here.st_dev, here.st_ino)}
    for entry in sorted(os.scandir(folder), key=lambda e: e.name):
        if entry.name.startswith("."):
            yield entry, "hidden"
        elif entry.is_dir():
            found = entry.stat()
            if (found.st_dev, found.st_ino) in above:
                yield entry, "a link back to its folder"
            else:
                yield from walk(Path(entry.path), above)
        else:
            yield entry, "" if entry.is_file() else "not a file"


def class_folders(path: Path) -> list[str]:
    """Names of the folders right below `path` that hold a picture, in order: the classes."""
    known = suffixes()
    folders = sorted(e.name for e in os.scandir(path) if e.is_dir() and not e.name.startswith("."))
    holds = (any(not why and is_picture(e.name, known) for e, why in walk(path / name)) for name in folders)
    return [name for name, some in zip(folders, holds, strict=True) if some]


def scan_folder(path: Path, labelled: bool = True) -> Source:
    """The images below `path`, sorted by path; a class is a folder right below it, unless they are not `labelled`."""
    require(path.is_dir(), "dataset", f"{path} is not a folder")
    known, files, skipped = suffixes(), list[Path](), list[tuple[str, str]]()
    for entry, why in walk(path):
        why = why or (
            "" if is_picture(entry.name, known) else f"not an image ({Path(entry.name).suffix or 'no ending'})"
        )
        if why:
            skipped.append((str(Path(entry.path).relative_to(path)), why))
        else:
            files.append(Path(entry.path))
    files.sort()
    require_pictures(path, [str(file) for file in files], skipped)
    depth = len(path.parts)
    folders = [file.parts[depth] if labelled and len(file.parts) > depth + 1 else "" for file in files]
    classes = sorted(set(folders) - {""})
    loose = next((file.name for file, folder in zip(files, folders, strict=True) if not folder), "")
    require(
        not (classes and loose),
        "dataset",
        f"{path} holds images ({loose}, …) beside folders of images ({classes[0] if classes else ''}, …), which would "
        "be classes; move one of them, or add ,unlabelled to the name",
    )
    number = {c: i for i, c in enumerate(classes)}
    return Source(
        path=path,
        names=[str(file) for file in files],
        labels=[number.get(folder, 0) for folder in folders],
        num_classes=max(1, len(classes)),
        read=files.__getitem__,
        files=files,
        skipped=skipped,
    )
