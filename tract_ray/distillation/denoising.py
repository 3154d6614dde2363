"""The teacher's own training: denoising at random times (Salimans & Ho 2022, section 2; Ho et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from tract_ray.config import choose, require
from tract_ray.diffusion import NO_CLASS, Denoiser, add_noise, build_schedule, loss_weight, predictions, schedules
from tract_ray.distillation.ema import EMA
from tract_ray.distillation.method import Batch, Method, MethodConfig, register, squared_error


@dataclass(frozen=True, kw_only=True)
class DenoisingConfig(MethodConfig):
    """How a teacher is trained: Adam, a bias-corrected average of the weights, BTD's weighting of the loss.

    `label_dropout` is the share of samples whose class is hidden from the network, which classifier-free guidance
    needs (0.1 is common).
    """

    kind: ClassVar[str] = "denoising"
    schedule: str = "vp_cosine"
    prediction: str = "v"
    ema: float = 0.9999
    label_dropout: float = 0.0

    def __post_init__(self) -> None:
        super().__post_init__()
        choose("schedule", self.schedule, schedules)
        choose("prediction", self.prediction, predictions)
        require(0 <= self.ema < 1, "ema", f"must be in [0, 1), got {self.ema}")
        require(0 <= self.label_dropout < 1, "label_dropout", f"must be in [0, 1), got {self.label_dropout}")


@register
class Denoising(Method):
    """A network that learns `E[x_0 | x_t]` from data: what the other methods call the teacher."""

    kind = "denoising"
    paper = "Salimans & Ho 2022, arXiv 2202.00512"
    config_type = DenoisingConfig
    needs_teacher = False
    uses_dropout = True
    config: DenoisingConfig

    def __init__(self, config: DenoisingConfig, teacher: Denoiser | None, student: nn.Module) -> None:
        super().__init__(config, teacher, student)
        schedule = build_schedule(config.schedule)
        self.student = Denoiser(student, schedule, config.prediction, precision=config.precision)
        self.trained = {"student": self.student}
        self.average = EMA(student, config.ema)

    def loss(self, batch: Batch) -> Tensor:
        schedule = self.student.schedule
        t = schedule.training_times(batch.draws.uniform())
        x0 = batch.images.double()
        x_t = add_noise(schedule, x0, batch.draws.normal(x0.shape[1:]), t)
        error = squared_error(self.student(x_t, t, self._labels(batch)), x0)
        return loss_weight(self.config.weighting, schedule, t) * error

    def _labels(self, batch: Batch) -> Tensor | None:
        if batch.labels is None or self.config.label_dropout == 0:
            return batch.labels
        return torch.where(batch.draws.uniform() < self.config.label_dropout, NO_CLASS, batch.labels)

    def after_step(self, batch: Batch) -> None:
        self.average.update(self.student.module)

    def candidates(self) -> dict[float, nn.Module]:
        return {self.config.ema: self.average.network}

    def modules(self) -> dict[str, nn.Module]:
        return {"student": self.student.module, "average": self.average.network}

    def counters(self) -> dict[str, int]:
        return {"updates": self.average.updates}

    def restore_counters(self, counters: Mapping[str, int]) -> None:
        self.average.updates = counters["updates"]
