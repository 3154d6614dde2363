"""Where a run's files live. Not part of its configuration: moving the files changes no result."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from tract_ray.data.on_disk import FOLDER_PREFIX, parse_folder

UPLOADED = "/runtime_resources/working_dir_files/"
"""Part of the path of Ray's copies of an uploaded folder."""


@dataclass(frozen=True)
class Paths:
    """`storage` holds sweeps and runs, `cache` what many runs share (teachers, classifiers), `data_root` downloads."""

    storage: Path
    cache: Path
    data_root: str | None = None

    @classmethod
    def at(cls, storage: str | Path | None = None, data_root: str | None = None) -> Paths:
        """Paths under `storage` (default `runs` in the project's folder); `TRACT_RAY_CACHE` moves the cache alone."""
        root = Path(storage).expanduser().absolute() if storage else project_folder() / "runs"
        cache = os.environ.get("TRACT_RAY_CACHE")
        return cls(root, Path(cache).expanduser().absolute() if cache else root / "cache", data_root)


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
