"""TRACT: transitive closure time-distillation (Berthelot et al. 2023, arXiv 2303.04248, algorithm 1)."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tract_ray.config import choose, require
from tract_ray.diffusion import Denoiser, add_noise, invert_ddim_step
from tract_ray.distillation.bank import AverageBank
from tract_ray.distillation.base import Distillation, DistillationConfig
from tract_ray.distillation.ema import EMA
from tract_ray.distillation.method import Batch, register
from tract_ray.distillation.phases import Phase, lay_out_phases, parse_time_schedule
from tract_ray.distillation.solver import require_solver, solver_step


@dataclass(frozen=True, kw_only=True)
class TractConfig(DistillationConfig):
    """TRACT's settings; lengths, rate and averages are the paper's for CIFAR-10. `mu_s` is the self-teacher's average.

    How the authors' program takes a step is in the recipe `tract-cifar10`; the defaults here are ours, for small data.
    `clip_x0` bounds the x0 behind the steps that make a target to [-1, 1]: "all" of them in the authors' code for VP
    teachers, the "self_teacher"'s alone in that for EDM teachers, "none" in the paper. Sampling always clips.
    `boundary` "exact" changes phase where the schedule says; "after" one step later, as the authors' program does: its
    `progress (1 - 1e-9)` counts the step at the boundary to the phase before, and mu_i keeps to phases of equal length.
    `lr_path` and `mu_s_path` give a value for each of equal parts of the run, in place of `lr` and `mu_s`: what
    population-based training finds (`search/population.py`).
    """

    kind: ClassVar[str] = "tract"
    time_schedule: tuple[int, ...] = (1024, 32, 1)
    phase_shares: tuple[float, ...] = ()
    mu_s: float = 0.5
    lr_path: tuple[float, ...] = ()
    mu_s_path: tuple[float, ...] = ()
    clip_x0: str = "none"
    boundary: str = "exact"
    solver: str = "ddim"  # a many-step teacher's step; students, as later teachers are, only ever take DDIM steps

    def __post_init__(self) -> None:
        object.__setattr__(self, "time_schedule", parse_time_schedule(self.time_schedule))
        super().__post_init__()
        require(0 <= self.mu_s < 1, "mu_s", f"must be in [0, 1), got {self.mu_s}")
        for mu in self.mu_s_path:
            require(0 <= mu < 1, "mu_s_path", f"every value must be in [0, 1), got {mu}")
        for lr in self.lr_path:
            require(lr > 0, "lr_path", f"every value must be positive, got {lr}")
        lengths = {len(path) for path in (self.lr_path, self.mu_s_path) if path}
        require(len(lengths) <= 1, "lr_path", "must have as many values as mu_s_path")
        parts = max(lengths, default=0)
        require(self.steps >= parts, "samples", f"{self.steps} optimiser steps are too few for a path of {parts} parts")
        choose("clip_x0", self.clip_x0, ("none", "self_teacher", "all"))
        choose("boundary", self.boundary, ("exact", "after"))
        choose("solver", self.solver, ("ddim", "heun"))
        late = self.boundary == "after"
        require(not (late and self.phase_shares), "boundary", "after is for phases of equal length, not phase_shares")
        self.phases()
        self.check_averages()

    def phases(self) -> tuple[Phase, ...]:
        """The phases this configuration lays out."""
        shares, count = self.phase_shares, len(self.time_schedule) - 1
        if self.boundary == "after":
            ends = [*(k * self.steps // count + 1 for k in range(1, count)), self.steps]
            shares = tuple(end - begin for begin, end in pairwise([0, *ends]))
            few = f"{self.steps} optimiser steps are too few for {count} phases with boundary=after"
            require(min(shares) > 0, "samples", few)
        return lay_out_phases(self.time_schedule, self.steps, shares)

    def updates_of(self, phase: Phase) -> float:
        return self.steps / (len(self.time_schedule) - 1) if self.boundary == "after" else phase.steps

    def part_ends(self) -> tuple[int, ...]:
        """Optimiser steps at which the parts of the paths end; none without paths."""
        parts = max(len(self.lr_path), len(self.mu_s_path))
        return tuple(round(self.steps * (k + 1) / parts) for k in range(parts))

    def at(self, step: int) -> tuple[float, float]:
        """Learning rate (before its decay) and mu_s of optimiser step `step` of the run."""
        part = sum(step >= end for end in self.part_ends())
        lr = self.lr_path[part] if self.lr_path else self.lr
        mu_s = self.mu_s_path[part] if self.mu_s_path else self.mu_s
        return lr, mu_s


@register
class Tract(Distillation):
    """A student that jumps to the start of its group, taught by one teacher step and then by itself."""

    kind = "tract"
    paper = "Berthelot et al. 2023, arXiv 2303.04248"
    config_type = TractConfig
    config: TractConfig
    layout = ("phase_shares", "time_schedule", "boundary")

    def __init__(self, config: TractConfig, teacher: Denoiser | None, student: nn.Module) -> None:
        super().__init__(config, teacher, student)
        require_solver(config.solver, self.teacher, self.kind)
        self.self_teacher = EMA(student, config.mu_s)

    @classmethod
    def determines(cls, config: DistillationConfig, phase: Phase, start: int, end: int) -> dict[str, Any]:
        assert isinstance(config, TractConfig)
        content = super().determines(config, phase, start, end)
        own = {k: v for k, v in content["method"].items() if k not in ("lr", "mu_s", "lr_path", "mu_s_path")}
        lr, mu_s = config.at(start)
        return {
            **content,
            "method": own | {"kind": Tract.kind, "lr": lr, "mu_s": mu_s},
        }  # the EDM variant is Tract, too

    @classmethod
    def other_calls(cls, config: Any, phase: Phase) -> float:
        heun = config.solver == "heun" and phase.index == 0
        return cls.teacher_calls(config, phase, 2 if heun else 1) + 1

    def set_phase(self, phase: Phase) -> None:
        super().set_phase(phase)
        self.self_teacher = EMA(self.student.module, self.config.mu_s)

    def learning_rate(self, step: int) -> float:
        lr, _ = self.config.at(self.phase.start + step)
        return lr * self.decay(step)

    def after_step(self, batch: Batch) -> None:
        _, self.self_teacher.mu = self.config.at(self.phase.start + batch.step)
        super().after_step(batch)

    def averages(self) -> dict[str, EMA]:
        return {"self_teacher": self.self_teacher, **super().averages()}

    def followers(self) -> list[EMA | AverageBank]:
        return [self.self_teacher, *super().followers()]

    def loss(self, batch: Batch) -> Tensor:
        t, before, start = self._draw_times(batch)
        noise = batch.draws.normal(batch.images.shape[1:])
        x_t = add_noise(self.student.schedule, batch.images.double(), noise, t)
        with torch.no_grad():
            target = self.target(x_t, t, before, start, batch.labels)
        return self.regression_loss(x_t, t, target, batch.labels)

    def target(self, x_t: Tensor, t: Tensor, before: Tensor, start: Tensor, labels: Tensor | None) -> Tensor:
        """The x0 of a perfect student at `x_t`: a teacher step, the self-teacher's jump, and the inverse (eq. 5-6).

        A group that starts at sigma 0 needs no rule of its own: there the inverse of a step returns the teacher's x0.
        So it does in a phase of equal steps, whose groups have one step: knowledge distillation.
        """
        solver = "ddim" if self.taught_by_student else self.config.solver
        clip = self.config.clip_x0
        x_before = solver_step(solver, self.teacher, x_t, t, before, labels, clip == "all")
        if self.phase.group == 1:
            return invert_ddim_step(self.student.schedule, x_t, x_before, t, start)
        # Where the group ends here (before == start), the jump is the identity; its value is not used.
        own = self.student.view_of(self.self_teacher.network)
        safe = torch.where(before == start, t, before)
        x_start = solver_step("ddim", own, x_before, safe, start, labels, clip != "none")
        x_start = torch.where((before == start)[:, None, None, None], x_before, x_start)
        return invert_ddim_step(self.student.schedule, x_t, x_start, t, start)

    def _draw_times(self, batch: Batch) -> tuple[Tensor, Tensor, Tensor]:
        """A random step of a random group: the times t, t - 1 and t_i of each sample."""
        start = batch.draws.integers(self.phase.student_steps) * self.phase.group
        step = start + 1 + batch.draws.integers(self.phase.group)
        return self.nodes(step), self.nodes(step - 1), self.nodes(start)


@dataclass(frozen=True, kw_only=True)
class TractEDMConfig(TractConfig):
    """TRACT for EDM teachers: Karras' 40 nodes, Heun steps of the teacher, the error weighted evenly in F-space.

    The authors' program is the recipe `tract-edm-cifar10`; it has one phase, and ignores a longer time schedule.
    """

    kind: ClassVar[str] = "tract_edm"
    time_schedule: tuple[int, ...] = (40, 1)
    lr: float = 1e-3
    batch: int = 512
    weighting: str = "edm"
    solver: str = "heun"


@register
class TractEDM(Tract):
    """TRACT with the settings of its EDM experiments (section 4.3); any number of phases."""

    kind = "tract_edm"
    paper = "Berthelot et al. 2023, arXiv 2303.04248"
    config_type = TractEDMConfig
