"""The network that a run begins with, and the model that it makes."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from typing import Any

from torch import nn

from tract_ray.config import require, to_dict
from tract_ray.distillation import Method, copy_shared_layers
from tract_ray.training.keys import network_content, teacher_folder
from tract_ray.training.model import Model, load_model
from tract_ray.training.paths import Paths
from tract_ray.training.run_config import NetworkConfig, RunConfig, build_for


def initial_student(config: RunConfig, teacher: Model) -> tuple[NetworkConfig, nn.Module]:
    """The student's network as it starts: with the teacher's weights, with those of a model folder, or with its own."""
    inherits = config.student_from == "teacher"
    named = config.first_student
    if inherits and named in (None, teacher.network):
        return teacher.network, copy.deepcopy(teacher.denoiser.module).requires_grad_(True)
    start = None if inherits or config.student_from == "random" else load_model(config.student_from, "student_from")
    network = named or (start.network if start else teacher.network)
    student = build_for(network, teacher.shape, teacher.denoiser.prediction, teacher.num_classes, seed=config.seed)
    if inherits:
        copy_shared_layers(teacher.denoiser.module, student)
    elif start:
        mismatch = _first_difference(start, teacher, network)
        require(not mismatch, "student_from", f"{config.student_from} does not suit this run: {mismatch}")
        student.load_state_dict(start.denoiser.module.state_dict())
    return network, student


def architectures(config: RunConfig, first: NetworkConfig) -> tuple[NetworkConfig, ...]:
    """The student's network in each phase, `first` in the first."""
    found = [first]
    for named in config.students[1:] or (None,) * (len(config.method.phases()) - 1):
        found.append(named or found[-1])
    return tuple(found)


def students_by_phase(
    config: RunConfig, teacher: Model, networks: Sequence[NetworkConfig]
) -> dict[int, Callable[[nn.Module | None], nn.Module]]:
    """What builds the student of each phase that begins with another of `networks` than the one before it."""

    def builder(network: NetworkConfig) -> Callable[[nn.Module | None], nn.Module]:
        def build(source: nn.Module | None) -> nn.Module:
            prediction, classes = teacher.denoiser.prediction, teacher.num_classes
            student = build_for(network, teacher.shape, prediction, classes, seed=config.seed)
            if source is not None and config.student_from != "random":
                copy_shared_layers(source, student)
            return student

        return build

    content = [network_content(network) for network in networks]
    changed = [k for k, own in enumerate(content) if k == 0 or own != content[k - 1]]
    return {k: builder(networks[k]) for k in changed}


def student_model(
    config: RunConfig, paths: Paths, teacher: Model, method: Method, networks: Sequence[NetworkConfig]
) -> Callable[[nn.Module, dict[str, Any]], Model]:
    """What makes a model of one of the method's candidates, to be sampled as the phase it is then in would be.

    It is called with the candidate's network, and with what to say `about` it.
    """
    origin = {"config": to_dict(config), "teacher": str(teacher_folder(config.teacher, paths))}

    def make(candidate: nn.Module, about: dict[str, Any]) -> Model:
        steps = method.phase.student_steps
        return Model(
            denoiser=method.trained["student"].view_of(candidate, "float32"),
            network=networks[method.phase.index],
            shape=teacher.shape,
            steps=steps,
            num_classes=teacher.num_classes,
            times=method.sampling_times(steps).tolist(),
            sampler=method.sampler,
            dataset=teacher.dataset or config.teacher.dataset,
            about={**origin, **about},
        )

    return make


def _first_difference(start: Model, teacher: Model, network: NetworkConfig) -> str:
    """What keeps a model from being the start of this teacher's student, "" if nothing does."""
    pairs = {
        "network": (network_content(start.network), network_content(network)),
        "image shape": (start.shape, teacher.shape),
        "classes": (start.num_classes, teacher.num_classes),
        "prediction": (start.denoiser.prediction, teacher.denoiser.prediction),
        "schedule": (start.denoiser.schedule, teacher.denoiser.schedule),
    }
    return next((f"its {name} is {own}, not {wanted}" for name, (own, wanted) in pairs.items() if own != wanted), "")
