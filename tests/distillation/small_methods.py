"""Every method at a size for tests: configurations, tiny networks, batches with known draws."""

from __future__ import annotations

import copy
from dataclasses import fields
from typing import Any

import torch
from torch import Tensor, nn

from tract_ray.benchmarks.scripted import perturbed as perturbed
from tract_ray.diffusion import Denoiser, KarrasVE, NoiseSchedule, build_schedule
from tract_ray.distillation import Batch, Draws, Method, MethodConfig, derive_seed, methods
from tract_ray.networks import build_network

torch.set_num_threads(1)

SMALL: dict[str, dict[str, Any]] = {
    "consistency": {"teacher_steps": 16},
    "moment_matching": {"sampling_steps": 4},
    "moment_matching_instant": {"sampling_steps": 4, "preconditioner_steps": 3},
    "progressive": {"start_steps": 8, "end_steps": 2},
    "regression": {"teacher_steps": 8, "pairs": 64},
    "tract": {"time_schedule": (16, 4, 1)},
    "tract_edm": {"time_schedule": (12, 4, 1)},
}
"""What makes a method small enough for a test. A method that is not named here is tested with its defaults."""

WIDTH = {"width": 32, "blocks": 1, "embedding": 16}


def small_config(kind: str, steps: int = 6, batch: int = 8, **changes: Any) -> MethodConfig:
    return methods[kind].config_type(
        **{"samples": steps * batch, "batch": batch, "lr": 1e-3, **SMALL.get(kind, {}), **changes}
    )


def other_settings(kind: str) -> dict[str, Any]:
    """Every setting of how steps are taken, away from its default; those that a method has."""
    changes = {
        "loss_reduction": "sum",
        "clip_norm": "none",
        "replace_nonfinite": True,
        "adam_betas": (0.8, 0.95),
        "adam_eps": 1e-6,
        "weight_decay": 0.1,
        "warmup": 2,
        "student_init": "continue",
        "keep_optimizer": True,
        "keep_averages": True,
        "clip_x0": "all",
        "boundary": "after",
        "mu_i": 0.75,
        "mu_i_last": 0.5,
    }
    own = {field.name for field in fields(methods[kind].config_type)}
    return {name: value for name, value in changes.items() if name in own}


def small_network(num_classes: int = 0, seed: int = 0, **options: Any) -> nn.Module:
    """A tiny perceptron whose output layers are not nearly zero, as they are when it is fresh."""
    network = build_network("mlp_8x8", num_classes=num_classes, options={**WIDTH, **options}, seed=seed)
    return perturbed(network, 0.1, seed)


def schedule_of(kind: str) -> NoiseSchedule:
    return KarrasVE() if kind == "tract_edm" else build_schedule("vp_cosine")


def view(kind: str, network: nn.Module) -> Denoiser:
    """The teacher's view that suits a method."""
    prediction = "edm" if kind == "tract_edm" else "v"
    return Denoiser(copy.deepcopy(network).eval().requires_grad_(False), schedule_of(kind), prediction)


def build(kind: str, config: MethodConfig, *, num_classes: int = 0, seed: int = 0, **student: Any) -> Method:
    """A method with a tiny teacher and a student that differs from it."""
    teacher = view(kind, small_network(num_classes, seed))
    return methods[kind](config, teacher, small_network(num_classes, seed + 1, **student))


def make_batch(images: Tensor, labels: Tensor | None = None, *, seed: int = 0, step: int = 0) -> Batch:
    return Batch(images, labels, Draws(derive_seed("test", seed), images.shape[0]), step)
