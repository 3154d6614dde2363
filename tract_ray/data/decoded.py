"""Decoded once: pixels in a file that every process of the machine maps, so that data may be larger than memory.

`TRACT_RAY_DATA_CACHE` (default `~/.cache/tract-ray/decoded`) holds a small JSON for each source and size, which says
what its files' sizes and times were and what came of them, and a folder with the pixels for each content. Pixels that
are not those of their content are decoded again: up to a gigabyte is looked at each time, more where the file has been
written to since.
"""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import sys
import tempfile
import warnings
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from tract_ray.config import InputError, config_hash, require
from tract_ray.data.dataset import Dataset
from tract_ray.data.fingerprint import remember_content
from tract_ray.data.pictures import decode
from tract_ray.data.source import Source
from tract_ray.files import atomic_folder, open_lock, read_json, set_aside, write_json

FORMAT = 1  # raised when the same files come to other pixels
SMALL = 1 << 30
"""Bytes of pixels that are hashed in about a second."""


@dataclass(frozen=True)
class About:
    """What came of a source: the `content` hash of its pixels, and what a person wants to know of it."""

    content: str
    images: int
    sizes: dict[str, int]
    skipped: dict[str, int]
    damaged: list[str]


def cache_folder() -> Path:
    """Where decoded data is kept; on the machine itself, where it is read fastest."""
    return Path(os.environ.get("TRACT_RAY_DATA_CACHE") or "~/.cache/tract-ray/decoded").expanduser().absolute()


def decoded(source: Source, size: int, name: str, *, flip: bool, background: str, skip_damaged: bool) -> Dataset:
    """The pictures of `source`, `(N, 3, size, size)`; decoded where their files have changed, else mapped."""
    about, pixels = _about(source, size, background, skip_damaged)
    damaged = set(about.damaged)
    labels = [label for place, label in zip(source.names, source.labels, strict=True) if place not in damaged]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # the file is mapped read-only, and nothing here writes to it
        images = torch.from_numpy(pixels)
    remember_content(images, about.content)
    return Dataset(
        name,
        images,
        torch.tensor(labels, dtype=torch.int64),
        num_classes=source.num_classes,
        flip=flip,
        skipped=about.skipped,
    )


def about_pictures(source: Source, size: int, *, background: str, skip_damaged: bool) -> About:
    """What there is to say of `source`, which is decoded if need be."""
    return _about(source, size, background, skip_damaged)[0]


def _about(source: Source, size: int, background: str, skip_damaged: bool) -> tuple[About, np.ndarray[Any, Any]]:
    cache = cache_folder()
    key = config_hash([FORMAT, source.stamp, size, background, skip_damaged, len(source.names)])
    shape = (3, size, size)
    try:
        with _one_at_a_time(cache / f"{key}.lock"):
            found = _read(cache, key, shape) or _write(cache, key, shape, source, background, skip_damaged)
    except InputError:
        raise
    except OSError as error:
        raise InputError(
            f"dataset: {cache} cannot hold the decoded images ({error.strerror or error}); name another folder in "
            "TRACT_RAY_DATA_CACHE"
        ) from None
    return found


@contextmanager
def _one_at_a_time(lock: Path) -> Iterator[None]:
    """Of the workers of a machine, one decodes and the others wait."""
    lock.parent.mkdir(parents=True, exist_ok=True)
    with open_lock(lock) as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _read(cache: Path, key: str, shape: tuple[int, int, int]) -> tuple[About, np.ndarray[Any, Any]] | None:
    """What was decoded; None where nothing was, or where the cache was emptied or damaged."""
    index = cache / f"{key}.json"
    try:
        if not index.exists():
            return None
        told = read_json(index, "dataset")
        seen = told.pop("seen", None)
        about = About(**told)
        file = cache / about.content / "pixels"
        pixels = np.memmap(file, dtype=np.uint8, mode="r", shape=(about.images, *shape))
        now = _seen(file)
        if pixels.nbytes <= SMALL or seen != now:
            require(_hash(file) == about.content, "dataset", f"{file} is damaged (its content is not what was written)")
        if seen != now:
            write_json(index, {**asdict(about), "seen": now})
    except InputError as error:
        print(f"{error}; it is decoded again", file=sys.stderr)
        return None
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        print(f"dataset: {cache / key} is damaged ({error}); it is decoded again", file=sys.stderr)
        return None
    return about, pixels


def _hash(file: Path) -> str:
    with file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _seen(file: Path) -> list[int]:
    """What changes when somebody writes to a file."""
    stat = file.stat()
    return [stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino]


def _write(
    cache: Path, key: str, shape: tuple[int, int, int], source: Source, background: str, skip_damaged: bool
) -> tuple[About, np.ndarray[Any, Any]]:
    digest, sizes, kept = hashlib.sha256(), Counter[str](), list[int]()
    scratch = Path(tempfile.mkdtemp(prefix=".decoding-", dir=cache))
    try:
        with (scratch / "pixels").open("wb") as file:
            for indices, pixels, first_sizes in decode(source, shape[1], background, skip_damaged):
                content = pixels.tobytes()
                file.write(content)
                digest.update(content)
                kept += indices
                sizes.update(f"{width}x{height}" for width, height in first_sizes)
        there = set(kept)
        damaged = [name for i, name in enumerate(source.names) if i not in there]
        require(bool(kept), "dataset", f"every image of {source.path} is damaged")
        skipped = Counter(reason for _, reason in source.skipped)
        if damaged:
            skipped["damaged"] = len(damaged)
        about = About(digest.hexdigest(), len(kept), dict(sizes.most_common(20)), dict(skipped), damaged)
        place = cache / about.content
        whole = (place / "pixels").is_file() and _hash(place / "pixels") == about.content
        with atomic_folder(place, keep=whole) as new:
            (scratch / "pixels").replace(new / "pixels")
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    index = cache / f"{key}.json"
    if index.is_dir():
        set_aside(index)
    write_json(index, {**asdict(about), "seen": _seen(place / "pixels")})
    found = _read(cache, key, shape)
    if found is None:
        raise OSError("it was emptied at the same time")
    return found
