"""What the authors' choices of a training step do on digits: each alone, and together (`science.py --part choices`).

Every arm says all that it is about, so that it stays what it is when a default changes.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from tract_ray.benchmarks.claims import Claim
from tract_ray.training import EvaluationConfig, RunConfig, TeacherConfig
from tract_ray.training.recipes import method_recipe

OURS: dict[str, Any] = {
    "loss_reduction": "mean",
    "keep_optimizer": False,
    "keep_averages": False,
    "student_init": "teacher",
    "clip_x0": "none",
    "boundary": "exact",
}
"""TRACT's defaults before they were compared with the authors'."""
KEPT: dict[str, Any] = {"keep_optimizer": True, "keep_averages": True, "student_init": "continue"}
CHOICES: dict[str, dict[str, Any]] = {
    "ours": {},
    "loss summed over pixels": {"loss_reduction": "sum"},
    "Adam's moments kept": {"keep_optimizer": True},
    "averages kept": {"keep_averages": True},
    "student goes on": {"student_init": "continue"},
    "these three": KEPT,
    "x0 clipped in targets": {"clip_x0": "all"},
    "loss summed, three kept": {"loss_reduction": "sum", **KEPT},
    "all, as the authors": {"loss_reduction": "sum", **KEPT, "clip_x0": "all", "boundary": "after"},
}


def choice_arms(
    teacher: TeacherConfig, seeds: Sequence[int], choices: Mapping[str, Mapping[str, Any]] = CHOICES
) -> dict[str, tuple[RunConfig, Sequence[int]]]:
    """TRACT 1024,32,1 with the small recipe's length, once for each choice."""
    return {
        name: (
            RunConfig(
                teacher=teacher,
                method=method_recipe("tract", "digits", **{**OURS, **choice}),
                evaluation=EvaluationConfig(samples=4000, per_phase=1),
            ),
            seeds,
        )
        for name, choice in choices.items()
    }


def choice_claims(mean_of: Mapping[str, float]) -> list[Claim]:
    """Each choice against ours; nothing is claimed, the seeds' scatter is in the table."""
    return [Claim(f"{name} / ours", mean_of[name] / mean_of["ours"]) for name in CHOICES if name != "ours"]
