"""Runs whose phases begin with the optimiser, the averages and the student of the phase before, as the authors' do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import Killed, content_of, tiny_run, without_stages

from tract_ray.training import Paths, RunConfig, run_distillation
from tract_ray.training.stages import stages_of

CHOICES: dict[str, dict[str, Any]] = {
    "student_init": {"student_init": "continue"},
    "keep_optimizer": {"keep_optimizer": True},
    "keep_averages": {"keep_averages": True},
    "all": {
        "student_init": "continue",
        "keep_optimizer": True,
        "keep_averages": True,
        "boundary": "after",
        "loss_reduction": "sum",
        "clip_x0": "all",
        "warmup": 40,
        "weight_decay": 0.01,
    },
}


def run_with(choice: str, **changes: Any) -> RunConfig:
    return tiny_run().replace_method(mu_i=0.75, **{**CHOICES[choice], **changes})


@pytest.fixture(scope="module", params=CHOICES)
def choice(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture(scope="module")
def whole(choice: str, trained: Paths, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The run in one go, which finds no stage."""
    folder = tmp_path_factory.mktemp("whole")
    run_distillation(run_with(choice), trained, folder, reuse=False)
    return content_of(folder)


def test_killed_and_resumed(
    choice: str,
    whole: dict[str, Any],
    paths: Paths,
    tmp_path: Path,
    kill_at: Callable[[int], None],
    every_step_is_kept: None,
) -> None:
    """Before the boundary at 30 (31 where it comes after it), at it, and beyond, at each with a checkpoint."""
    for step in (29, 30, 31, 33):
        kill_at(step)
        with pytest.raises(Killed):
            run_distillation(run_with(choice), paths, tmp_path, reuse=False)
        torch.manual_seed(step)
    run_distillation(run_with(choice), paths, tmp_path, reuse=False)
    assert content_of(tmp_path) == whole


def test_an_adopted_stage_is_a_trained_one(choice: str, whole: dict[str, Any], paths: Paths, tmp_path: Path) -> None:
    """The first phase was trained by a run with another last one; its record lines say so too."""
    run_distillation(run_with(choice, mu_i_bank=(0.25,)), paths, tmp_path / "other")
    result = run_distillation(run_with(choice), paths, tmp_path / "run")
    first = stages_of(run_with(choice))[0].samples
    assert result.trained == 960 - first
    found = content_of(tmp_path / "run")
    assert found["weights"] == whole["weights"]
    assert found["record"] == whole["record"]


def test_a_last_phase_can_be_gone_on_from(choice: str, trained: Paths, tmp_path: Path) -> None:
    """A run of the first phase alone stores less than one that continues: they do not take it from each other."""
    paths = without_stages(trained, tmp_path / "paths")
    alone = run_with(choice, mu_i_bank=(), boundary="exact") if choice == "all" else run_with(choice, mu_i_bank=())
    short = replace(alone, method=replace(alone.method, time_schedule=(8, 2), samples=480))
    run_distillation(short, paths, tmp_path / "short")
    run_distillation(alone, paths, tmp_path / "run")
    run_distillation(alone, paths, tmp_path / "cold", reuse=False)
    assert content_of(tmp_path / "run")["weights"] == content_of(tmp_path / "cold")["weights"]


def test_each_choice_matters(choice: str, whole: dict[str, Any], paths: Paths, tmp_path: Path) -> None:
    run_distillation(tiny_run().replace_method(mu_i=0.75), paths, tmp_path)
    assert content_of(tmp_path)["weights"] != whole["weights"]
