"""A sweep on a disk that is too small for it: it waits for room or ends in a line, and its table is the same one."""

from __future__ import annotations

import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from services import end, wait_until
from sweeps_for_tests import SMALL, begin, call, table

pytestmark = [pytest.mark.cluster, pytest.mark.faults, pytest.mark.slow]

OPTIONS = [*SMALL.split(), "--trials", "3", "--concurrency", "1", "--ray-address", "local", "--name", "full"]


@pytest.fixture(scope="module")
def alone(cache: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of the sweep on a disk with room."""
    folder: Path = tmp_path_factory.mktemp("alone")
    assert call(*OPTIONS, "--storage", folder, "--mlflow-uri", f"sqlite:///{folder}/mlflow.db", cache=cache).status == 0
    return folder / "sweeps" / "full"


@pytest.fixture
def small(alone: Path, tmp_path: Path) -> Iterator[Path]:
    """A disk for half of that."""
    whole = sum(file.stat().st_size for file in alone.rglob("*") if file.is_file())
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={whole // 2048}k", "tmpfs", place]
    if subprocess.run(mount, capture_output=True).returncode:
        pytest.skip("only root may mount a disk")
    yield place
    subprocess.run(["umount", "-l", place], check=True)


def grow(place: Path) -> None:
    subprocess.run(["mount", "-o", "remount,size=100m", place], check=True)


def rows(sweep: Path) -> list[dict[str, Any]]:
    """The table without what a trial found in the cache, which the undisturbed one has filled."""
    return [{k: v for k, v in row.items() if k != "trained"} for row in table(sweep)]


def where(place: Path) -> list[str]:
    return [*OPTIONS, "--storage", str(place), "--mlflow-uri", f"sqlite:///{place.parent}/mlflow.db"]


def test_it_waits_for_room(alone: Path, small: Path, cache: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    driver = begin(log, cache, *where(small))
    try:
        wait_until(lambda: "no space is left for" in log.read_text(), "it does not say so", 240, log, driver)
        grow(small)
        assert driver.wait(240) == 0, log.read_text()
    finally:
        end(driver, at_once=True)
    assert rows(small / "sweeps" / "full") == rows(alone)
    assert "Traceback" not in log.read_text()


def test_it_ends_in_a_line_and_is_resumed(alone: Path, small: Path, cache: Path, tmp_path: Path) -> None:
    log = tmp_path / "log"
    driver = begin(log, cache, *where(small), "--on-disk-full", "fail", "--retries", "1")
    try:
        assert driver.wait(240) in (1, 75), log.read_text()
    finally:
        end(driver, at_once=True)
    assert "--resume" in log.read_text().splitlines()[-1], log.read_text()
    assert "Traceback" not in log.read_text()
    grow(small)
    ended = call(*where(small), "--resume", cache=cache)
    assert ended.status == 0, ended
    assert rows(small / "sweeps" / "full") == rows(alone)
