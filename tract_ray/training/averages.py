"""Another average of a finished run: the student at any mu_i that its last phase carried."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from tract_ray.distillation import methods
from tract_ray.training.checkpoint import restore_method
from tract_ray.training.model import Model
from tract_ray.training.paths import Paths
from tract_ray.training.run_config import RunConfig
from tract_ray.training.stage_store import StageStore
from tract_ray.training.student import architectures, initial_student, student_model, students_by_phase
from tract_ray.training.teacher import find_teacher


def student_at(config: RunConfig, paths: Paths, mu: float, about: Mapping[str, Any]) -> Model | None:
    """The student of the finished run `config` at the average `mu`, from its last stage; None where that is gone."""
    if methods[config.method.kind].keeps_best:
        return None  # the last stage's are not those of the best evaluation
    teacher, store = find_teacher(config.teacher, paths), StageStore(paths)
    stage = store.stages_of(config)[-1]
    if teacher is None or not store.has(stage):
        return None
    network, start = initial_student(config, teacher)
    method = methods[config.method.kind](config.method, teacher.as_teacher(), start)
    networks = architectures(config, network)
    method.students = students_by_phase(config, teacher, networks)
    state, tensors = store.read(stage)
    restore_method(method, state, tensors)
    candidates = method.candidates()
    if mu not in candidates:
        return None
    return student_model(config, paths, teacher, method, networks)(candidates[mu], {"mu_i": mu, **about})
