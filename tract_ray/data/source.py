"""Where pictures come from: their names, labels and encoded contents, before any is decoded."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path, PurePath
from typing import IO

from PIL import Image

from tract_ray.config import require

# What Pillow opens but cannot decode by itself, or what is no picture that anybody trains on.
_NO_PICTURES = {"BUFR", "EPS", "GRIB", "HDF5", "IPTC", "MPEG", "WMF", "IMT"}


@dataclass(frozen=True)
class Source:
    """Pictures in their order, `read(i)` each, and its class in `labels`. `skipped` are names with the reason.

    `files` are what lies on disk: while their sizes and times stay, so do the pictures.
    """

    path: Path
    names: Sequence[str]
    labels: Sequence[int]
    num_classes: int
    read: Callable[[int], Path | IO[bytes]] = field(repr=False)
    files: Sequence[Path] = field(repr=False)
    skipped: Sequence[tuple[str, str]] = ()
    inside: str = ""
    """What an error says after a name: where it belongs."""

    @cached_property
    def stamp(self) -> str:
        """A hash of the files' paths, sizes and times."""
        digest = hashlib.sha256(str(self.path.absolute()).encode())
        for file in self.files:
            found = file.stat()
            digest.update(f"{file}\0{found.st_size}\0{found.st_mtime_ns}\0{found.st_ctime_ns}\n".encode())
        return digest.hexdigest()[:16]


def suffixes() -> set[str]:
    """File name endings of what Pillow decodes on this machine."""
    return {ending for ending, form in Image.registered_extensions().items() if form in Image.OPEN} - {
        ending for ending, form in Image.registered_extensions().items() if form in _NO_PICTURES
    }


def is_picture(name: str, known: set[str]) -> bool:
    """Whether a file of this name is taken for a picture."""
    return PurePath(name).suffix.lower() in known


def require_pictures(path: Path, names: Sequence[str], skipped: Iterable[tuple[str, str]] = ()) -> None:
    """Raise `InputError` where nothing was found, saying what was there instead."""
    found = Counter(reason for _, reason in skipped)
    instead = "; skipped: " + ", ".join(f"{n} {reason}" for reason, n in found.items()) if found else ""
    require(bool(names), "dataset", f"{path} holds no image (.png, .jpg, .tiff, … whatever Pillow reads){instead}")
