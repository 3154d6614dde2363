"""Shards: the parquet files of a Hugging Face `datasets` folder, and the tar files of WebDataset."""

from __future__ import annotations

import bisect
import importlib
import json
import tarfile
from collections.abc import Callable
from functools import lru_cache
from io import BytesIO
from pathlib import Path, PurePosixPath
from threading import Lock
from typing import Any

from tract_ray.config import InputError, require
from tract_ray.data.source import Source, is_picture, require_pictures, suffixes


def find_shards(path: Path) -> tuple[str, list[Path]]:
    """Their ending and the shards at `path`, in order: a file, or those of a folder (of its training half, where they
    say so, and of its `data` folder, as the hub has it); `("", [])` where there are none.
    """
    for ending in (".parquet", ".tar"):
        found = [path] if path.is_file() and path.suffix == ending else []
        if path.is_dir():
            found = sorted(p for place in (path, path / "data") for p in place.glob(f"*{ending}") if p.is_file())
        if found:
            return ending, [p for p in found if p.name.startswith("train")] or found
    return "", []


def scan_parquet(path: Path, files: list[Path], labelled: bool = True) -> Source:
    """The rows of parquet files with a column of encoded images, and perhaps one of class numbers (`label`)."""
    try:
        parquet: Any = importlib.import_module("pyarrow.parquet")
    except ImportError:
        raise InputError(
            f"dataset: {path} is of parquet files, which need pyarrow: pip install 'tract-ray[data]'"
        ) from None
    opened, groups, labels = [], list[tuple[int, int, int]](), list[int]()
    number = 0
    for place, file in enumerate(files):
        try:
            table = parquet.ParquetFile(file)
        except Exception as error:  # pyarrow's own
            raise InputError(f"dataset: {file} is not a readable parquet file ({str(error).splitlines()[0]})") from None
        names = table.schema_arrow.names
        image = next((name for name in ("image", "img") if name in names), None)
        require(image is not None, "dataset", f"{file} has no column image or img, only {', '.join(names)}")
        label = next((name for name in ("label", "labels", "fine_label") if name in names), None) if labelled else None
        opened.append((table, image))
        for group in range(table.num_row_groups):
            groups.append((number, place, group))
            number += table.metadata.row_group(group).num_rows
        if label:
            labels += table.read(columns=[label])[label].to_pylist()
    require_pictures(path, ["row"] * number)
    whole = all(isinstance(value, int) and value >= 0 for value in labels) and len(labels) in (0, number)
    require(whole, "dataset", f"{path} has labels that are no class numbers from 0")
    lock = Lock()

    @lru_cache(maxsize=8)
    def rows(place: int, group: int) -> list[bytes]:
        table, image = opened[place]
        cells = table.read_row_group(group, columns=[image])[image].to_pylist()
        return [cell["bytes"] if isinstance(cell, dict) else cell for cell in cells]

    starts = [first for first, _, _ in groups]

    def read(index: int) -> BytesIO:
        first, place, group = groups[bisect.bisect_right(starts, index) - 1]
        with lock:
            return BytesIO(rows(place, group)[index - first])

    return Source(
        path=path,
        names=[f"row {i}" for i in range(number)],
        labels=labels or [0] * number,
        num_classes=max(labels, default=0) + 1,
        read=read,
        files=files,
        inside=f" of {path}",
    )


def scan_tars(path: Path, files: list[Path], labelled: bool = True) -> Source:
    """The pictures of WebDataset's shards; the class is the number in the `.cls` (or `.json`'s `label`) beside each."""
    known = suffixes()
    found, classes = list[tuple[Path, str, int, int]](), dict[tuple[Path, str], int]()
    skipped = list[tuple[str, str]]()
    for file in files:
        try:
            with tarfile.open(file) as archive:
                for member in archive:
                    key = (file, member.name.partition(".")[0])
                    if not member.isfile():
                        continue
                    if is_picture(member.name, known):
                        found.append((file, member.name, member.offset_data, member.size))
                    elif labelled and PurePosixPath(member.name).suffix in (".cls", ".json"):
                        content = archive.extractfile(member)
                        assert content is not None
                        label = _label(content.read(), member.name)
                        if label is not None:
                            classes[key] = label
                    else:
                        skipped.append((member.name, "not an image"))
        except (tarfile.TarError, OSError) as error:
            raise InputError(f"dataset: {file} is not a readable tar file ({error})") from None
    require_pictures(path, [name for _, name, _, _ in found], skipped)
    labels = [classes.get((file, name.partition(".")[0]), -1) for file, name, _, _ in found]
    if -1 in labels and classes:
        raise InputError(f"dataset: {path} has no class for {found[labels.index(-1)][1]}")

    def read(index: int) -> BytesIO:
        file, _, start, size = found[index]
        with file.open("rb") as shard:
            shard.seek(start)
            return BytesIO(shard.read(size))

    return Source(
        path=path,
        names=[f"{file.name}/{name}" for file, name, _, _ in found],
        labels=labels if classes else [0] * len(found),
        num_classes=max(classes.values(), default=0) + 1,
        read=read,
        files=files,
        skipped=skipped,
        inside=f" of {path}",
    )


def _label(content: bytes, name: str) -> int | None:
    """The class number in a `.cls` or `.json` member; None where it names none."""
    try:
        value = json.loads(content)
    except ValueError:
        return None
    value = value.get("label") if isinstance(value, dict) else value
    return value if isinstance(value, int) and not isinstance(value, bool) and value >= 0 else None


SCANS: dict[str, Callable[[Path, list[Path], bool], Source]] = {".parquet": scan_parquet, ".tar": scan_tars}
