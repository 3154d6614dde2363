"""Consistency distillation (Song et al. 2023, arXiv 2303.01469, algorithm 2), with the squared error."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tract_ray.config import choose, require
from tract_ray.diffusion import Denoiser, add_noise
from tract_ray.distillation.bank import AverageBank
from tract_ray.distillation.base import Distillation, DistillationConfig
from tract_ray.distillation.ema import EMA
from tract_ray.distillation.method import Batch, register
from tract_ray.distillation.phases import MAX_STEPS, Phase
from tract_ray.distillation.solver import require_solver, solver_step


@dataclass(frozen=True, kw_only=True)
class ConsistencyConfig(DistillationConfig):
    """One phase from the teacher's `teacher_steps` to one step; `mu_s` is the target network's average."""

    kind: ClassVar[str] = "consistency"
    teacher_steps: int = 1024
    mu_s: float = 0.5
    solver: str = "ddim"
    weighting: str = "uniform"

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            2 <= self.teacher_steps <= MAX_STEPS,
            "teacher_steps",
            f"must be from 2 to {MAX_STEPS}, got {self.teacher_steps}",
        )
        require(0 <= self.mu_s < 1, "mu_s", f"must be in [0, 1), got {self.mu_s}")
        choose("solver", self.solver, ("ddim", "heun"))

    def phases(self) -> tuple[Phase, ...]:
        """A single one."""
        return (Phase(0, 0, self.steps, self.teacher_steps, 1),)


@register
class Consistency(Distillation):
    """A student whose x0 is the same all along a trajectory of the teacher.

    It is TRACT in one phase but for the error's weight: the self-teacher's jump to the clean end, inverted, is its x0.
    """

    kind = "consistency"
    paper = "Song et al. 2023, arXiv 2303.01469"
    config_type = ConsistencyConfig
    config: ConsistencyConfig

    def __init__(self, config: ConsistencyConfig, teacher: Denoiser | None, student: nn.Module) -> None:
        super().__init__(config, teacher, student)
        require_solver(config.solver, self.teacher, self.kind)
        self.self_teacher = EMA(student, config.mu_s)

    @classmethod
    def other_calls(cls, config: Any, phase: Phase) -> float:
        return cls.teacher_calls(config, phase, 3 if config.solver == "heun" else 2) + 1

    def set_phase(self, phase: Phase) -> None:
        super().set_phase(phase)
        self.self_teacher.reset(self.student.module)

    def averages(self) -> dict[str, EMA]:
        return {"self_teacher": self.self_teacher, **super().averages()}

    def followers(self) -> list[EMA | AverageBank]:
        return [self.self_teacher, *super().followers()]

    def loss(self, batch: Batch) -> Tensor:
        step = 1 + batch.draws.integers(self.phase.teacher_steps)
        t, before = self.nodes(step), self.nodes(step - 1)
        noise = batch.draws.normal(batch.images.shape[1:])
        x_t = add_noise(self.student.schedule, batch.images.double(), noise, t)
        with torch.no_grad():
            target = self.target(x_t, t, before, batch.labels)
        return self.regression_loss(x_t, t, target, batch.labels)

    def target(self, x_t: Tensor, t: Tensor, before: Tensor, labels: Tensor | None) -> Tensor:
        """The target network's x0 one teacher step on; the teacher's own x0 on the first interval."""
        solver = "ddim" if self.taught_by_student else self.config.solver
        x_before = solver_step(solver, self.teacher, x_t, t, before, labels)
        clean = before == self.times[0].to(t.device)
        own = self.student.view_of(self.self_teacher.network)
        x0 = own(x_before, torch.where(clean, t, before), labels)
        return torch.where(clean[:, None, None, None], self.teacher(x_t, t, labels), x0)
