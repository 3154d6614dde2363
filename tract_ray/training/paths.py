"""Where a run's files live, and how it is carried out. Not part of its configuration: no result changes."""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from tract_ray.config import choose, require
from tract_ray.data.on_disk import FOLDER_PREFIX, parse_folder
from tract_ray.disk import POLICIES
from tract_ray.files import require_local

UPLOADED = "/runtime_resources/working_dir_files/"
"""Part of the path of Ray's copies of an uploaded folder."""


@dataclass(frozen=True)
class Paths:
    """`storage` holds sweeps and runs, `cache` what many runs share (teachers, classifiers), `data_root` downloads.

    A run in progress is written about every `checkpoint_seconds`, less often where that takes over 2% of its time; 0
    writes it only where it is scored. On a full disk a run waits for room, or fails: `on_disk_full`. A worker computes
    `micro_batch` images at a time, 0: all that it has of a batch; gradients are accumulated, the batch stays.
    """

    storage: Path
    cache: Path
    data_root: str | None = None
    checkpoint_seconds: float = 60.0
    on_disk_full: str = "wait"
    micro_batch: int = 0

    def __post_init__(self) -> None:
        seconds = self.checkpoint_seconds
        require(0 <= seconds < math.inf, "checkpoint_seconds", f"must be 0 or more seconds, got {seconds}")
        choose("on_disk_full", self.on_disk_full, POLICIES)
        require(self.micro_batch >= 0, "micro_batch", f"must not be negative, got {self.micro_batch}")

    @classmethod
    def at(
        cls,
        storage: str | Path | None = None,
        data_root: str | None = None,
        checkpoint_seconds: float = 60.0,
        on_disk_full: str = "wait",
        micro_batch: int = 0,
    ) -> Paths:
        """Paths under `storage` (default `runs` in the project's folder); `TRACT_RAY_CACHE` moves the cache alone."""
        if storage:
            require_local(Path(storage), "storage")
        root = Path(storage).expanduser().absolute() if storage else project_folder() / "runs"
        cache = os.environ.get("TRACT_RAY_CACHE")
        kept = Path(cache).expanduser().absolute() if cache else root / "cache"
        if data_root:
            require_local(Path(data_root), "data-root")
        place = absolute(data_root) if data_root else None
        return cls(root, kept, place, checkpoint_seconds, on_disk_full, micro_batch)

    def plain(self) -> dict[str, Any]:
        """For another process."""
        return {**asdict(self), "storage": str(self.storage), "cache": str(self.cache)}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> Paths:
        """The inverse of `plain`."""
        return cls(**{**plain, "storage": Path(plain["storage"]), "cache": Path(plain["cache"])})


def project_folder() -> Path:
    """The folder that relative defaults mean: `TRACT_RAY_HOME`, or the current one.

    A Ray job that was submitted with `--working-dir` runs in a copy that Ray deletes, so there it is `~/tract-ray`.
    """
    named = os.environ.get("TRACT_RAY_HOME")
    if named:
        return Path(named).expanduser().absolute()
    here = Path.cwd()
    return Path("~/tract-ray").expanduser() if UPLOADED in str(here) else here


def absolute(path: str | Path) -> str:
    """The path as every process finds it: workers of Ray run in a folder of their own."""
    return str(Path(path).expanduser().absolute())


def absolute_dataset(name: str) -> str:
    """A data set's name, its folder made absolute: `folder:photos@32` -> `folder:/home/me/photos@32`."""
    if not name.startswith(FOLDER_PREFIX):
        return name
    path, options = parse_folder(name)[0], name.rpartition("@")[2]
    return f"{FOLDER_PREFIX}{absolute(path)}@{options}"
