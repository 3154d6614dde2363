"""A sweep whose driver is killed ten times, whenever it happens, has the table of one that was left alone."""

from __future__ import annotations

import random
import sqlite3
import time
from functools import partial
from pathlib import Path

import pytest
from services import end, wait_until
from sweeps_for_tests import SMALL, begin, call, table

pytestmark = [pytest.mark.cluster, pytest.mark.slow, pytest.mark.faults]

OPTIONS = [*SMALL.split(), "--trials", "9", "--repeats", "2", "--concurrency", "1", "--ray-address", "local"]
OPTIONS += ["--no-finish-anchors", "--seed", "5"]
KILLS = 10


def options(folder: Path) -> list[str]:
    """The same sweep in a folder of its own."""
    where = ["--storage", str(folder), "--mlflow-uri", f"sqlite:///{folder}/mlflow.db", "--name", "kills"]
    return [*OPTIONS, *where]


def ended(folder: Path) -> int:
    """Trials that are over."""
    file = folder / "sweeps" / "kills" / "study.db"
    if not file.is_file():
        return 0
    with sqlite3.connect(file) as database:
        try:
            (count,) = database.execute(
                "select count(*) from trials where state not in ('RUNNING', 'WAITING')"
            ).fetchone()
        except sqlite3.OperationalError:
            return 0
    return int(count)


def lines(folder: Path) -> int:
    """How far a sweep is: the lines in its trials' records."""
    return sum(len(file.read_text().splitlines()) for file in records(folder))


def records(folder: Path) -> list[Path]:
    return list((folder / "sweeps" / "kills" / "trials").glob("*/record.jsonl"))


def reached(folder: Path, mark: int, since: float) -> bool:
    """Whether the sweep is at work again, and so far."""
    return any(file.stat().st_mtime > since for file in records(folder)) and lines(folder) >= mark


def test_killed_ten_times(tmp_path: Path) -> None:
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    whole = call(*options(alone), cache=alone / "cache")
    assert whole.status == 0, whole

    marks = sorted(random.Random(7).sample(range(1, lines(alone) * 9 // 10), KILLS))
    seen = []
    for kill, mark in enumerate(marks):
        resume = ["--resume"] if kill else []
        begun, log = time.time(), tmp_path / f"log-{kill}"
        driver = begin(log, killed / "cache", *options(killed), *resume)
        try:
            wait_until(partial(reached, killed, mark, begun), f"kill {kill}: line {mark}", 120, log, driver)
        finally:
            end(driver, at_once=True)
        seen.append(ended(killed))
    last = call(*options(killed), "--resume", cache=killed / "cache")
    assert last.status == 0, last
    print("trials over at each kill:", seen)
    kills, undisturbed = (table(folder / "sweeps" / "kills") for folder in (killed, alone))
    assert kills == undisturbed
    assert len(set(seen)) > 3  # the kills came all along the sweep
