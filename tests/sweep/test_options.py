"""What is typed on a sweep's command line, and what runs it makes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from tract_ray.config import InputError
from tract_ray.diffusion import Denoiser, build_schedule
from tract_ray.distillation import TractEDMConfig
from tract_ray.networks import build_network, count_parameters
from tract_ray.sweep.options import Options
from tract_ray.training import Model, NetworkConfig
from tract_ray.training.paths import absolute_dataset
from tract_ray.training.recipes import find_recipe


def test_paths_are_absolute_where_they_are_typed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Trials run in a folder of Ray's, where a relative path leads nowhere."""
    monkeypatch.chdir(tmp_path)
    options = Options(dataset="folder:photos@8", teacher="mine")
    assert (options.dataset, options.teacher) == (f"folder:{tmp_path}/photos@8", str(tmp_path / "mine"))
    assert (Options().taught.dataset, Options().teacher) == ("digits", None)
    assert absolute_dataset("folder:~/photos@8") == f"folder:{Path.home()}/photos@8"


@pytest.fixture(scope="module")
def teachers(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Folders of teachers that were never trained: of EDM's process, and of a size of its own."""
    folder: Path = tmp_path_factory.mktemp("teachers")
    made = {}
    for name, preset, own, schedule, prediction in (
        ("edm", "edm_8x8", {}, "ve_karras", "edm"),
        ("narrow", "unet_8x8", {"channels": 12, "blocks": 2}, "vp_cosine", "v"),
    ):
        network = build_network(preset, (1, 8, 8), options=own, seed=0).eval().requires_grad_(False)
        config = NetworkConfig(name=preset, options=own)
        model = Model(Denoiser(network, build_schedule(schedule), prediction), config, (1, 8, 8), 40, dataset="digits")
        made[name] = model.save(folder / name)
    return made


def test_the_method_follows_the_teachers_kind(teachers: dict[str, Path]) -> None:
    """An EDM teacher, trained here or elsewhere, is distilled as in EDM's experiments: 40 Heun steps."""
    for options in (Options(teacher=str(teachers["edm"])), Options(network="edm_8x8")):
        method = options.method()
        assert isinstance(method, TractEDMConfig)
        assert (method.solver, method.time_schedule, method.weighting) == ("heun", (40, 1), "edm")
        assert (options.tract(), options.schedule()) == ("tract_edm", (40, 1))
    assert Options(teacher=str(teachers["narrow"])).method_name == Options().method_name == "tract"
    assert Options(network="edm_8x8", kind="consistency").method().kind == "consistency"


def test_settings_reach_the_methods_that_have_them() -> None:
    options = Options(kind="progressive", settings={"clip_norm": 0.5, "end_steps": 2}, lr=0.1, time_schedule="64,8,1")
    method = options.method()
    assert (method.clip_norm, method.lr, method.phases()[0].teacher_steps) == (0.5, 0.1, 64)
    assert method.phases()[-1].student_steps == 2
    assert options.method("consistency").clip_norm == 0.5
    with pytest.raises(InputError, match="method setting: unknown 'mu_t'; did you mean 'mu_s'"):
        Options(settings={"mu_t": 0.5}).method()
    with pytest.raises(InputError, match="set: end_steps is what this sweep itself decides"):
        options.method(end_steps=4)


def test_an_architecture_is_the_teachers_own(teachers: dict[str, Path]) -> None:
    """And not its preset's: a student of a third has a third of what the teacher has."""
    options = Options(teacher=str(teachers["narrow"]))
    assert options.architecture() == ("unet_8x8", {"channels": 12, "blocks": 2})
    student = options.third()
    sizes = [
        count_parameters(build_network("unet_8x8", (1, 8, 8), options=own))
        for own in ({"channels": 12, "blocks": 2}, student["options"])
    ]
    assert student["options"]["blocks"] == 2
    assert 0.2 < sizes[1] / sizes[0] < 0.5


def test_a_run_uses_its_teachers_data(teachers: dict[str, Path]) -> None:
    assert Options(teacher=str(teachers["edm"]), dataset="digits").taught.dataset == "digits"
    with pytest.raises(InputError, match="dataset: the teacher was trained on digits, not cifar10"):
        _ = Options(teacher=str(teachers["edm"]), dataset="cifar10").taught


def test_a_recipe_is_what_a_sweep_starts_from() -> None:
    """With its teacher, student, data and evaluation; options change it, also to small data by a network for them."""
    options = Options(recipe="tract-cifar10")
    recipe = find_recipe("tract-cifar10")
    assert options.run(per_phase=recipe.evaluation.per_phase) == recipe.run(recipe.teacher, {})
    assert options.schedule() == getattr(recipe.method, "time_schedule")  # noqa: B009
    small = Options(recipe="tract-cifar10", dataset="digits", network="mlp_8x8_small", settings={"mu_s": 0.9}, lr=1e-3)
    run, changed = small.run(), {"mu_s": 0.9, "lr": 1e-3}
    assert (run.teacher.dataset, run.method) == ("digits", replace(recipe.method, **changed))
    with pytest.raises(InputError, match="method: progressive is not that of the recipe tract-cifar10, tract"):
        Options(recipe="tract-cifar10", kind="progressive")
