"""What a run would cost, foreseen from its configuration and a few timed calls of its real network."""

from __future__ import annotations

import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from tract_ray.data import dataset_info
from tract_ray.distillation import methods, phase_at
from tract_ray.networks import count_parameters
from tract_ray.training.paths import Paths
from tract_ray.training.run_config import RunConfig, build_for
from tract_ray.training.scoring import evaluation_marks
from tract_ray.training.teacher import find_teacher
from tract_ray.training.worker import Worker

PROBE = {"cpu": 2, "cuda": 64}  # images of the batch that is timed


@dataclass(frozen=True)
class Forecast:
    """`seconds_a_call` and `seconds_an_update` are for an image, on `device`, in float32 without compilation."""

    phases: tuple[dict[str, int], ...]
    images: int
    updates: int
    calls: float
    evaluation_calls: int
    parameters: int
    teacher: str
    device: str
    seconds_a_call: float
    seconds_an_update: float

    @property
    def training_hours(self) -> float:
        """Device-hours of training the student."""
        return (self.images * self.seconds_an_update + self.calls * self.seconds_a_call) / 3600

    @property
    def evaluation_hours(self) -> float:
        """Device-hours of making the images that are scored; not those of the extractor."""
        return self.evaluation_calls * self.seconds_a_call / 3600

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        hours = {"training_hours": self.training_hours, "evaluation_hours": self.evaluation_hours}
        return {**{k: list(v) if isinstance(v, tuple) else v for k, v in vars(self).items()}, **hours}

    def lines(self) -> list[str]:
        """For a person."""
        rows = [
            f"phase {number}: {p['teacher_steps']} -> {p['student_steps']} steps, {p['images']:,} images"
            for number, p in enumerate(self.phases, 1)
        ]
        return [
            *rows,
            f"{self.images:,} images in {self.updates:,} updates of {self.parameters:,} parameters; teacher "
            f"{self.teacher}",
            f"{self.calls:,.0f} further network calls, {self.evaluation_calls:,} to make the images that are scored",
            f"about {hours(self.training_hours)} of training and {hours(self.evaluation_hours)} of evaluation on a "
            f"{self.device} like this one, in float32: {1e3 * self.seconds_an_update:.3g} ms an image to learn from, "
            f"{1e3 * self.seconds_a_call:.3g} ms a call",
        ]


def hours(value: float) -> str:
    """`3.2 device-hours`."""
    return f"{value:.3g} device-hours" if value < 1000 else f"{value:,.0f} device-hours"


def forecast(run: RunConfig, paths: Paths, worker: Worker | None = None) -> Forecast:
    """Foresee `run`, from nothing (stages that another run has trained are not looked for); trains nothing."""
    worker, kind, config = worker or Worker(), methods[run.method.kind], run.method
    phases = config.phases()
    model = find_teacher(run.teacher, paths)
    teacher_network = model.network if model else run.teacher.network
    assert teacher_network is not None  # only a teacher in a folder has none, and that was found
    info = dataset_info((model.dataset if model else "") or run.teacher.dataset)
    shape = model.shape if model else info.shape
    classes = model.num_classes if model else (info.num_classes if run.teacher.conditional else 0)
    prediction = model.denoiser.prediction if model else run.teacher.training.prediction
    student = run.student or teacher_network
    network, device = build_for(student, shape, prediction, classes, seed=0).to(worker.device), worker.device
    call, update = timed_calls(network, shape, classes, device, PROBE.get(device.type, 16))
    images = [phase.steps * config.batch for phase in phases]
    marks = evaluation_marks(phases, run.evaluation.per_phase)
    scores = run.evaluation.on(info.name)
    scored = sum(
        phase_at(phases, mark - 1).student_steps
        * ((scores.samples or 0) if kind.keeps_best or mark == phases[-1].end else scores.rung_samples)
        for mark in marks
    )
    return Forecast(
        phases=tuple(
            {"teacher_steps": p.teacher_steps, "student_steps": p.student_steps, "images": count}
            for p, count in zip(phases, images, strict=True)
        ),
        images=sum(images),
        updates=phases[-1].end,
        calls=sum(kind.other_calls(config, p) * count for p, count in zip(phases, images, strict=True)),
        evaluation_calls=scored,
        parameters=count_parameters(network),
        teacher="found" if model else f"to be trained first, with {run.teacher.training.samples:,} images",
        device=torch.cuda.get_device_name(worker.device) if worker.device.type == "cuda" else "CPU",
        seconds_a_call=call,
        seconds_an_update=update,
    )


def timed_calls(
    network: nn.Module, shape: tuple[int, int, int], classes: int, device: torch.device, size: int
) -> tuple[float, float]:
    """Seconds an image of a forward call and of a training step, each the best of three, in batches of `size`."""
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
    return min(timed(False) for _ in range(3)), min(timed(True) for _ in range(3))
