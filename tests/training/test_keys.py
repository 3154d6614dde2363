"""Keys by content, shown by runs: what is not the same is never taken over, and what is the same is trained once."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from runs import tiny_run

from tract_ray.config import InputError
from tract_ray.diffusion import Denoiser
from tract_ray.training import (
    EvaluationConfig,
    Model,
    NetworkConfig,
    Paths,
    RunConfig,
    TeacherConfig,
    find_teacher,
    run_distillation,
    score_teacher,
    train_teacher,
)
from tract_ray.training.stage_store import StageStore

BASE = tiny_run()


def keys(run: RunConfig, paths: Paths) -> list[str]:
    return [stage.key for stage in StageStore(paths).stages_of(run)]


def teacher_of(paths: Paths) -> Model:
    model = find_teacher(BASE.teacher, paths)
    assert model is not None
    return model


def from_folder(folder: Path, **changes: str) -> RunConfig:
    return replace(BASE, teacher=TeacherConfig(path=str(folder), **changes))


def read_as(model: Model, prediction: str, folder: Path) -> Path:
    """The same weights in a folder that says what they predict."""
    return replace(model, denoiser=Denoiser(model.denoiser.network, model.denoiser.schedule, prediction)).save(folder)


def test_the_same_weights_as_another_prediction_are_another_teacher(paths: Paths, tmp_path: Path) -> None:
    v, eps = (from_folder(read_as(teacher_of(paths), kind, tmp_path / kind)) for kind in ("v", "eps"))
    assert not set(keys(v, paths)) & set(keys(eps, paths))
    first, second = (run_distillation(run, paths, tmp_path / name) for run, name in ((v, "1"), (eps, "2")))
    assert (first.trained, second.trained) == (960, 960)
    assert first.distances != second.distances
    read_as(teacher_of(paths), "eps", tmp_path / "v")
    with pytest.raises(InputError, match=r"^output: .* holds the result of another teacher than is there now; choose"):
        run_distillation(v, paths, tmp_path / "1")


def pictures(folder: Path, level: int) -> str:
    """Two classes of noise around a grey `level`, as a data set."""
    draw = np.random.default_rng(0)
    for number in range(40):
        file = folder / f"class-{number % 2}" / f"{number:02d}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        noise = draw.normal(level + 40 * (number % 2), 20, (8, 8, 3))
        Image.fromarray(noise.clip(0, 255).astype(np.uint8)).save(file)
    return f"folder:{folder}@8"


def test_a_teacher_without_data_set_takes_nothing_over_from_other_data(paths: Paths, tmp_path: Path) -> None:
    network = NetworkConfig(name="mlp_8x8", options={"width": 16, "blocks": 1, "embedding": 16})
    config = TeacherConfig(dataset=pictures(tmp_path / "dark", 50), network=network, training=BASE.teacher.training)
    model = train_teacher(config, paths)
    bare = replace(model, dataset="").save(tmp_path / "bare")
    evaluation = EvaluationConfig(samples=80, rung_samples=70, features="classifier")
    dark, bright = (
        replace(from_folder(bare, dataset=pictures(tmp_path / name, level)), evaluation=evaluation)
        for name, level in (("dark", 50), ("bright", 150))
    )
    before = keys(dark, paths)
    assert not set(before) & set(keys(bright, paths))
    run_distillation(dark, paths, tmp_path / "1")
    assert run_distillation(bright, paths, tmp_path / "2").trained == 960
    assert StageStore(paths).has(StageStore(paths).stages_of(dark)[-1])  # what was planned is what was kept
    assert run_distillation(dark, paths, tmp_path / "1").trained == 960  # found again
    pictures(tmp_path / "dark", 60)
    with pytest.raises(InputError, match=r"^output: .* holds the result of another data set than is there now; choose"):
        run_distillation(dark, paths, tmp_path / "1")


def test_reference_scores_are_of_the_model_and_not_of_its_folders_name(paths: Paths, tmp_path: Path) -> None:
    good = teacher_of(paths)
    one = good.save(tmp_path / "one" / "teacher")
    with torch.no_grad():
        next(iter(good.denoiser.module.parameters())).mul_(3)
    two = good.save(tmp_path / "two" / "teacher")
    first, second = (score_teacher(from_folder(f).teacher, BASE.evaluation, paths, 2) for f in (one, two))
    assert first.distance != second.distance
    again = score_teacher(from_folder(one).teacher, BASE.evaluation, paths, 2)
    assert again == first
    assert len(list((paths.cache / "scores").rglob("*.json"))) == 2


def test_a_student_that_names_its_teachers_network_is_its_teachers(paths: Paths, tmp_path: Path) -> None:
    """Spelt as the teacher's, with options that the preset has anyway, or as the folder that the teacher is."""
    options = {"width": 16, "blocks": 1, "embedding": 16}
    same = [
        replace(BASE, student=NetworkConfig(name="mlp_8x8", options=options)),
        replace(BASE, student=NetworkConfig(name="mlp_8x8_small", options={**options, "dropout": 0.0})),
        from_folder(teacher_of(paths).save(tmp_path / "copy")),
        replace(BASE, student_from=str(tmp_path / "copy")),
        replace(BASE, students=(None, NetworkConfig(name="mlp_8x8", options=options))),
    ]
    assert [keys(run, paths) for run in same] == [keys(BASE, paths)] * 5
    first = run_distillation(BASE, paths, tmp_path / "first")
    second, phases = (run_distillation(same[k], paths, tmp_path / str(k)) for k in (1, 4))
    assert (second.trained, second.distances) == (phases.trained, phases.distances) == (0, first.distances)


def test_a_stage_is_of_the_teachers_weights_and_not_of_its_configuration(paths: Paths, tmp_path: Path) -> None:
    """A cached teacher whose weights have changed on disk publishes nothing under the good one's keys."""
    own = Paths(tmp_path / "runs", tmp_path / "cache")
    model = train_teacher(BASE.teacher, own)
    good = keys(BASE, own)
    assert good == keys(BASE, paths)
    with torch.no_grad():
        next(iter(model.denoiser.module.parameters()))[0, 0] += 1e-6
    folder = next((own.cache / "teachers").glob("digits-*"))  # beside it lies its lock
    replace(model, about={}).save(folder)
    assert not set(keys(BASE, own)) & set(good)


def test_a_bank_may_hold_a_neighbour_of_the_heuristic(paths: Paths, tmp_path: Path) -> None:
    """0.7943282347 and the heuristic's 0.79432823472… are two averages, and both follow the student."""
    near = 0.7943282347
    run_distillation(BASE.replace_method(mu_i_bank=(near,)), paths, tmp_path / "run")
    result = json.loads((tmp_path / "run" / "result.json").read_text())
    own, other = (value for _, value in sorted(result["distances"].items()))
    assert own == pytest.approx(other, rel=1e-4)
