"""Where a result came from: commit, package versions, device."""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import platform
import subprocess
from pathlib import Path

import torch

PACKAGES = ("tract-ray", "torch", "torchvision", "numpy", "ray", "optuna", "mlflow", "clean-fid")


def git_commit(folder: Path | None = None) -> str:
    """The commit of the checkout that holds this package (`-dirty` with local changes), or `unknown`.

    A Ray job runs in an upload without `.git`; there `TRACT_RAY_COMMIT` may name it.
    """
    if named := os.environ.get("TRACT_RAY_COMMIT"):
        return named
    where = folder or Path(__file__).parent
    try:
        head = ["git", "-C", str(where), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        done = subprocess.run(head, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return "unknown"
    return done.stdout.strip() or "unknown"


def source_hash() -> str:
    """12 hexadecimal digits of this package's source: equal code is recognised where there is no git."""
    root = Path(__file__).parents[1]
    digest = hashlib.sha256()
    for file in sorted(root.rglob("*.py")):
        digest.update(str(file.relative_to(root)).encode() + b"\0" + file.read_bytes())
    return digest.hexdigest()[:12]


def provenance() -> dict[str, str]:
    """Parameters of every run's record: `git_commit`, `source_hash`, `device`, `python` and `version.<package>`."""
    found = {"git_commit": git_commit(), "source_hash": source_hash()}
    found |= {"python": platform.python_version(), "device": device_name()}
    for package in PACKAGES:
        try:
            found[f"version.{package}"] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[f"version.{package}"] = "not installed"
    return found


def device_name() -> str:
    """The GPU's name, or the processor's architecture."""
    return torch.cuda.get_device_name(0) if torch.cuda.is_available() else f"cpu ({platform.machine()})"
