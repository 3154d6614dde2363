"""The real sweep script, small: a teacher of 20 steps, trials of 8."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import ray
from commands import Called, call_script
from services import ROOT, start

SCRIPT = ROOT / "sweeps" / "mu_search.py"
SMALL = (
    "--teacher-samples 1280 --samples 512 --time-schedule 8,4,1 "
    "--evaluation-samples 100 --features classifier --finish-anchors"
)


def call(*arguments: str | Path, script: Path = SCRIPT, cache: Path | None = None) -> Called:
    """`python sweeps/mu_search.py …` in this process."""
    try:
        return call_script(script, *arguments, env={"TRACT_RAY_CACHE": str(cache)} if cache else {})
    finally:
        ray.shutdown()


def begin(log: Path, cache: Path, *arguments: str | Path) -> subprocess.Popen[bytes]:
    """`python sweeps/mu_search.py …` in the background."""
    return start([sys.executable, SCRIPT, *arguments], log, env={"TRACT_RAY_CACHE": str(cache)})


def lines_of(folder: Path) -> list[dict[str, Any]]:
    """A run's record."""
    return [json.loads(line) for line in (folder / "record.jsonl").read_text().splitlines()]


def points_of(folder: Path, key: str) -> list[tuple[int, float]]:
    """A metric in a run's record, as MLflow should have it."""
    lines = lines_of(folder)
    return sorted((line["samples"], line["metrics"][key]) for line in lines if key in line.get("metrics", {}))


def table(sweep: Path) -> list[dict[str, Any]]:
    """What the sweep in a folder found, without what a clock says."""
    summary = json.loads((sweep / "summary.json").read_text())
    rows = [{k: v for k, v in row.items() if k not in ("seconds", "costs")} for row in summary["trials"]]
    for row, trial in zip(rows, summary["trials"], strict=True):
        row["trained"] = [cost["trained"] for cost in trial["costs"]]
    return rows
