"""A sweep that is asked to end (SIGTERM, as `ray job stop` and preemption send it) keeps what its trials have done."""

from __future__ import annotations

import signal
import subprocess
from pathlib import Path

import pytest
from services import BIN, RayCluster, end, wait_until
from sweeps_for_tests import SCRIPT, SMALL, begin, call, lines_of

from tract_ray.training.checkpoint import read_state

pytestmark = [pytest.mark.cluster, pytest.mark.faults]
LINE = "terminated; the same command with --resume continues"


def options(folder: Path) -> list[str]:
    """A sweep of one trial, without checkpoints that the clock would write."""
    where = ["--storage", str(folder), "--mlflow-uri", f"sqlite:///{folder}/mlflow.db", "--name", "stopped"]
    length = ["--samples", "40960", "--trials", "1", "--time-schedule", "8,1", "--checkpoint-seconds", "0"]
    return [*SMALL.split(), *where, *length]


def trial_of(folder: Path) -> Path:
    return folder / "sweeps" / "stopped" / "trials" / "trial-0000"


def trains(folder: Path) -> bool:
    record = trial_of(folder) / "record.jsonl"
    return record.is_file() and record.stat().st_size > 0


def test_sigterm_leaves_checkpoints_and_one_line(cache: Path, tmp_path: Path) -> None:
    log, trial, local = tmp_path / "log", trial_of(tmp_path), ["--ray-address", "local"]
    driver = begin(log, cache, *options(tmp_path), *local)
    try:
        wait_until(lambda: trains(tmp_path), "no trial", 240, log, driver)
        driver.send_signal(signal.SIGTERM)
        assert driver.wait(60) == 143, log.read_text()
    finally:
        end(driver, at_once=True)
    said = log.read_text()
    assert said.splitlines()[-1] == LINE, said
    assert "SIGABRT" not in said
    assert "Traceback" not in said
    state, _ = read_state(trial / "checkpoint.safetensors", "checkpoint")
    assert 0 < state["step"] < 640
    kept = lines_of(trial)[: state["record_lines"]]
    ended = call(*options(tmp_path), *local, "--resume", cache=cache)
    assert ended.status == 0, ended
    assert lines_of(trial)[: len(kept)] == kept


@pytest.mark.slow
def test_ray_job_stop(cluster: RayCluster, tmp_path: Path) -> None:
    """It gives a driver three seconds."""

    def job(*arguments: object) -> str:
        command = [str(part) for part in (BIN / "ray", "job", *arguments)]
        called = subprocess.run(command, capture_output=True, text=True, timeout=200, stdin=subprocess.DEVNULL)
        return called.stdout + called.stderr

    at, name = ["--address", cluster.jobs], "sweep-to-stop"
    job("submit", *at, "--no-wait", "--submission-id", name, "--", "python", SCRIPT, *options(tmp_path))
    wait_until(lambda: trains(tmp_path), "no trial", 240)
    job("stop", *at, name)
    assert "STOPPED" in job("status", *at, name).upper()
    said = job("logs", *at, name)
    assert LINE in said
    assert "SIGABRT" not in said
    state, _ = read_state(trial_of(tmp_path) / "checkpoint.safetensors", "checkpoint")
    assert 0 < state["step"] < 640
