"""TRACT: transitive closure time-distillation (Berthelot et al. 2023, arXiv 2303.04248, algorithm 1)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor, nn

from tract_ray.config import require
from tract_ray.diffusion import Denoiser, add_noise, ddim_step, invert_ddim_step, loss_weight
from tract_ray.distillation.ema import EMA, EMABank, heuristic_mu
from tract_ray.distillation.method import Batch, Method, MethodConfig, register, require_teacher, squared_error
from tract_ray.distillation.phases import Phase, lay_out_phases, parse_time_schedule


@dataclass(frozen=True, kw_only=True)
class TractConfig(MethodConfig):
    """TRACT's settings; defaults are the paper's for CIFAR-10.

    `mu_s` is the self-teacher's average, `mu_i` the inference average, which also becomes the next phase's teacher;
    None takes the heuristic `mu_i_residual^(1/N)`, N the optimiser steps of the phase. `mu_i_bank` lists further
    averages that the last phase carries and every evaluation scores.
    """

    kind: ClassVar[str] = "tract"
    time_schedule: tuple[int, ...] = (1024, 32, 1)
    phase_shares: tuple[float, ...] = ()
    mu_s: float = 0.5
    mu_i: float | None = None
    mu_i_residual: float = 1e-3
    mu_i_bank: tuple[float, ...] = ()
    student_init: str = "teacher"  # at every phase; or "continue": only the teacher changes, as in the authors' code
    clip_x0: bool = False  # in training targets, as the authors do; sampling always clips

    def __post_init__(self) -> None:
        super().__post_init__()
        object.__setattr__(self, "time_schedule", parse_time_schedule(self.time_schedule))
        for name in ("mu_s", "mu_i"):
            mu = getattr(self, name)
            require(mu is None or 0 <= mu < 1, name, f"must be in [0, 1), got {mu}")
        for mu in self.mu_i_bank:
            require(0 <= mu < 1, "mu_i_bank", f"every value must be in [0, 1), got {mu}")
        require(0 < self.mu_i_residual < 1, "mu_i_residual", f"must be in (0, 1), got {self.mu_i_residual}")
        require(self.student_init in ("teacher", "continue"), "student_init", f"got {self.student_init!r}")
        lay_out_phases(self.time_schedule, self.steps, self.phase_shares)

    def phases(self) -> tuple[Phase, ...]:
        """The phases this configuration lays out."""
        return lay_out_phases(self.time_schedule, self.steps, self.phase_shares)

    def inference_mu(self, phase: Phase) -> float:
        """mu_i of `phase`: the given value, or the heuristic."""
        return self.mu_i if self.mu_i is not None else heuristic_mu(self.mu_i_residual, phase.steps)


@register
class Tract(Method):
    """A student that jumps to the start of its group, taught by one teacher step and then by itself."""

    kind = "tract"
    paper = "Berthelot et al. 2023, arXiv 2303.04248"
    config_type = TractConfig
    config: TractConfig

    def __init__(self, config: TractConfig, teacher: Denoiser | None, student: nn.Module) -> None:
        super().__init__(config, teacher, student)
        self.teacher = require_teacher(teacher, self.kind)
        self.student = self.teacher.view_of(student)
        self.trained = {"student": self.student}
        self.times = self.teacher.schedule.nodes(config.time_schedule[0])
        self.self_teacher = EMA(student, config.mu_s)
        self.inference = EMABank(student, [config.inference_mu(self.phases[0])])

    def start_phase(self, phase: Phase) -> None:
        if phase.index > 0:
            source = self.inference[self.config.inference_mu(self.phases[phase.index - 1])].network
            self.teacher.network.load_state_dict(source.state_dict())
            if self.config.student_init == "teacher":
                self.student.module.load_state_dict(source.state_dict())
        self.set_phase(phase)

    def set_phase(self, phase: Phase) -> None:
        last = phase.index == len(self.phases) - 1
        mus = [self.config.inference_mu(phase), *(self.config.mu_i_bank if last else ())]
        self.phase = phase
        self.inference = EMABank(self.student.module, mus)
        self.self_teacher.reset(self.student.module)

    def loss(self, batch: Batch) -> Tensor:
        t, before, start = self._draw_times(batch)
        schedule, clip = self.student.schedule, self.config.clip_x0
        x_t = add_noise(schedule, batch.images.double(), batch.draws.normal(batch.images.shape[1:]), t)
        with torch.no_grad():
            target = self.target(x_t, t, before, start, batch.labels, clip=clip)
        error = squared_error(self.student(x_t, t, batch.labels), target)
        return loss_weight(self.config.weighting, schedule, t) * error

    def target(
        self, x_t: Tensor, t: Tensor, before: Tensor, start: Tensor, labels: Tensor | None, *, clip: bool
    ) -> Tensor:
        """The x0 of a perfect student at `x_t`: a teacher step, the self-teacher's jump, and the inverse (eq. 5-6)."""
        schedule = self.student.schedule

        def bounded(x0: Tensor) -> Tensor:
            return x0.clamp(-1, 1) if clip else x0

        x_before = ddim_step(schedule, x_t, bounded(self.teacher(x_t, t, labels)), t, before)
        # Where the group ends here (before == start), the jump is the identity; its value is not used.
        own = self.student.view_of(self.self_teacher.network)
        safe = torch.where(before == start, t, before)
        x_start = ddim_step(schedule, x_before, bounded(own(x_before, safe, labels)), safe, start)
        x_start = torch.where((before == start)[:, None, None, None], x_before, x_start)
        return invert_ddim_step(schedule, x_t, x_start, t, start)

    def _draw_times(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """A random step of a random group: the times t, t - 1 and t_i of each sample."""
        stride = self.config.time_schedule[0] // self.phase.teacher_steps
        group = batch.draws.integers(self.phase.student_steps) * self.phase.group
        step = group + 1 + batch.draws.integers(self.phase.group)
        times = self.times.to(step.device)
        return times[step * stride], times[(step - 1) * stride], times[group * stride]

    def after_step(self, batch: Batch) -> None:
        self.self_teacher.update(self.student.module)
        self.inference.update(self.student.module)

    def candidates(self) -> dict[float, nn.Module]:
        own = self.config.inference_mu(self.phase)
        others = [mu for mu in self.inference.members if mu != own]
        return {mu: self.inference[mu].network for mu in (own, *others)}

    def sampling_times(self, steps: int) -> Tensor:
        return self.times[:: self.config.time_schedule[0] // steps]

    def modules(self) -> dict[str, nn.Module]:
        averages = {f"inference.{mu:.10f}": member.network for mu, member in self.inference.members.items()}
        return {
            "teacher": self.teacher.network,
            "student": self.student.module,
            "self_teacher": self.self_teacher.network,
            **averages,
        }

    def counters(self) -> dict[str, int]:
        return {"updates": self.self_teacher.updates}

    def restore_counters(self, counters: Mapping[str, int]) -> None:
        for member in (self.self_teacher, *self.inference.members.values()):
            member.updates = counters["updates"]
