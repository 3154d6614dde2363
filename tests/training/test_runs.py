"""A run from outside: what it reports, what it keeps, what it refuses."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from runs import paths_at, tiny_run

from tract_ray.config import InputError, from_dict, to_dict
from tract_ray.data import load_dataset
from tract_ray.distillation import Denoising, DenoisingConfig
from tract_ray.files import read_json, write_json
from tract_ray.networks import build_network
from tract_ray.training import (
    Paths,
    RunConfig,
    TeacherConfig,
    Worker,
    loop,
    run_distillation,
    train_teacher,
)
from tract_ray.training.scoring import evaluation_marks
from tract_ray.training.teacher import teacher_folder


def test_what_a_run_reports(paths: Paths, tmp_path: Path) -> None:
    """Each mark but the last as a rung, then the result; samples are the clock."""
    reports: list[dict[str, Any]] = []
    result = run_distillation(tiny_run(), paths, tmp_path, report=reports.append)
    assert [(r["samples"], r["finished"]) for r in reports] == [(240, False), (480, False), (720, False), (960, True)]
    assert reports[-1]["distance"] == result.distance
    assert result.distances[result.mu_i] == min(result.distances.values())
    assert (result.samples, result.steps) == (960, 1)
    assert set(result.distances) == {0.5, 1e-3 ** (1 / 30)}


def test_a_finished_run_is_returned_at_once(paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    first = run_distillation(tiny_run(), paths, tmp_path)
    monkeypatch.setattr("tract_ray.training.stage_runner.train", lambda *_, **__: pytest.fail("trained again"))
    monkeypatch.setattr("tract_ray.training.distill.load_dataset", lambda *_: pytest.fail("loaded the data"))
    reports: list[dict[str, Any]] = []
    assert run_distillation(tiny_run(), paths, tmp_path, report=reports.append) == first
    assert [(r["samples"], r["distance"]) for r in reports] == [(960, first.distance)]


def test_the_teacher_is_trained_once(paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    config, here = tiny_run().teacher, paths_at(tmp_path)
    first = train_teacher(config, here)
    assert (teacher_folder(config, here) / "model.safetensors").is_file()
    monkeypatch.setattr("tract_ray.training.teacher.train", lambda *_, **__: pytest.fail("trained again"))
    again = train_teacher(config, here)
    for name, weights in first.denoiser.module.state_dict().items():
        assert torch.equal(again.denoiser.module.state_dict()[name], weights)
    with pytest.raises(pytest.fail.Exception):
        train_teacher(replace(config, seed=1), here)


@pytest.mark.parametrize(("per_phase", "marks"), [(1, [30, 60]), (2, [15, 30, 45, 60]), (100, [*range(1, 61)])])
def test_marks(per_phase: int, marks: list[int]) -> None:
    """Every phase's end is one."""
    assert sorted(evaluation_marks(tiny_run().method.phases(), per_phase)) == marks


@pytest.mark.parametrize("network", ["mlp_8x8_small", "unet_8x8", "edm_8x8"])
@pytest.mark.parametrize("classes", [0, 10])
def test_a_conditional_network_is_given_labels(network: str, classes: int) -> None:
    """Whatever its family calls the layer that reads them."""
    config = DenoisingConfig(samples=64, batch=8)
    method = Denoising(config, None, build_network(network, num_classes=classes, seed=0))
    batch = loop.make_batch(method, load_dataset("digits"), 0, 0, Worker())
    assert (batch.labels is not None) == (classes > 0)


def test_batches_of_workers_are_the_parts_of_the_whole() -> None:
    data = load_dataset("digits")
    method = Denoising(DenoisingConfig(samples=64, batch=8), None, build_network("mlp_8x8_small", seed=0))
    whole = loop.make_batch(method, data, 3, 5, Worker())
    parts = [loop.make_batch(method, data, 3, 5, Worker(rank, 4)) for rank in range(4)]
    assert torch.equal(torch.cat([part.images for part in parts]), whole.images)
    noise = whole.draws.normal((2,))
    assert torch.equal(torch.cat([part.draws.normal((2,)) for part in parts]), noise)


BAD: dict[str, tuple[dict[str, Any], str]] = {
    "a schedule that does not divide": (
        {"method": {"kind": "tract", "time_schedule": [1024, 30, 1]}},
        "time_schedule: each number must divide the one before: 30 does not divide 1024",
    ),
    "a schedule that grows": (
        {"method": {"kind": "tract", "time_schedule": [32, 1024, 1]}},
        "time_schedule: must not grow, nor end below 1, but 1024 follows 32",
    ),
    "a schedule that ends at zero": (
        {"method": {"kind": "tract", "time_schedule": [8, 0]}},
        "time_schedule: must not grow, nor end below 1, but 0 follows 8",
    ),
    "a schedule of one number": ({"method": {"kind": "tract", "time_schedule": [8]}}, "time_schedule: "),
    "mu_s of 1": ({"method": {"kind": "tract", "mu_s": 1.0}}, "mu_s: must be in [0, 1), got 1.0"),
    "mu_s below 0": ({"method": {"kind": "tract", "mu_s": -0.1}}, "mu_s: must be in [0, 1), got -0.1"),
    "mu_s of nan": ({"method": {"kind": "tract", "mu_s": float("nan")}}, "method.mu_s: must be finite, got nan"),
    "mu_i of 1": ({"method": {"kind": "tract", "mu_i": 1}}, "mu_i: must be in [0, 1), got 1"),
    "a mu of the bank": ({"method": {"kind": "tract", "mu_i_bank": [0.5, 1.5]}}, "mu_i_bank: every value"),
    "more phases than steps": (
        {"method": {"kind": "tract", "samples": 16, "batch": 16, "time_schedule": [8, 2, 1]}},
        "samples: 1 optimiser steps are too few for 2 phases",
    ),
    "mu_s of a path": (
        {"method": {"kind": "tract", "mu_s_path": [0.5, 1.0]}},
        "mu_s_path: every value must be in [0, 1), got 1.0",
    ),
    "lr of a path": ({"method": {"kind": "tract", "lr_path": [0.0]}}, "lr_path: every value must be positive, got 0.0"),
    "more parts than steps": (
        {"method": {"kind": "tract", "samples": 32, "batch": 16, "time_schedule": [8, 1], "mu_s_path": [0.5] * 5}},
        "samples: 2 optimiser steps are too few for a path of 5 parts",
    ),
    "an unknown weighting": (
        {"method": {"kind": "tract", "weighting": "trunc_snr"}},
        "weighting: unknown 'trunc_snr'; did",
    ),
    "an unknown decay": (
        {"method": {"kind": "tract", "lr_decay": "cosine"}},
        "lr_decay: unknown 'cosine' (choose from constant, linear)",
    ),
    "an unknown method": ({"method": {"kind": "trac"}}, "method.kind: unknown 'trac'; did you mean 'tract'?"),
    "no method for students": ({"method": {"kind": "denoising"}}, "method: denoising trains teachers"),
    "an unknown data set": ({"teacher": {"dataset": "cifar"}}, "dataset: unknown 'cifar'; did you mean 'cifar10'?"),
    "an unknown network": ({"student": {"name": "unet_8x9"}}, "network: unknown 'unet_8x9'; did you mean 'unet_8x8'?"),
    "an unknown option": ({"student": {"name": "unet_8x8", "options": {"chanels": 8}}}, "network options: unknown"),
    "unknown features": ({"evaluation": {"features": "inception"}}, "features: unknown 'inception'"),
    "too few samples": ({"evaluation": {"samples": 1}}, "evaluation samples: must be at least 2, got 1"),
}


@pytest.mark.parametrize(("changes", "message"), BAD.values(), ids=BAD)
def test_bad_settings(changes: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        from_dict(RunConfig, {**to_dict(tiny_run()), **changes})
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_a_batch_that_does_not_divide_among_the_workers(tmp_path: Path) -> None:
    """Refused before the teacher is trained; the teacher's own batch, too."""
    run, worker = tiny_run(), Worker(rank=0, world=3)
    with pytest.raises(InputError, match=r"^batch: 16 does not divide among 3 workers$"):
        run_distillation(run, paths_at(tmp_path), tmp_path / "run", worker=worker)
    divisible = replace(run, method=replace(run.method, batch=15, samples=900))
    with pytest.raises(InputError, match=r"^batch: 16 does not divide among 3 workers$"):
        run_distillation(divisible, paths_at(tmp_path), tmp_path / "run", worker=worker)
    assert list(tmp_path.rglob("*.safetensors")) == []


def test_a_student_for_other_images(paths: Paths, tmp_path: Path) -> None:
    """A teacher folder whose images are not the data set's."""
    folder = teacher_folder(tiny_run().teacher, paths)
    description = folder / "config.json"
    other = tmp_path / "teacher"
    other.mkdir()
    write_json(other / "config.json", {**read_json(description, "teacher"), "dataset": "digits16"})
    (other / "model.safetensors").write_bytes((folder / "model.safetensors").read_bytes())
    run = tiny_run(teacher=TeacherConfig(path=str(other)))
    with pytest.raises(InputError) as caught:
        run_distillation(run, paths, tmp_path / "run")
    assert str(caught.value).startswith("teacher: makes images of shape (1, 8, 8), but digits16 has (1, 16, 16)")
