"""Settings that work, by data set: the defaults of the command line and of the sweeps. Those of small data are ours."""

from __future__ import annotations

from dataclasses import fields, replace
from typing import Any

from tract_ray.config import choose
from tract_ray.data import dataset_info
from tract_ray.distillation import DenoisingConfig, MethodConfig, methods
from tract_ray.networks import presets
from tract_ray.training.run_config import NetworkConfig, TeacherConfig

SMALL_TEACHER = {"samples": 10_000 * 128, "batch": 128, "lr": 3e-3, "lr_decay": "linear", "ema": 0.998}
SMALL_STUDENT: dict[str, Any] = {"samples": 2000 * 64, "batch": 64, "lr": 1e-3}
SMALL_METHODS: dict[str, dict[str, Any]] = {
    "progressive": {"lr": 1e-3},
    "regression": {"pairs": 20_000, "teacher_steps": 32},
    "moment_matching": {"samples": 4000 * 64, "warmup": 200, "mu_i_bank": (0.99,)},
    "moment_matching_instant": {"samples": 1000 * 256, "batch": 256, "lr": 1e-4, "warmup": 100, "mu_i_bank": (0.99,)},
}
"""What a method changes of `SMALL_STUDENT`; measured on digits."""
PAPER_TEACHER: dict[str, Any] = {
    "samples": 800_000 * 128,
    "batch": 128,
    "lr": 2e-4,
    "ema": 0.9999,
    "warmup": 1000,
    "weight_decay": 1e-3,
}
"""BTD's teacher of CIFAR-10; its sources are in `teachers.py`."""


def is_small(dataset: str) -> bool:
    """Whether a data set is of the size that a laptop distils in a minute (at most 16 pixels a side)."""
    return dataset_info(dataset).shape[-1] <= 16


def teacher_recipe(
    dataset: str, network: str | None = None, *, conditional: bool = False, seed: int = 0, **changes: Any
) -> TeacherConfig:
    """The teacher of `dataset`; `changes` are settings of its training, None ones are left out."""
    name = network or dataset_info(dataset).network
    preset = presets[choose("network", name, presets)] if name else None
    settings: dict[str, Any] = {
        **(SMALL_TEACHER if is_small(dataset) else PAPER_TEACHER),
        "prediction": preset.prediction if preset else "v",
    }
    if settings["prediction"] == "edm":
        settings |= {"schedule": "ve_karras", "weighting": "edm"}
    settings |= {key: value for key, value in changes.items() if value is not None}
    return TeacherConfig(
        dataset=dataset,
        network=NetworkConfig(name=name) if name else None,
        conditional=conditional,
        training=DenoisingConfig(**settings),
        seed=seed,
    )


def method_recipe(kind: str, dataset: str, /, **changes: Any) -> MethodConfig:
    """The method `kind` with the settings that suit `dataset`; the papers' own beyond laptop size."""
    config_type = methods[choose("method", kind, methods)].config_type
    small = {**SMALL_STUDENT, **SMALL_METHODS.get(kind, {})}
    base = config_type(**small) if is_small(dataset) else config_type()
    given = {key: value for key, value in changes.items() if value is not None}
    for key in given:
        choose("method setting", key, [field.name for field in fields(base)])
    return replace(base, **given)
