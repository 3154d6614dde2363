"""The recipes, scaled down, against the authors' update rules of `authors.py`: to 1e-5 of the distance moved."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import authors
import pytest
import torch
from authors import Outcome, Script, Weights, weights_of
from small_methods import perturbed
from torch import Tensor, nn

from tract_ray.data import Dataset
from tract_ray.diffusion import Denoiser, build_schedule
from tract_ray.distillation import Batch, Draws, Method, methods
from tract_ray.networks import build_network
from tract_ray.training import loop
from tract_ray.training.recipes import recipes

B, SHAPE = 3, (1, 16, 16)
SMALL = {"channels": 8, "multipliers": (1,), "blocks": 1, "attention": ()}


class FromScript(Draws):
    """Draws that are read from a script, in the order in which they are asked for."""

    def __init__(self, script: Script) -> None:
        super().__init__(0, B)
        self.noises, self.uniforms = list(script.noises), list(script.uniforms)

    def normal(self, shape: Sequence[int]) -> Tensor:
        return self.noises.pop(0)

    def uniform(self) -> Tensor:
        return self.uniforms.pop(0)

    def integers(self, high: int) -> Tensor:
        return (self.uniform() * high).long()


def networks(recipe: str) -> tuple[nn.Module, nn.Module]:
    """Teacher and student in float64: not the same, so that a mix-up shows, and with some size to their outputs."""
    edm = "edm" in recipe
    network = build_network("edm_8x8" if edm else "unet_16x16", SHAPE, options=SMALL, seed=0)
    teacher = perturbed(network, 0.05).double().eval().requires_grad_(False)
    return teacher, perturbed(teacher, 0.02, seed=1)


def ours(recipe: str, script: list[Script], folder: Path, patch: pytest.MonkeyPatch, **changes: Any) -> Outcome:
    """The training of this package: its loop, its method, its optimiser, with the script's numbers."""
    config = recipes[recipe].changed({"batch": B, "samples": B * len(script), **changes})
    teacher, student = networks(recipe)
    edm = "edm" in recipe
    view = Denoiser(teacher, build_schedule("ve_karras" if edm else "vp_cosine"), "edm" if edm else "x0")
    method = methods[config.kind](config, view, student)

    def make_batch(method: Method, dataset: object, seed: int, step: int, worker: object) -> Batch:
        return Batch(script[step].images, None, FromScript(script[step]), step - method.phase.start)

    with patch.context() as patched:
        patched.setattr(loop, "make_batch", make_batch)
        no_images = Dataset("none", torch.zeros(1, *SHAPE, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64), 0)
        loop.train(method, no_images, seed=0, key="", folder=folder, log_points=10**6)
    lines = [json.loads(line) for line in (folder / "record.jsonl").read_text().splitlines()]
    names = {"student": "student", "self_teacher": "self_teacher", "auxiliary": "auxiliary"}
    found = {new: method.modules()[old] for old, new in names.items() if old in method.modules()}
    found["inference"] = next(iter(method.candidates().values()))
    norms = [line["metrics"]["gradient_norm"] for line in lines if "gradient_norm" in line["metrics"]]
    return Outcome(norms, {name: weights_of(network) for name, network in found.items()})


def distance(a: Weights, b: Weights) -> float:
    return float(sum((p - q).square().sum() for p, q in zip(a, b, strict=True)) ** 0.5)


def agree(recipe: str, found: Outcome, expected: Outcome) -> None:
    begun = weights_of(networks(recipe)[1])
    moved = distance(expected.weights["student"], begun)
    assert moved > 1e-3
    for name, weights in expected.weights.items():
        assert distance(found.weights[name], weights) < 1e-5 * moved, name
    assert found.norms == pytest.approx(expected.norms, rel=1e-5)


SCHEDULE = (64, 8, 1)


@pytest.fixture(scope="module")
def script() -> list[Script]:
    return authors.scripts(40, B, SHAPE)


@pytest.fixture(scope="module")
def few(script: list[Script]) -> Outcome:
    """TRACT in eight steps."""
    return authors.tract(*networks("tract-cifar10"), script[:8], SCHEDULE, 2e-4)


def test_tract(script: list[Script], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = authors.tract(*networks("tract-cifar10"), script, SCHEDULE, 2e-4)
    found = ours("tract-cifar10", script, tmp_path, monkeypatch, time_schedule=SCHEDULE)
    agree("tract-cifar10", found, expected)
    clipped = [norm > 1 for norm in found.norms]
    assert clipped == [norm > 1 for norm in expected.norms]
    assert sum(clipped) > 20  # on the scale of the sum


@pytest.mark.parametrize(
    "change",
    [
        {"loss_reduction": "mean"},
        {"keep_optimizer": False},
        {"keep_averages": False},
        {"student_init": "teacher"},
        {"clip_x0": "none"},
        {"boundary": "exact"},
        {"adam_eps": 1e-4},
    ],
    ids=lambda change: next(iter(change)),
)
def test_another_choice_is_another_training(
    change: dict[str, Any], few: Outcome, script: list[Script], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = ours("tract-cifar10", script[:8], tmp_path, monkeypatch, time_schedule=SCHEDULE, **change)
    with pytest.raises(AssertionError):
        agree("tract-cifar10", found, few)


def test_tract_edm(script: list[Script], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = authors.tract_edm(*networks("tract-edm-cifar10"), script, 40, 1e-3)
    agree("tract-edm-cifar10", ours("tract-edm-cifar10", script, tmp_path, monkeypatch), expected)


def test_three_halvings(script: list[Script], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = authors.progressive(*networks("btd-cifar10"), script, {4: 8, 2: 16, 1: 16}, 5e-5)
    changes = {"samples": None, "start_steps": 8, "updates_per_phase": (8, 16, 16)}
    found = ours("btd-cifar10", script, tmp_path, monkeypatch, **changes)
    agree("btd-cifar10", found, expected)


def test_moment_matching(script: list[Script], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = authors.moment_matching(*networks("moment-matching-imagenet64"), script[:20], 8, 1e-4, warmup=2)
    found = ours("moment-matching-imagenet64", script[:20], tmp_path, monkeypatch)
    agree("moment-matching-imagenet64", found, expected)
