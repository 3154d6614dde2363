"""A sweep that is asked to end (SIGTERM, as `ray job stop` and preemption send it) keeps what its trials have done."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
from services import end, wait_until
from sweeps_for_tests import SMALL, begin, call, lines_of

from tract_ray.training.checkpoint import read_state

pytestmark = [pytest.mark.cluster, pytest.mark.faults]


def test_sigterm_leaves_checkpoints_and_one_line(cache: Path, tmp_path: Path) -> None:
    """Without any that the clock would have written."""
    where = ["--storage", str(tmp_path), "--mlflow-uri", f"sqlite:///{tmp_path}/mlflow.db", "--ray-address", "local"]
    options = [*SMALL.split(), *where, "--name", "stopped", "--samples", "40960", "--checkpoint-seconds", "0"]
    options += ["--trials", "1", "--time-schedule", "8,1"]
    log, trial = tmp_path / "log", tmp_path / "sweeps" / "stopped" / "trials" / "trial-0000"
    driver = begin(log, cache, *options)
    try:
        record = trial / "record.jsonl"
        wait_until(lambda: record.is_file() and record.stat().st_size > 0, "no trial", 240, log, driver)
        driver.send_signal(signal.SIGTERM)
        assert driver.wait(60) == 143, log.read_text()
    finally:
        end(driver, at_once=True)
    said = log.read_text()
    assert said.splitlines()[-1] == "terminated; the same command with --resume continues", said
    assert "SIGABRT" not in said
    assert "Traceback" not in said
    state, _ = read_state(trial / "checkpoint.safetensors", "checkpoint")
    assert 0 < state["step"] < 640
    kept = lines_of(trial)[: state["record_lines"]]
    ended = call(*options, "--resume", cache=cache)
    assert ended.status == 0, ended
    assert lines_of(trial)[: len(kept)] == kept
