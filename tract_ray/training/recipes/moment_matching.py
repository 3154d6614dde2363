"""Moment matching (Salimans et al. 2024, arXiv 2406.04103). The authors' program is not public."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from tract_ray.distillation import InstantMomentMatchingConfig, MomentMatchingConfig
from tract_ray.training.recipes.recipe import Recipe
from tract_ray.training.recipes.teachers import BTD_IMAGENET64
from tract_ray.training.run_config import EvaluationConfig

SETTINGS: dict[str, Any] = {
    "sampling_steps": 8,
    "samples": 200_000 * 2048,
    "batch": 2048,
    "lr": 1e-4,
    "warmup": 1000,
    "clip_norm": 1.0,
    "adam_betas": (0.0, 0.99),
    "adam_eps": 1e-12,
    "mu_i": 0.0,
    "weighting": "truncated_snr",
}
SOURCES = {
    "sampling_steps": "paper, table 1: 1 to 8; the best has 8",
    "samples": "paper: at most 200,000 updates of 2,048",
    "batch": "paper: 2,048",
    "lr": "not known to us; ours [U]",
    "warmup": "paper: 1,000 updates, then linearly to 0",
    "clip_norm": "paper: 1",
    "adam_betas": "paper: 0 and 0.99",
    "adam_eps": "paper: 1e-12",
    "mu_i": "paper: no average [U]",
    "weighting": "the paper's w(s) is not known to us; the teacher's own weight here [U]. Ours for digits is even",
    "network": "the paper's teacher is another network of ImageNet-64; BTD's here",
}
EVALUATION = EvaluationConfig(features="inception_legacy_tensorflow", samples=50_000, per_phase=40, labels="random")
ALTERNATING = Recipe(
    name="moment-matching-imagenet64",
    what="moment matching with an auxiliary denoiser on ImageNet-64, 8 steps",
    teacher=BTD_IMAGENET64.teacher,
    method=MomentMatchingConfig(**SETTINGS),
    evaluation=EVALUATION,
    published="FID 3.00 in 1 step, 1.24 in 8 [U]; the best of evaluations every 5,000 updates",
    measured_with="50,000 images, data and seeds fixed; the extractor is not known to us, EDM's here",
    sources=SOURCES,
    notes=("the best evaluation's network is the result, as in the paper",),
)
MOMENT_MATCHING = (
    ALTERNATING,
    replace(
        ALTERNATING,
        name="moment-matching-instant-imagenet64",
        what="moment matching in the teacher's parameters on ImageNet-64, 8 steps",
        method=InstantMomentMatchingConfig(**SETTINGS),
        published="",
        sources={**SOURCES, "samples": "as the alternating one [U]"},
    ),
)
