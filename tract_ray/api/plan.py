"""From what a call says to the run that it means, with a recipe or with the data set's own settings."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from tract_ray import training
from tract_ray.api.model import Model
from tract_ray.config import InputError, parse_count, require
from tract_ray.distillation import parse_time_schedule
from tract_ray.training import EvaluationConfig, NetworkConfig, RunConfig, TeacherConfig
from tract_ray.training.default_method import default_method
from tract_ray.training.paths import absolute, absolute_dataset
from tract_ray.training.recipes import Recipe, find_recipe, method_recipe, teacher_recipe


def planned(
    dataset: str | None,
    *,
    recipe: str | Path | None = None,
    method: str | None = None,
    teacher: str | Path | Model | None = None,
    teacher_samples: int | str | None = None,
    network: str | None = None,
    student: str | None = None,
    students: str | Sequence[str | None] = (),
    student_from: str | Path = "teacher",
    time_schedule: str | Sequence[int] | None = None,
    samples: int | str | None = None,
    batch: int | None = None,
    lr: float | None = None,
    evaluation_samples: int | None = None,
    rung_samples: int | None = None,
    features: str | None = None,
    seed: int = 0,
    settings: Mapping[str, Any] | None = None,
) -> RunConfig:
    """The run that the arguments of `distill` mean."""
    chosen = find_recipe(recipe) if recipe else None
    count = parse_count("teacher-samples", teacher_samples) if teacher_samples else None
    taught = _teacher(teacher, dataset, network, count, chosen)
    start = str(student_from)
    about: dict[str, Any] = {
        "student": NetworkConfig(name=student) if student else None,
        "students": _students(students),
        "student_from": start if start in ("teacher", "random") else absolute(start),
        "seed": seed,
    }
    changes: dict[str, Any] = {
        "time_schedule": parse_time_schedule(time_schedule) if time_schedule else None,
        "samples": parse_count("samples", samples) if samples else None,
        "batch": batch,
        "lr": lr,
        **{name: tuple(value) if isinstance(value, list) else value for name, value in (settings or {}).items()},
    }
    asked = {"samples": evaluation_samples, "rung_samples": rung_samples, "features": features or None}
    scoring: dict[str, Any] = {name: value for name, value in asked.items() if value is not None}
    if chosen is None:
        own = method_recipe(method or default_method(taught), taught.dataset, **changes)
        return RunConfig(teacher=taught, method=own, evaluation=EvaluationConfig(**scoring), **about)
    kind = chosen.method.kind
    require(method in (None, kind), "method", f"{method} is not that of the recipe {chosen.name}, {kind}")
    scores = replace(chosen.evaluation_on(taught.dataset, network), **scoring)
    return chosen.run(taught, changes, network, evaluation=scores, **about)


def _teacher(
    given: str | Path | Model | None,
    dataset: str | None,
    network: str | None,
    samples: int | None,
    recipe: Recipe | None,
) -> TeacherConfig:
    """The teacher that was named, with its own data; else that of the recipe or of the data set."""
    if isinstance(given, Model):
        if given.folder is None:
            raise InputError("teacher: this model lies in no folder; save it and name that")
        given = given.folder
    named = absolute_dataset(dataset) if dataset else None
    if given:
        model = training.load_model(given, "teacher")
        if recipe:
            recipe.check_shape("the teacher", model.shape, network)
        return TeacherConfig(dataset=model.trained_on(named) or "digits", path=absolute(given))
    if recipe:
        return recipe.teacher_on(named, network, samples=samples)
    return teacher_recipe(named or "digits", network, samples=samples)


def _students(given: str | Sequence[str | None]) -> tuple[NetworkConfig | None, ...]:
    """A preset for each phase; None where it keeps that of the phase before."""
    names = [name.strip() for name in given.split(",")] if isinstance(given, str) else given
    return tuple(NetworkConfig(name=name) if name not in (None, "-") else None for name in names)
