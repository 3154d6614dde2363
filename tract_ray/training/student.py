"""The network that a run begins with."""

from __future__ import annotations

import copy

from torch import nn

from tract_ray.config import require, to_dict
from tract_ray.distillation import copy_shared_layers
from tract_ray.training.model import Model, load_model
from tract_ray.training.run_config import NetworkConfig, RunConfig, build_for


def initial_student(config: RunConfig, teacher: Model) -> tuple[NetworkConfig, nn.Module]:
    """The student's network as it starts: with the teacher's weights, with those of a model folder, or with its own."""
    inherits = config.student_from == "teacher"
    if inherits and config.student in (None, teacher.network):
        return teacher.network, copy.deepcopy(teacher.denoiser.module).requires_grad_(True)
    start = None if inherits or config.student_from == "random" else load_model(config.student_from, "student_from")
    network = config.student or (start.network if start else teacher.network)
    student: nn.Module = build_for(
        network, teacher.shape, teacher.denoiser.prediction, teacher.num_classes, seed=config.seed
    )
    if inherits:
        copy_shared_layers(teacher.denoiser.module, student)
    elif start:
        mismatch = _first_difference(start, teacher, network)
        require(not mismatch, "student_from", f"{config.student_from} does not suit this run: {mismatch}")
        student.load_state_dict(start.denoiser.module.state_dict())
    return network, student


def _first_difference(start: Model, teacher: Model, network: NetworkConfig) -> str:
    """What keeps a model from being the start of this teacher's student, "" if nothing does."""
    pairs = {
        "network": (to_dict(start.network), to_dict(network)),
        "image shape": (start.shape, teacher.shape),
        "classes": (start.num_classes, teacher.num_classes),
        "prediction": (start.denoiser.prediction, teacher.denoiser.prediction),
        "schedule": (start.denoiser.schedule, teacher.denoiser.schedule),
    }
    return next((f"its {name} is {own}, not {wanted}" for name, (own, wanted) in pairs.items() if own != wanted), "")
