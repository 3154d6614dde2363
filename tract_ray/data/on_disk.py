"""Data sets that are files on disk: `folder:PATH@SIZE`, with options after commas."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path

from tract_ray.config import InputError, choose, require
from tract_ray.data.dataset import Dataset
from tract_ray.data.decoded import decoded
from tract_ray.data.folder import class_folders, scan_folder
from tract_ray.data.pictures import BACKGROUNDS
from tract_ray.data.shards import SCANS, find_shards
from tract_ray.data.source import Source
from tract_ray.data.zipped import scan_zip, zip_classes

FOLDER_PREFIX = "folder:"
OPTIONS = ("skip-damaged", "unlabelled", "no-flip", "background")
_BELIEVED = 100
MAX_SIZE = 1 << 14
"""A look at the files that took a second is believed for this many seconds."""


@dataclass(frozen=True, kw_only=True)
class Pictures:
    """What `folder:PATH@SIZE,option,…` says.

    `skip-damaged` leaves out what cannot be read, `unlabelled` takes folders for no classes, `no-flip` says that
    mirrored images are other images, `background=black` is what shines through transparent pixels (else white).
    """

    path: Path
    size: int
    skip_damaged: bool = False
    unlabelled: bool = False
    flip: bool = True
    background: str = "white"

    @classmethod
    def parse(cls, name: str) -> Pictures:
        """Raises `InputError` for another form."""
        path, at, rest = name.removeprefix(FOLDER_PREFIX).rpartition("@")
        size, *options = rest.split(",")
        require(
            bool(at and path) and size.isascii() and size.isdigit() and size.strip("0") != "",
            "dataset",
            f"{name!r} is not folder:PATH@SIZE (example: folder:./photos@32)",
        )
        fits = len(size.lstrip("0")) < 6 and int(size) <= MAX_SIZE
        require(fits, "dataset", f"{name!r}: images are of at most {MAX_SIZE} pixels a side")
        given = dict(option.partition("=")[::2] for option in options)
        for option, value in given.items():
            choose("dataset option", option, OPTIONS)
            require((option == "background") == bool(value), "dataset", f"{name!r}: only background=… takes a value")
        return cls(
            path=Path(path).expanduser(),
            size=int(size),
            skip_damaged="skip-damaged" in given,
            unlabelled="unlabelled" in given,
            flip="no-flip" not in given,
            background=choose("background", given.get("background", "white"), BACKGROUNDS),
        )

    @property
    def classes(self) -> int:
        """The number of classes, at least 1; also of a folder that is not there yet."""
        if self.unlabelled or not self.path.exists():
            return 1
        if is_zip(self.path):
            return zip_classes(self.path)
        if find_shards(self.path)[1]:
            return self.source().num_classes
        return max(1, len(class_folders(self.path))) if self.path.is_dir() else 1

    def source(self) -> Source:
        """What is there now."""
        return scan(self.path, not self.unlabelled)

    def load(self, name: str) -> Dataset:
        """The data set, decoded the first time."""
        return decoded(
            self.source(), self.size, name, flip=self.flip, background=self.background, skip_damaged=self.skip_damaged
        )


def with_options(name: str, skip_damaged: bool) -> str:
    """The name of a folder's data set with what the command line adds to it."""
    if not skip_damaged or "skip-damaged" in name.rpartition("@")[2].split(","):
        return name
    if not name.startswith(FOLDER_PREFIX):
        raise InputError(f"skip-damaged: is for images on disk (folder:PATH@SIZE), not for {name}")
    return f"{name},skip-damaged"


def parse_folder(name: str) -> tuple[Path, int]:
    """`folder:PATH@SIZE` -> (PATH, SIZE), without its options. Raises `InputError` for another form."""
    found = Pictures.parse(name)
    return found.path, found.size


def is_zip(path: Path) -> bool:
    """Whether the path means an archive and not a folder."""
    return path.suffix.lower() == ".zip" and not path.is_dir()


_seen: dict[tuple[Path, bool], tuple[float, Source]] = {}


def scan(path: Path, labelled: bool = True) -> Source:
    """The pictures at `path`. A look that took long is not repeated at once."""
    until, source = _seen.get((path, labelled), (0.0, None))
    if source is not None and time.monotonic() < until:
        return source
    begun = time.monotonic()
    ending, shards = find_shards(path)
    if shards:
        source = SCANS[ending](path, shards, labelled)
    else:
        source = scan_zip(path, labelled) if is_zip(path) else scan_folder(path, labelled)
    took = time.monotonic() - begun
    if took > 0.5:
        _seen[path, labelled] = time.monotonic() + _BELIEVED * took, source
    return source
