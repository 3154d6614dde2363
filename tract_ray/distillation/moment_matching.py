"""Moment matching with an auxiliary denoiser (Salimans et al. 2024, arXiv 2406.04103, algorithm 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor, nn

from tract_ray.config import require
from tract_ray.diffusion import Denoiser, add_noise, ancestral_step, loss_weight
from tract_ray.distillation.base import Distillation, DistillationConfig, frozen_copy
from tract_ray.distillation.method import Batch, register, require_teacher, squared_error
from tract_ray.distillation.phases import MAX_STEPS, Phase


@dataclass(frozen=True, kw_only=True)
class MomentMatchingConfig(DistillationConfig):
    """A generator of `sampling_steps` ancestral steps; the optimiser and the lengths are the paper's.

    The learning rate rises over `warmup` optimiser steps (at most a tenth of the run) and falls to 0 at the end,
    whatever `lr_decay` says. Two settings are ours, chosen on digits: the even weight w(s), which trains visibly better
    there than a signal-to-noise ratio (largest where a generator of few steps has the least to learn), and `lr`.
    """

    kind: ClassVar[str] = "moment_matching"
    sampling_steps: int = 8
    warmup: int = 1000
    samples: int = 200_000 * 2048
    batch: int = 2048
    mu_i: float | None = 0.0
    adam_betas: tuple[float, ...] = (0.0, 0.99)
    adam_eps: float = 1e-12
    weighting: str = "uniform"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            1 <= self.sampling_steps <= MAX_STEPS,
            "sampling_steps",
            f"must be from 1 to {MAX_STEPS}, got {self.sampling_steps}",
        )

    def phases(self) -> tuple[Phase, ...]:
        """A single one."""
        return (Phase(0, 0, self.steps, self.sampling_steps, self.sampling_steps),)


class Generated(NamedTuple):
    """`x0` is the generator's `(b, C, H, W)`, with its gradient; `x_s` a state at times `s` drawn given x0, without."""

    x0: Tensor
    x_s: Tensor
    s: Tensor
    weight: Tensor  # (b,)


class GeneratorDistillation(Distillation):
    """What both ways of matching moments share: the generator, its samples, its optimiser and its sampler."""

    config: MomentMatchingConfig
    sampler = "ancestral"
    keeps_best = True

    @classmethod
    def check_teacher(cls, config: DistillationConfig, steps: int | None) -> None:
        every = f"{cls.kind} asks its teacher at every time, and this is a student of {steps} step(s)"
        require(steps is None, "teacher", every)

    @classmethod
    def effective(cls, config: DistillationConfig, phase: Phase) -> dict[str, Any]:
        own = super().effective(config, phase)
        del own["lr_decay"]
        return own | {"warmup": min(config.warmup, phase.steps // 10)}

    def generate(self, batch: Batch, student: Denoiser) -> Generated:
        """Noise the data to `t`, generate, and step back to `s < t` as the sampler would."""
        schedule, draws, shape = student.schedule, batch.draws, batch.images.shape[1:]
        u = draws.uniform()
        s = schedule.sampling_time(u)
        t = schedule.sampling_time((u + draws.uniform() / self.config.sampling_steps).clamp(max=1))
        x_t = add_noise(schedule, batch.images.double(), draws.normal(shape), t)
        x0 = student(x_t, t, batch.labels)
        x_s = ancestral_step(schedule, x_t, x0.detach(), draws.normal(shape), t, s)
        return Generated(x0, x_s, s, loss_weight(self.config.weighting, schedule, s))

    def learning_rate(self, step: int) -> float:
        warmup = min(self.config.warmup, self.phase.steps // 10)
        if step < warmup:
            return self.config.lr * (step + 1) / warmup
        return self.config.lr * (self.phase.steps - step) / (self.phase.steps - warmup)

    def sampling_times(self, steps: int) -> Tensor:
        return self.student.schedule.sampling_time(torch.arange(steps + 1, dtype=torch.float64) / steps)


@register
class MomentMatching(GeneratorDistillation):
    """A generator whose samples have the teacher's `E[x_0 | x_s]`, which an auxiliary denoiser estimates for it."""

    kind = "moment_matching"
    paper = "Salimans et al. 2024, arXiv 2406.04103"
    config_type = MomentMatchingConfig

    def __init__(self, config: MomentMatchingConfig, teacher: Denoiser | None, student: nn.Module) -> None:
        super().__init__(config, teacher, student)
        original = require_teacher(teacher, self.kind)
        self.auxiliary = self.teacher.view_of(frozen_copy(original.module).requires_grad_(True))
        self.trained = {"student": self.student, "auxiliary": self.auxiliary}

    @classmethod
    def other_calls(cls, config: Any, phase: Phase) -> float:
        """The teacher, and whichever of generator and auxiliary does not learn."""
        return cls.teacher_calls(config, phase, 1) + 1

    def active(self, step: int) -> str:
        return "student" if step % 2 else "auxiliary"

    def loss(self, batch: Batch) -> Tensor:
        if self.active(batch.step) == "auxiliary":
            return self.auxiliary_loss(batch)
        return self.generator_loss(batch)

    def auxiliary_loss(self, batch: Batch) -> Tensor:
        """The generated data's denoiser, kept near the teacher: both pull alike."""
        with torch.no_grad():
            made = self.generate(batch, self.student.view_of(self.student.module))
            taught = self.teacher(made.x_s, made.s, batch.labels)
        seen = self.auxiliary(made.x_s, made.s, batch.labels)
        return made.weight * (squared_error(made.x0, seen) + squared_error(taught, seen))

    def generator_loss(self, batch: Batch) -> Tensor:
        """`w(s) x0 . (E_auxiliary - E_teacher)`: its gradient moves the samples' expectation to the teacher's."""
        made = self.generate(batch, self.student)
        with torch.no_grad():
            taught = self.teacher(made.x_s, made.s, batch.labels)
            seen = self.auxiliary.view_of(self.auxiliary.module)(made.x_s, made.s, batch.labels)
        return made.weight * (made.x0 * (seen - taught)).flatten(1).mean(1)

    def after_step(self, batch: Batch) -> None:
        if self.active(batch.step) == "student":
            super().after_step(batch)

    def modules(self) -> dict[str, nn.Module]:
        return {**super().modules(), "auxiliary": self.auxiliary.module}
