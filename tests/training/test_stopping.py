"""SIGTERM ends a training with a checkpoint, one line and status 143; the same command goes on from there."""

from __future__ import annotations

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from runs import content_of
from services import end, start, wait_until

from tract_ray.training.checkpoint import read_state
from tract_ray.training.checkpoint_writer import ASKED, save_now

TINY = "--network mlp_8x8_small --teacher-samples 1280 --time-schedule 8,4,1 --batch 64 --evaluation-samples 100"
ARGUMENTS = [*TINY.split(), "--samples", "51200", "--device", "cpu", "--threads", "1", "--features", "classifier"]


def command(storage: Path, out: Path) -> list[str | Path]:
    where = ["--storage", storage, "--out", out, "--checkpoint-seconds", "0"]
    return [sys.executable, "-m", "tract_ray.cli.command", "distill", *ARGUMENTS, *where]


def begun(process: subprocess.Popen[bytes], folder: Path, log: Path) -> None:
    """Wait until a run trains."""
    record = folder / "record.jsonl"
    wait_until(lambda: record.is_file() and record.stat().st_size > 0, "no record", 240, log, process)


def test_sigterm_ends_with_a_checkpoint_and_the_run_goes_on(tmp_path: Path) -> None:
    log, out = tmp_path / "log", tmp_path / "run"
    process = start(command(tmp_path, out), log)
    try:
        begun(process, out, log)
        process.send_signal(signal.SIGTERM)
        process.send_signal(signal.SIGTERM)  # who is in a hurry changes nothing
        assert process.wait(120) == 143, log.read_text()
    finally:
        end(process, at_once=True)
    assert log.read_text().splitlines()[-1] == "terminated; the same command continues"
    assert log.read_text().count("terminated") == 1
    state, _ = read_state(out / "checkpoint.safetensors", "checkpoint")
    assert 0 < state["step"] < 800
    for folder in (out, tmp_path / "whole"):
        subprocess.run(command(tmp_path, folder), check=True, capture_output=True)
        for stage in (tmp_path / "cache" / "stages").glob("*/stage.json"):
            stage.unlink()  # the other one trains them itself
    assert content_of(out) == content_of(tmp_path / "whole")


def test_a_checkpoint_is_written_when_it_is_asked_for(tmp_path: Path) -> None:
    log, out = tmp_path / "log", tmp_path / "run"
    process = start(command(tmp_path, out), log)
    try:
        begun(process, out, log)
        save_now([out, tmp_path / "nowhere"], 60)
        assert (out / "checkpoint.safetensors").is_file()
        assert not (out / ASKED).exists()
    finally:
        end(process, at_once=True)


@pytest.mark.parametrize("seconds", [0.0, 0.2])
def test_nobody_waits_for_what_does_not_answer(tmp_path: Path, seconds: float) -> None:
    begun = time.monotonic()
    save_now([tmp_path], seconds)
    assert time.monotonic() - begun >= seconds
    assert (tmp_path / ASKED).exists()
