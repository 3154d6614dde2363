"""A run that was interrupted, however often and wherever, is the run that was not."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import Killed, content_of, paths_at, tiny_run
from safetensors.torch import load_file

from tract_ray.config import InputError, to_dict
from tract_ray.training import Model, NetworkConfig, Paths, RunConfig, run_distillation, train_teacher
from tract_ray.training.teacher import teacher_folder


@pytest.fixture(scope="module")
def dropout_run() -> RunConfig:
    """A student of its own architecture with dropout, so that the network's own random numbers matter, too."""
    small = {"width": 16, "blocks": 1, "embedding": 16, "dropout": 0.2}
    run = tiny_run(student=NetworkConfig(name="mlp_8x8", options=small))
    return replace(run, method=replace(run.method, lr_decay="linear"))


@pytest.fixture(scope="module")
def uninterrupted(dropout_run: RunConfig, trained: Paths, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("whole")
    run_distillation(dropout_run, trained, folder)
    return content_of(folder)


# Marks are at 15, 30, 45 and 60 of 60 steps; the second phase begins at 30. Lines of the record come every 2 steps.
KILLS = {
    "right after the first mark": (False, [15]),
    "inside a phase": (False, [22]),
    "at the boundary": (False, [30]),
    "three times": (False, [16, 31, 59]),
    "between two lines of the record": (True, [7]),
    "at the boundary, with a checkpoint of every step": (True, [30]),
    "three times, with a checkpoint of every step": (True, [16, 31, 59]),
}


@pytest.mark.parametrize(("every_step", "kills"), KILLS.values(), ids=KILLS)
def test_killed_and_resumed(
    every_step: bool,
    kills: list[int],
    dropout_run: RunConfig,
    paths: Paths,
    uninterrupted: dict[str, Any],
    kill_at: Callable[[int], None],
    tmp_path: Path,
    request: pytest.FixtureRequest,
) -> None:
    if every_step:
        request.getfixturevalue("every_step_is_kept")
    for step in kills:
        kill_at(step)
        with pytest.raises(Killed):
            run_distillation(dropout_run, paths, tmp_path)
        torch.manual_seed(step)  # the state of another process
    run_distillation(dropout_run, paths, tmp_path)
    assert content_of(tmp_path) == uninterrupted


def test_killed_after_the_last_step(
    dropout_run: RunConfig,
    paths: Paths,
    uninterrupted: dict[str, Any],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Between the last checkpoint and the result."""

    def save(model: Model, folder: Path) -> Path:
        raise Killed

    with monkeypatch.context() as patch:
        patch.setattr(Model, "save", save)
        with pytest.raises(Killed):
            run_distillation(dropout_run, paths, tmp_path)
    run_distillation(dropout_run, paths, tmp_path)
    assert content_of(tmp_path) == uninterrupted


def test_a_process_that_dies_at_once(
    dropout_run: RunConfig, paths: Paths, uninterrupted: dict[str, Any], tmp_path: Path
) -> None:
    """No handler, no flush: `os._exit` inside the first phase."""
    code = f"""
import json, os, torch
from pathlib import Path
from tract_ray.config import from_dict
from tract_ray.evaluation import classifier
from tract_ray.training import Paths, RunConfig, loop, run_distillation
torch.set_num_threads(1)
classifier.RECIPE["steps"] = 20
original = loop.make_batch
loop.make_batch = lambda m, d, s, step, w: os._exit(9) if step == 20 else original(m, d, s, step, w)
run = from_dict(RunConfig, json.loads(Path({str(tmp_path / "run.json")!r}).read_text()))
run_distillation(run, Paths(Path({str(paths.storage)!r}), Path({str(paths.cache)!r})), Path({str(tmp_path / "run")!r}))
"""
    (tmp_path / "run.json").write_text(json.dumps(to_dict(dropout_run)))
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert (tmp_path / "run" / "checkpoint.safetensors").is_file()
    run_distillation(dropout_run, paths, tmp_path / "run")
    assert content_of(tmp_path / "run") == uninterrupted


def test_a_folder_belongs_to_one_configuration(paths: Paths, tmp_path: Path, kill_at: Callable[[int], None]) -> None:
    """While the run is unfinished, and when it has finished."""
    other = tiny_run(seed=6)
    kill_at(20)
    with pytest.raises(Killed):
        run_distillation(tiny_run(), paths, tmp_path)
    with pytest.raises(InputError) as caught:
        run_distillation(other, paths, tmp_path)
    assert str(caught.value).startswith(f"checkpoint: {tmp_path / 'checkpoint.safetensors'} belongs to another")
    assert "\n" not in str(caught.value)
    run_distillation(tiny_run(), paths, tmp_path)
    with pytest.raises(InputError) as caught:
        run_distillation(other, paths, tmp_path)
    assert str(caught.value).startswith(f"output: {tmp_path} holds the result of another configuration")


@pytest.mark.usefixtures("every_step_is_kept")
def test_an_interrupted_teacher_continues(paths: Paths, tmp_path: Path, kill_at: Callable[[int], None]) -> None:
    """From its checkpoint, to the weights of an uninterrupted one."""
    config, here = tiny_run().teacher, paths_at(tmp_path)
    kill_at(13)
    with pytest.raises(Killed):
        train_teacher(config, here)
    steps: list[int] = []
    train_teacher(config, here, on_step=lambda step, loss: steps.append(step))
    assert steps[0] == 14
    whole, resumed = (load_file(teacher_folder(config, p) / "model.safetensors") for p in (paths, here))
    assert all(torch.equal(whole[name], resumed[name]) for name in whole)
