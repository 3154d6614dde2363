"""Runs of a second, for the tests of the loop."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock

from tract_ray.distillation import DenoisingConfig, TractConfig
from tract_ray.files import read_json
from tract_ray.training import EvaluationConfig, NetworkConfig, Paths, RunConfig, TeacherConfig
from tract_ray.training.checkpoint_writer import CheckpointWriter
from tract_ray.training.record import read_lines


class Killed(BaseException):
    """Not an `Exception`: nothing in the package may catch it."""


def tiny_run(**changes: Any) -> RunConfig:
    """Two phases of 30 steps, 16 images each, scored twice in each; a bank of two in the second."""
    teacher = TeacherConfig(
        network=NetworkConfig(name="mlp_8x8", options={"width": 16, "blocks": 1, "embedding": 16}),
        training=DenoisingConfig(samples=20 * 16, batch=16, lr=1e-3, ema=0.9),
    )
    method = TractConfig(samples=60 * 16, batch=16, lr=1e-3, time_schedule=(8, 2, 1), mu_i_bank=(0.5,))
    run = RunConfig(teacher=teacher, method=method, evaluation=EvaluationConfig(samples=80, rung_samples=70), seed=5)
    return replace(run, **changes)


def paths_at(folder: Path) -> Paths:
    return Paths(folder / "runs", folder / "cache")


def without_stages(paths: Paths, folder: Path) -> Paths:
    """Paths at `folder` whose cache shares the teachers of `paths`, and nothing else."""
    own = paths_at(folder)
    own.cache.mkdir(parents=True)
    (own.cache / "teachers").symlink_to(paths.cache / "teachers")
    return own


def content_of(folder: Path) -> dict[str, Any]:
    """All of a finished run that must not depend on how often it was interrupted."""
    lines = read_lines(folder)
    for line in lines:
        del line["time"]
        line.get("metrics", {}).pop("images_per_second", None)
    result = read_json(folder / "result.json", "result")
    pictures = {file.name: file.read_bytes() for file in (folder / "images").iterdir()}
    return {
        "weights": (folder / "student" / "model.safetensors").read_bytes(),
        "record": lines,
        "result": {
            k: v for k, v in result.items() if k not in ("seconds", "device_seconds", "seconds_per_image", "student")
        },
        "pictures": pictures,
    }


def checkpoint_every_step() -> AbstractContextManager[Any]:
    """While it is open every step is on disk before the next begins, whatever writing costs."""
    save = CheckpointWriter.save

    def save_now(self: CheckpointWriter, *state: Any) -> None:
        save(self, *state)
        self.wait()

    return mock.patch.multiple(CheckpointWriter, due=lambda self: self.enabled, save=save_now)
