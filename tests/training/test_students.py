"""A run whose student changes in a phase of equal steps: 8, 4, 4, 1, from wide to narrow."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import Killed, content_of, tiny_run

from tract_ray.config import InputError, from_dict, to_dict
from tract_ray.training import NetworkConfig, Paths, RunConfig, check_run, load_model, run_distillation
from tract_ray.training.stages import stages_of

NARROW = NetworkConfig(name="mlp_8x8", options={"width": 8, "blocks": 1, "embedding": 16})
PHASE = 320  # images
KEPT = {"student_init": "continue", "keep_optimizer": True, "keep_averages": True}


def run_of(students: tuple[NetworkConfig | None, ...] = (None, NARROW, None), **settings: Any) -> RunConfig:
    """Three phases of 20 steps."""
    run = tiny_run().replace_method(time_schedule=(8, 4, 4, 1), mu_i=0.75, **settings)
    return replace(run, students=students)


@pytest.fixture(scope="module", params=[{}, KEPT], ids=["fresh", "kept"])
def settings(request: pytest.FixtureRequest) -> dict[str, Any]:
    return dict(request.param)


@pytest.fixture(scope="module")
def whole(settings: dict[str, Any], trained: Paths, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder = tmp_path_factory.mktemp("whole")
    run_distillation(run_of(**settings), trained, folder, reuse=False)
    return {**content_of(folder), "student": load_model(folder / "student")}


def test_the_student_is_the_narrow_one(settings: dict[str, Any], whole: dict[str, Any]) -> None:
    student = whole["student"]
    assert student.network == NARROW
    assert student.steps == 1
    assert whole["result"]["parameters"] == sum(p.numel() for p in student.denoiser.module.parameters())


def test_killed_and_resumed(
    settings: dict[str, Any],
    whole: dict[str, Any],
    paths: Paths,
    tmp_path: Path,
    kill_at: Callable[[int], None],
    every_step_is_kept: None,
) -> None:
    """Before the change at 20, at it, within the phase of equal steps, and at its end, each with a checkpoint."""
    for step in (19, 20, 27, 40, 41):
        kill_at(step)
        with pytest.raises(Killed):
            run_distillation(run_of(**settings), paths, tmp_path, reuse=False)
        torch.manual_seed(step)
    run_distillation(run_of(**settings), paths, tmp_path, reuse=False)
    assert content_of(tmp_path) == {name: value for name, value in whole.items() if name != "student"}


def test_its_stages_are_found(settings: dict[str, Any], whole: dict[str, Any], paths: Paths, tmp_path: Path) -> None:
    """The wide first phase comes from a run that never gets narrow, the others from a run with another last bank."""
    wide = run_distillation(run_of((), **settings), paths, tmp_path / "wide")
    assert wide.parameters > whole["result"]["parameters"]
    other = run_distillation(run_of(mu_i_bank=(0.25,), **settings), paths, tmp_path / "other")
    assert other.trained == 2 * PHASE
    run = run_distillation(run_of(**settings), paths, tmp_path / "run")
    assert run.trained == PHASE
    found = content_of(tmp_path / "run")
    assert found["weights"] == whole["weights"]
    assert found["record"] == whole["record"]


def test_the_architecture_of_a_phase_is_in_its_key() -> None:
    def keys(*students: NetworkConfig | None) -> list[str]:
        return [stage.key for stage in stages_of(run_of(students))]

    plain, narrow, other = keys(), keys(None, NARROW, None), keys(None, None, NARROW)
    assert plain == keys(None, None, None)
    assert narrow == keys(None, NARROW, NARROW)
    assert [a == b for a, b in zip(plain, narrow, strict=True)] == [True, False, False]
    assert [a == b for a, b in zip(plain, other, strict=True)] == [True, True, False]
    assert keys(NARROW, None, None) == [stage.key for stage in stages_of(replace(run_of(()), student=NARROW))]


def test_students_survive_as_plain_data() -> None:
    assert from_dict(RunConfig, to_dict(run_of())) == run_of()


def test_random_students_share_nothing(trained: Paths, tmp_path: Path) -> None:
    """Their weights are the seed's."""
    runs = {start: replace(run_of(), student_from=start) for start in ("teacher", "random")}
    for start, run in runs.items():
        run_distillation(run, trained, tmp_path / start, reuse=False)
    assert content_of(tmp_path / "teacher")["weights"] != content_of(tmp_path / "random")["weights"]


def test_what_cannot_be_is_refused_at_once(trained: Paths) -> None:
    with pytest.raises(InputError, match=r"students: 3 phase\(s\) need 3 of them, got 1"):
        run_of((NARROW,))
    with pytest.raises(InputError, match="students: say what student says"):
        replace(run_of(), student=NARROW)
    odd = NetworkConfig(name="unet_8x8", options={"multipliers": [1, 1, 1, 1, 1, 1]})
    with pytest.raises(InputError, match="network"):
        check_run(run_of((None, None, odd)), trained)
