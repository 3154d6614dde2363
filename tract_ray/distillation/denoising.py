"""The teacher's own training: denoising at random times (Salimans & Ho 2022, section 2; Ho et al. 2020)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

from torch import Tensor, nn

from tract_ray.config import choose, require
from tract_ray.diffusion import Denoiser, add_noise, build_schedule, loss_weight, predictions, schedules
from tract_ray.distillation.ema import EMA
from tract_ray.distillation.method import Batch, Method, MethodConfig, register, squared_error


@dataclass(frozen=True, kw_only=True)
class DenoisingConfig(MethodConfig):
    """How a teacher is trained: Adam, a bias-corrected average of the weights, BTD's weighting of the loss."""

    kind: ClassVar[str] = "denoising"
    schedule: str = "vp_cosine"
    prediction: str = "v"
    ema: float = 0.9999

    def __post_init__(self) -> None:
        super().__post_init__()
        choose("schedule", self.schedule, schedules)
        choose("prediction", self.prediction, predictions)
        require(0 <= self.ema < 1, "ema", f"must be in [0, 1), got {self.ema}")


@register
class Denoising(Method):
    """A network that learns `E[x_0 | x_t]` from data: what the other methods call the teacher."""

    kind = "denoising"
    paper = "Salimans & Ho 2022, arXiv 2202.00512"
    config_type = DenoisingConfig
    needs_teacher = False
    config: DenoisingConfig

    def __init__(self, config: DenoisingConfig, teacher: Denoiser | None, student: nn.Module) -> None:
        super().__init__(config, teacher, student)
        self.student = Denoiser(student, build_schedule(config.schedule), config.prediction)
        self.trained = {"student": self.student}
        self.average = EMA(student, config.ema)

    def loss(self, batch: Batch) -> Tensor:
        schedule = self.student.schedule
        t = schedule.training_times(batch.draws.uniform())
        x0 = batch.images.double()
        x_t = add_noise(schedule, x0, batch.draws.normal(x0.shape[1:]), t)
        return loss_weight(self.config.weighting, schedule, t) * squared_error(self.student(x_t, t, batch.labels), x0)

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
