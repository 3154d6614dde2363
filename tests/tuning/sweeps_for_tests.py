"""The real sweep script, small: a teacher of 20 steps, trials of 8."""

from __future__ import annotations

import contextlib
import io
import json
import os
import runpy
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest import mock

import ray
from services import ROOT, start

SCRIPT = ROOT / "sweeps" / "mu_search.py"
SMALL = "--teacher-samples 1280 --samples 512 --time-schedule 8,4,1 --evaluation-samples 100 --features classifier"


@dataclass(frozen=True)
class Called:
    """How a command ended."""

    status: int
    out: str
    err: str


def call(*arguments: str | Path, script: Path = SCRIPT, cache: Path | None = None) -> Called:
    """`python sweeps/mu_search.py …` in this process: the same code, without the seconds that imports take."""
    out, err, status = io.StringIO(), io.StringIO(), 0
    environment = {"TRACT_RAY_CACHE": str(cache)} if cache else {}
    with (
        mock.patch.object(sys, "argv", [str(script), *map(str, arguments)]),
        mock.patch.dict(os.environ, environment),
        contextlib.redirect_stdout(out),
        contextlib.redirect_stderr(err),
    ):
        try:
            runpy.run_path(str(script), run_name="__main__")
        except SystemExit as end:
            status = end.code if isinstance(end.code, int) else int(end.code is not None)
        finally:
            ray.shutdown()
    return Called(status, out.getvalue(), err.getvalue())


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
