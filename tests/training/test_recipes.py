"""The papers' recipes: numbers against the papers, and what a person can do with them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tract_ray.config import InputError, from_dict, to_dict
from tract_ray.distillation import TractConfig
from tract_ray.networks import presets
from tract_ray.training import Paths
from tract_ray.training.forecast import forecast
from tract_ray.training.recipes import Recipe, find_recipe, recipes

M = 1 << 20


@pytest.mark.parametrize("name", sorted(recipes))
def test_it_survives_as_a_file(name: str, tmp_path: Path) -> None:
    recipe = recipes[name]
    assert recipe.name == name
    assert from_dict(Recipe, to_dict(recipe)) == recipe
    file = tmp_path / "mine.json"
    file.write_text(recipe.to_json())
    assert find_recipe(file) == recipe
    content = to_dict(recipe)
    file = tmp_path / "mine.toml"
    file.write_text("\n".join(f"{key} = {toml(own)}" for key, own in content.items() if own is not None))
    assert find_recipe(file) == recipe


def toml(value: object) -> str:
    """A value as TOML says it, None by the words that stand for it."""
    if isinstance(value, dict):
        said = {"clip_norm": "none"} if value.get("clip_norm", 1) is None else {}
        said |= {key: own for key, own in value.items() if own is not None}
        return "{" + ", ".join(f"{key} = {toml(own)}" for key, own in said.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join("'-'" if own is None else toml(own) for own in value) + "]"
    return json.dumps(value)


def test_the_numbers_are_the_papers() -> None:
    steps = {name: recipe.method.steps for name, recipe in recipes.items()}
    assert steps["tract-cifar10"] == 96 * M // 256 == 393_216
    assert steps["tract-cifar10-256m"] == M
    assert steps["tract-edm-cifar10"] == 96 * M // 512
    assert steps["btd-cifar10"] == 11 * 50_000 + 2 * 100_000
    assert [p.steps for p in recipes["btd-cifar10"].method.phases()] == [50_000] * 11 + [100_000] * 2
    assert next(p.teacher_steps for p in recipes["btd-cifar10"].method.phases()) == 8192
    assert len(recipes["btd-imagenet64"].method.phases()) == 10
    kd = recipes["kd-60m-19m"]
    schedule = [(p.teacher_steps, p.student_steps, p.steps) for p in kd.method.phases()]
    third = 336 * M // 256 // 3
    assert schedule == [(1024, 32, third + 1), (32, 32, third), (32, 1, third - 1)]
    assert steps["moment-matching-imagenet64"] == 200_000
    assert steps["edm-cifar10"] * 512 == 200_000_000


def test_a_phase_of_the_authors_changes_one_step_after_the_boundary() -> None:
    """The step at which int(progress (1 - 1e-9) phases) first is the phase's number."""
    for steps, schedule in ((40, (1024, 32, 1)), (41, (64, 8, 4, 1)), (40, (64, 8, 4, 1))):
        count = len(schedule) - 1
        config = TractConfig(samples=steps * 8, batch=8, time_schedule=schedule, boundary="after")
        found = [phase.start for phase in config.phases()]
        theirs = [next(s for s in range(steps) if int(s / steps * (1 - 1e-9) * count) == k) for k in range(count)]
        assert found == theirs
        assert {config.inference_mu(phase) for phase in config.phases()} == {1e-3 ** (count / steps)}
    with pytest.raises(InputError, match=r"^samples: 3 optimiser steps are too few for 3 phases with boundary=after"):
        TractConfig(samples=3 * 8, batch=8, time_schedule=(64, 8, 4, 1), boundary="after")


@pytest.mark.parametrize("name", sorted(recipes))
def test_every_network_is_that_of_its_data(name: str) -> None:
    recipe = recipes[name]
    assert recipe.teacher.network is not None
    preset = presets[recipe.teacher.network.name]
    recipe.check_shape(recipe.teacher.dataset, preset.shape, None)
    assert recipe.teacher.training.prediction == preset.prediction


def test_data_of_another_shape_need_a_network() -> None:
    recipe = recipes["tract-cifar10"]
    with pytest.raises(InputError) as caught:
        recipe.teacher_on("digits", None)
    assert str(caught.value).startswith("recipe: tract-cifar10 is for images 3x32x32, but digits has 1x8x8")
    small = recipe.teacher_on("digits16", "unet_16x16")
    assert (small.training.prediction, small.training.schedule) == ("x0", "vp_cosine")
    with pytest.raises(InputError, match="recipe: edm-cifar10 trains teachers"):
        recipes["edm-cifar10"].run(recipes["edm-cifar10"].teacher, {})


BROKEN = [
    ('{"name": "x"}', "what is missing"),
    ("{", "recipe"),
    ('{"nam": 1}', "unknown 'nam'; did you mean 'name'"),
    ("name = x", "recipe: .*x.toml cannot be read"),
    ("nam = 1", "unknown 'nam'; did you mean 'name'"),
]


@pytest.mark.parametrize(("text", "says"), BROKEN)
def test_a_broken_file_is_one_line(text: str, says: str, tmp_path: Path) -> None:
    file = tmp_path / ("x.toml" if "=" in text else "x.json")
    file.write_text(text)
    with pytest.raises(InputError, match=says) as caught:
        find_recipe(file)
    assert "\n" not in str(caught.value)


def test_a_forecast_counts_images_and_calls(tmp_path: Path) -> None:
    recipe = recipes["tract-edm-cifar10"]
    teacher = recipe.teacher_on("digits", "edm_8x8")
    run = recipe.run(teacher, {"samples": 1600, "batch": 16, "time_schedule": (40, 8, 1)})
    found = forecast(run, Paths(tmp_path / "runs", tmp_path / "cache"))
    assert (found.images, found.updates) == (1600, 100)
    assert found.calls == 800 * 3 + 800 * 2  # Heun and the self-teacher, then DDIM and the self-teacher
    assert found.evaluation_calls == 2 * 5000 * 8 + 5000 + 50_000
    assert found.training_hours > 0
    assert "to be trained first" in "\n".join(found.lines())
