"""Recipes on the command line: listed, printed, changed, foreseen, and run."""

from __future__ import annotations

import json
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from brightness import Brightness
from commands import refusal, run, tract_ray
from PIL import Image

from tract_ray.evaluation import latency
from tract_ray.evaluation.extractors import extractors
from tract_ray.networks.sizing import third
from tract_ray.training import distill, forecast, load_model, scoring
from tract_ray.training.recipes import recipes

M = 1 << 20
STUDENTS = sorted(name for name, recipe in recipes.items() if not recipe.trains_teachers)


def test_they_are_listed() -> None:
    rows = {row["name"]: row for row in json.loads(run("recipes", "--json"))}
    assert set(rows) == set(recipes)
    kd = rows["kd-60m-19m"]
    assert (kd["images"], kd["batch"], kd["updates"]) == (336 * M, 256, 336 * M // 256)
    assert kd["published"].startswith("FID 6.47")
    assert kd["sources"]["samples"] == "paper: 336M [U]"
    assert rows["tract-edm-imagenet64"]["extractor"] == "inception_legacy_pytorch"
    assert {row["extractor"] for name, row in rows.items() if name.startswith("btd")} == {"inception_legacy_tensorflow"}
    assert "tract-cifar10-256m" in run("recipes")


def test_one_is_a_file_to_change(tmp_path: Path, quick: None) -> None:
    content = json.loads(run("recipes", "kd-60m-19m"))
    assert [named and named["name"] for named in content["students"]] == [None, "unet_cifar10_small", None]
    content["method"]["mu_s"] = 0.75
    file = tmp_path / "mine.json"
    file.write_text(json.dumps(content))
    found = foreseen("--recipe", file, "--storage", tmp_path / "runs")
    assert found["config"]["method"]["mu_s"] == 0.75
    assert refusal("recipes", "kd-60m-19").startswith("recipe: unknown 'kd-60m-19'; did you mean 'kd-60m-19m'")


def foreseen(*arguments: object) -> dict[str, Any]:
    called = tract_ray("distill", *arguments, "--dry-run", "--json")
    assert called.status == 0, called.err
    return dict(json.loads(called.out))


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Not the seconds of large networks: a call takes one second, an update three; parameters are the real ones."""

    def measure(config: Any, shape: Any, prediction: str, classes: int, device: Any) -> forecast.Cost:
        with torch.device("meta"):
            network = forecast.build_for(config, shape, prediction, classes, seed=None)
        return forecast.Cost(1.0, 3.0, forecast.count_parameters(network))

    monkeypatch.setattr(forecast, "measure", measure)


@pytest.mark.parametrize("name", STUDENTS)
def test_each_is_foreseen(name: str, tmp_path: Path, quick: None) -> None:
    """Images, calls, parameters and hours of the papers' runs, from the whole command."""
    recipe, found = recipes[name], foreseen("--recipe", name, "--storage", tmp_path / "runs", "--device", "cpu")
    assert (found["images"], found["updates"]) == (recipe.method.samples, recipe.method.steps)
    assert found["training_hours"] == pytest.approx((3 * found["images"] + found["calls"]) / 3600)
    assert found["evaluation_hours"] == pytest.approx(found["evaluation_calls"] / 3600)
    assert found["teacher_hours"] == pytest.approx(recipe.teacher.training.samples * 3 / 3600)
    if name != "digits":
        assert found["scored_with"] == f"{recipe.evaluation.features} on 50,000 images"
        large = {"cifar10": 60_022_531, "imagenet64": 295_899_776}
        edm = "edm" in name
        start = found["phases"][0]["parameters"]
        assert edm or abs(start / large[recipe.teacher.dataset] - 1) < 0.01
    if name == "kd-60m-19m":
        steps = [(p["teacher_steps"], p["student_steps"]) for p in found["phases"]]
        assert steps == [(1024, 32), (32, 32), (32, 1)]
        assert [p["parameters"] for p in found["phases"]] == [start, 19_419_011, 19_419_011]
    assert not (tmp_path / "runs").exists()


def test_data_of_another_shape_are_one_line(tmp_path: Path) -> None:
    says = "recipe: tract-cifar10 is for images 3x32x32, but digits has 1x8x8; name a --network to scale it to them"
    assert refusal("distill", "--recipe", "tract-cifar10", "--dataset", "digits", "--dry-run") == says
    assert refusal("distill", "--recipe", "tract-edm-cifar10", "--method", "tract", "--dry-run").startswith("method:")


@pytest.mark.usefixtures("short_classifier")
def test_one_is_scaled_to_small_data(tmp_path: Path) -> None:
    """Knowledge distillation from the command in the docs, by a small network: no Inception weights are asked for."""
    small = ["--recipe", "kd-60m-19m", "--dataset", "digits", "--network", "mlp_8x8_small", "--storage", tmp_path]
    shorter = ["--samples", 12 * 16, "--batch", 16, "--teacher-samples", 128 * 4, "--device", "cpu"]
    called = tract_ray("distill", *small, *shorter, "--evaluation-samples", 60, "--rung-samples", 60, "--json")
    assert called.status == 0, called.err
    assert "kd-60m-19m is scaled to mlp_8x8_small on digits: classifier on 4,000 images scores it" in called.err
    result = json.loads(called.out)
    network = load_model(Path(result["student"])).network
    assert (network.name, result["metric"]) == ("mlp_8x8_small", "fid_digits")
    assert network.options["width"] == third("mlp_8x8_small", {}, (1, 8, 8))["width"]


@pytest.mark.slow
@pytest.mark.parametrize("name", [name for name in STUDENTS if name != "digits"])
def test_it_trains_its_real_network(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two steps of each phase (BTD's: one) at the paper's size, on pictures of the paper's shape."""
    monkeypatch.setitem(extractors, Brightness.kind, Brightness)
    monkeypatch.setattr(scoring, "GRID_IMAGES", 1)  # 64 of them at every mark would take most of the time
    monkeypatch.setattr(distill, "latency", partial(latency, images=1, repeats=1))  # as would 256
    recipe = recipes[name]
    size = 32 if recipe.teacher.dataset == "cifar10" else 64
    generator = np.random.default_rng(0)
    for kind in ("a", "b") if recipe.teacher.conditional else ("",):
        (tmp_path / "pictures" / kind).mkdir(parents=True)
        for number in range(4):
            pixels = generator.integers(0, 256, (size, size, 3), dtype=np.uint8)
            Image.fromarray(pixels).save(tmp_path / "pictures" / kind / f"{number}.png")
    own = ["--dataset", f"folder:{tmp_path}/pictures@{size}", "--storage", tmp_path / "runs", "--device", "cpu"]
    taught = next(r.name for r in recipes.values() if r.trains_teachers and r.teacher == recipe.teacher)
    teacher = run("teacher", "--recipe", taught, *own, "--samples", 2, "--batch", 2, "--json")
    shorter = ["--batch", 2, "--samples", 2 * 2 * len(recipe.method.phases())]
    if name.startswith("btd"):
        shorter = ["--batch", 2, "--set", "start_steps=4", "--set", "updates_per_phase=[1]"]
    scored = ["--features", Brightness.kind, "--evaluation-samples", 2, "--rung-samples", 2]
    called = run("distill", "--recipe", name, "--teacher", json.loads(teacher)["teacher"], *own, *shorter, *scored)
    assert "student: " in called
