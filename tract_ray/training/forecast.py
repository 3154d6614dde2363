"""What a run would cost, foreseen from its configuration and a few timed calls of its real networks."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch

from tract_ray.data import dataset_info
from tract_ray.distillation import methods, phase_at
from tract_ray.networks import count_parameters
from tract_ray.training.paths import Paths
from tract_ray.training.run_checks import check_features, check_steps
from tract_ray.training.run_config import NetworkConfig, RunConfig, build_for
from tract_ray.training.scoring import evaluation_marks
from tract_ray.training.student import architectures
from tract_ray.training.teacher import find_teacher
from tract_ray.training.worker import Worker

PROBE = {"cpu": 2, "cuda": 64}  # images of the batch that is timed
SMALL_PROBE = 16  # of images of up to 16 pixels a side, where a call takes microseconds


@dataclass(frozen=True)
class Forecast:
    """Hours are a device's, on `device`, in float32 without compilation; `parameters` are the last phase's student's.

    `training_hours` train the student, `evaluation_hours` make the images that are scored (without the extractor's),
    `teacher_hours` train the teacher, 0 where it was found.
    """

    phases: tuple[dict[str, int], ...]
    images: int
    updates: int
    calls: float
    evaluation_calls: int
    parameters: int
    teacher: str
    scored_with: str
    device: str
    training_hours: float
    evaluation_hours: float
    teacher_hours: float

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {k: list(v) if isinstance(v, tuple) else v for k, v in vars(self).items()}

    def lines(self) -> list[str]:
        """For a person."""
        rows = [
            f"phase {number}: {p['teacher_steps']} -> {p['student_steps']} steps, {p['images']:,} images, "
            f"{p['parameters']:,} parameters"
            for number, p in enumerate(self.phases, 1)
        ]
        taught = f"{hours(self.teacher_hours)} for the teacher, " if self.teacher_hours else ""
        return [
            *rows,
            f"{self.images:,} images in {self.updates:,} updates; teacher {self.teacher}",
            f"{self.calls:,.0f} further network calls, {self.evaluation_calls:,} to make the images that are scored",
            f"scored with {self.scored_with}",
            f"about {taught}{hours(self.training_hours)} of training and {hours(self.evaluation_hours)} of evaluation "
            f"on a {self.device} like this one, in float32",
        ]


def hours(value: float) -> str:
    """`3.2 device-hours`."""
    return f"{value:.3g} device-hours" if value < 1000 else f"{value:,.0f} device-hours"


def forecast(run: RunConfig, paths: Paths, worker: Worker | None = None) -> Forecast:
    """Foresee `run`, from nothing (stages that another run has trained are not looked for); trains nothing.

    Calls of a phase are counted as its teacher's, the larger network where the student is another.
    """
    worker, kind, config = worker or Worker(), methods[run.method.kind], run.method
    phases = config.phases()
    model = find_teacher(run.teacher, paths)
    if model is not None:
        check_steps(run, model)
    taught = model.network if model else run.teacher.network
    assert taught is not None  # only a teacher in a folder has none, and that was found
    info = dataset_info((model.dataset if model else "") or run.teacher.dataset)
    if info.num_classes <= 1:  # a person's own pictures; a recipe's data may be on another machine, as its weights
        check_features(run.evaluation.extractor(info.name), info.name)
    shape = model.shape if model else info.shape
    classes = model.num_classes if model else (info.num_classes if run.teacher.conditional else 0)
    prediction = model.denoiser.prediction if model else run.teacher.training.prediction
    students = architectures(run, run.first_student or taught)
    different = {repr(network): network for network in (taught, *students)}
    cost = {key: measure(own, shape, prediction, classes, worker.device) for key, own in different.items()}
    teachers = [cost[repr(network)] for network in (taught, *students)]  # by phase; the last teaches nobody
    learners = [cost[repr(network)] for network in students]
    images = [phase.steps * config.batch for phase in phases]
    calls = [kind.other_calls(config, p) * count for p, count in zip(phases, images, strict=True)]
    scores = run.evaluation.on(info.name)
    made = [0] * len(phases)
    for mark in evaluation_marks(phases, run.evaluation.per_phase):
        phase = phase_at(phases, mark - 1)
        whole = kind.keeps_best or mark == phases[-1].end
        made[phase.index] += phase.student_steps * ((scores.samples or 0) if whole else scores.rung_samples)
    training = sum(
        count * learner.update + called * teacher.call
        for count, learner, called, teacher in zip(images, learners, calls, teachers, strict=False)
    )
    untaught = 0 if model else run.teacher.training.samples
    return Forecast(
        phases=tuple(
            {
                "teacher_steps": p.teacher_steps,
                "student_steps": p.student_steps,
                "images": count,
                "parameters": learner.parameters,
            }
            for p, count, learner in zip(phases, images, learners, strict=True)
        ),
        images=sum(images),
        updates=phases[-1].end,
        calls=sum(calls),
        evaluation_calls=sum(made),
        parameters=learners[-1].parameters,
        teacher="found" if model else f"to be trained first, with {untaught:,} images",
        scored_with=f"{scores.features} on {scores.samples:,} images",
        device=torch.cuda.get_device_name(worker.device) if worker.device.type == "cuda" else "CPU",
        training_hours=training / 3600,
        evaluation_hours=sum(n * learner.call for n, learner in zip(made, learners, strict=True)) / 3600,
        teacher_hours=untaught * teachers[0].update / 3600,
    )


@dataclass(frozen=True)
class Cost:
    """Seconds an image of a forward call and of a training step of a network, and the number of its parameters."""

    call: float
    update: float
    parameters: int


def measure(
    config: NetworkConfig, shape: tuple[int, int, int], prediction: str, classes: int, device: torch.device
) -> Cost:
    """Time a network with weights at random, the better of two after a first step."""
    network = build_for(config, shape, prediction, classes, seed=0).to(device)
    size = SMALL_PROBE if max(shape[1:]) <= 16 and device.type == "cpu" else PROBE.get(device.type, 16)
    x, logsnr = torch.randn(size, *shape, device=device), torch.zeros(size, device=device)
    labels = torch.zeros(size, dtype=torch.int64, device=device) if classes else None

    def timed(train: bool) -> float:
        begun = time.perf_counter()
        with torch.set_grad_enabled(train):
            out = network(x, logsnr, labels)
            if train:
                out.square().mean().backward()
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        return (time.perf_counter() - begun) / size

    timed(True)
    call, update = (min(timed(train) for _ in range(2)) for train in (False, True))
    return Cost(call, update, count_parameters(network))
