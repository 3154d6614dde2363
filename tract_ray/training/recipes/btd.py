"""Progressive distillation (Salimans & Ho 2022, arXiv 2202.00512) as google-research/diffusion_distillation runs it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tract_ray.distillation import ProgressiveConfig
from tract_ray.training.recipes.recipe import Recipe
from tract_ray.training.recipes.teachers import BTD_CIFAR10, BTD_IMAGENET64
from tract_ray.training.run_config import EvaluationConfig

UPDATES = (50_000, 100_000, 100_000)
SETTINGS: dict[str, Any] = {
    "start_steps": 8192,
    "end_steps": 1,
    "updates_per_phase": UPDATES,
    "batch": 128,
    "lr": 5e-5,
    "lr_decay": "linear",
    "mu_i": 0.0,
    "weighting": "truncated_snr",
    "loss_reduction": "mean",
    "clip_norm": 1.0,
}
SOURCES = {
    "start_steps": "config/cifar_distill.py",
    "end_steps": "config/cifar_distill.py",
    "updates_per_phase": "config: 50,000; paper, section 5.2: twice that for the last two [U]",
    "batch": "config/cifar_distill.py",
    "lr": "config/cifar_distill.py, without warm-up",
    "lr_decay": "config/cifar_distill.py: linear, to 0 in each phase",
    "mu_i": "config/cifar_distill.py: ema_decay 0",
    "weighting": "config/cifar_distill.py: snr_trunc",
    "loss_reduction": "dpm.py: mean over pixels",
    "clip_norm": "config/cifar_distill.py: 1",
    "student_init": "paper, algorithm 2: each phase starts from its teacher",
    "keep_optimizer": "model.py: each phase makes its optimiser",
    "network": "config/cifar_base.py, cifar_distill.py (dropout 0)",
}
NOTES = (
    "the authors clip on each device before gradients are averaged; here the average is clipped",
    "TRACT's own program of binary distillation (binary_distill.py) is another recipe, and cannot start",
)
MEASURED = "as TRACT's paper prints it: BTD's own, with TensorFlow's Inception and 50,000 images"

CIFAR10 = Recipe(
    name="btd-cifar10",
    what="BTD from 8,192 steps to one on CIFAR-10: 13 halvings",
    teacher=BTD_CIFAR10.teacher,
    method=ProgressiveConfig(**SETTINGS),
    evaluation=EvaluationConfig(
        features="inception_legacy_tensorflow", samples=50_000, rung_samples=5_000, per_phase=1, labels="random"
    ),
    published="FID 9.12 in 1 step, 4.51 in 2, 3.00 in 4, 2.57 in 8",
    measured_with=MEASURED,
    sources=SOURCES,
    notes=NOTES,
)
BTD = (
    CIFAR10,
    replace(
        CIFAR10,
        name="btd-imagenet64",
        what="BTD from 1,024 steps to one on ImageNet-64: 10 halvings",
        teacher=BTD_IMAGENET64.teacher,
        method=ProgressiveConfig(**{**SETTINGS, "start_steps": 1024, "batch": 2048, "lr": 1e-4}),
        published="FID 17.5 in 1 step",
        sources={name: text.replace("cifar", "imagenet64") for name, text in SOURCES.items()},
    ),
)
