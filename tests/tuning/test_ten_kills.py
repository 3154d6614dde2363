"""A sweep whose driver is killed ten times, whenever it happens, has the table of one that was left alone."""

from __future__ import annotations

import json
import random
import sqlite3
import time
from pathlib import Path
from typing import Any

import pytest
from sweeps_for_tests import SMALL, begin, call

pytestmark = [pytest.mark.cluster, pytest.mark.slow]

OPTIONS = [*SMALL.split(), "--trials", "9", "--repeats", "2", "--concurrency", "1", "--ray-address", "local"]
OPTIONS += ["--no-finish-anchors", "--seed", "5"]
KILLS = 10


def options(folder: Path) -> list[str]:
    """The same sweep in a folder of its own."""
    where = ["--storage", str(folder), "--mlflow-uri", f"sqlite:///{folder}/mlflow.db", "--name", "kills"]
    return [*OPTIONS, *where]


def table(folder: Path) -> list[dict[str, Any]]:
    """What the sweep found, without what a clock says."""
    summary = json.loads((folder / "sweeps" / "kills" / "summary.json").read_text())
    times = ("seconds", "costs")
    rows = [{k: v for k, v in row.items() if k not in times} for row in summary["trials"]]
    for row, trial in zip(rows, summary["trials"], strict=True):
        row["trained"] = [cost["trained"] for cost in trial["costs"]]
    return rows


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


def test_killed_ten_times(tmp_path: Path) -> None:
    alone, killed = tmp_path / "alone", tmp_path / "killed"
    whole = call(*options(alone), cache=alone / "cache")
    assert whole.status == 0, whole

    moments, kills, seen = random.Random(7), 0, []
    while kills < KILLS:
        resume = ["--resume"] if (killed / "sweeps" / "kills").exists() else []
        driver = begin(tmp_path / f"log-{kills}", killed / "cache", *options(killed), *resume)
        try:
            # Late enough to have begun; anywhere in the seconds that a trial takes from then on.
            started, wait = time.monotonic(), 9 + moments.uniform(0, 6)
            while driver.poll() is None and time.monotonic() - started < wait:
                time.sleep(0.05)
        finally:
            driver.kill()
            driver.wait()
        kills += 1
        seen.append(ended(killed))
    last = call(*options(killed), "--resume", cache=killed / "cache")
    assert last.status == 0, last
    print("trials over at each kill:", seen)
    assert table(killed) == table(alone)
    assert seen[0] < 9  # it was killed in its middle at least once
