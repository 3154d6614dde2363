"""A Ray cluster of two nodes, a checkout and a cache, for all tests that need them: fixtures of the whole session."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from services import BIN, ROOT, RayCluster


@pytest.fixture(scope="session")
def cache(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The teacher, the classifier and the reference rows of all sweeps here."""
    folder: Path = tmp_path_factory.mktemp("cache")
    return folder


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A clone, as far as a user of it sees: the files that git would track, in a folder of their own."""
    folder: Path = tmp_path_factory.mktemp("checkout")
    command = ["git", "-C", str(ROOT), "ls-files", "-co", "--exclude-standard", "--", "tract_ray", "sweeps", "*.toml"]
    for name in subprocess.run(command, capture_output=True, text=True, check=True).stdout.splitlines():
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory, cache: Path, checkout: Path) -> Iterator[RayCluster]:
    """Two nodes of two CPUs. The head was started in the checkout, with its environment activated."""
    import os

    # Sockets lie in Ray's folder, and their paths may have 107 bytes: pytest's own folders are too deep.
    folder = Path(tempfile.mkdtemp(prefix="ray-")) / "r"
    folder.mkdir()
    env = {"PATH": f"{BIN}:{os.environ['PATH']}", "TRACT_RAY_CACHE": str(cache), "OMP_NUM_THREADS": "1"}
    cluster = RayCluster(folder, checkout, env)
    try:
        yield cluster.start()
    finally:
        cluster.stop()
        shutil.rmtree(folder.parent, ignore_errors=True)
