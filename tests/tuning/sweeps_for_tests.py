"""The real sweep script, small: a teacher of 20 steps, trials of 8."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from services import ROOT, start

SMALL = "--teacher-samples 1280 --samples 512 --time-schedule 8,4,1 --evaluation-samples 100 --features classifier"


def command(storage: Path, *options: str, script: str | Path = ROOT / "sweeps" / "mu_search.py") -> list[str]:
    """`python sweeps/mu_search.py` with `options` after the small settings."""
    return [sys.executable, str(script), *SMALL.split(), "--storage", str(storage), *options]


def run(
    arguments: list[str], cache: Path, env: Mapping[str, str] | None = None, timeout: float = 240
) -> subprocess.CompletedProcess[str]:
    """To its end."""
    environment = {**os.environ, "TRACT_RAY_CACHE": str(cache), **(env or {})}
    return subprocess.run(
        arguments, env=environment, capture_output=True, text=True, timeout=timeout, stdin=subprocess.DEVNULL
    )


def begin(arguments: list[str], cache: Path, log: Path) -> subprocess.Popen[bytes]:
    """In the background."""
    return start(arguments, log, env={"TRACT_RAY_CACHE": str(cache)})


def lines_of(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "record.jsonl").read_text().splitlines()]
