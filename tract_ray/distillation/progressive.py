"""Progressive, or binary time, distillation (Salimans & Ho 2022, arXiv 2202.00512, algorithm 2)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor

from tract_ray.config import require
from tract_ray.diffusion import add_noise, ddim_step, invert_ddim_step
from tract_ray.distillation.base import Distillation, DistillationConfig
from tract_ray.distillation.method import Batch, register
from tract_ray.distillation.phases import MAX_STEPS, Phase, lay_out_phases


@dataclass(frozen=True, kw_only=True)
class ProgressiveConfig(DistillationConfig):
    """BTD's settings: from `start_steps` to `end_steps` by halving.

    `samples` are shared by the phases, equally or by `phase_shares`. `updates_per_phase` sets both: one number for all
    phases, or several, of which all but the first belong to the last phases (the recipe `btd-cifar10` has 50,000, and
    100,000 for the last two of thirteen, from 8,192 steps). The learning rate falls to 0 in each phase, so the last
    weights need no average: `mu_i` 0 is the weights themselves. Rate, batch and annealing are the paper's for CIFAR-10.
    """

    kind: ClassVar[str] = "progressive"
    start_steps: int = 1024
    end_steps: int = 1
    phase_shares: tuple[float, ...] = ()
    updates_per_phase: tuple[int, ...] = ()
    samples: int = 10 * 50_000 * 128
    batch: int = 128
    lr: float = 5e-5
    lr_decay: str = "linear"
    mu_i: float | None = 0.0

    def __post_init__(self) -> None:
        given: object = self.updates_per_phase
        if isinstance(given, int):  # one number, for all phases
            object.__setattr__(self, "updates_per_phase", (given,))
        self._decode()
        for name in ("start_steps", "end_steps"):
            steps = getattr(self, name)
            require(steps >= 1 and steps & (steps - 1) == 0, name, f"must be a power of two, got {steps}")
            require(steps <= MAX_STEPS, name, f"must be at most {MAX_STEPS}, got {steps}")
        require(self.end_steps < self.start_steps, "end_steps", f"must be below start_steps {self.start_steps}")
        self._set_updates()
        super().__post_init__()
        self.phases()
        self.check_averages()

    def _set_updates(self) -> None:
        """Turn `updates_per_phase` into `samples` and `phase_shares`, so that any of them can be changed afterwards."""
        given = self.updates_per_phase
        if not given:
            return
        first, *last = given
        count = len(self.time_schedule()) - 1
        require(len(last) < count, "updates_per_phase", f"there are only {count} phases")
        updates = [first] * (count - len(last)) + last
        require(min(updates) >= 1, "updates_per_phase", f"every number must be at least 1, got {given}")
        object.__setattr__(self, "samples", sum(updates) * self.batch)
        object.__setattr__(self, "phase_shares", tuple(updates) if last else ())
        object.__setattr__(self, "updates_per_phase", ())

    def time_schedule(self) -> tuple[int, ...]:
        """1024, 512, …, 1."""
        halvings = (self.start_steps // self.end_steps).bit_length()
        return tuple(self.start_steps >> k for k in range(halvings))

    def phases(self) -> tuple[Phase, ...]:
        """One phase for each halving."""
        return lay_out_phases(self.time_schedule(), self.steps, self.phase_shares)


@register
class Progressive(Distillation):
    """A student that makes two of its teacher's DDIM steps in one, and is the next phase's teacher."""

    kind = "progressive"
    paper = "Salimans & Ho 2022, arXiv 2202.00512"
    config_type = ProgressiveConfig
    config: ProgressiveConfig
    layout = ("phase_shares", "start_steps", "end_steps", "updates_per_phase")

    @classmethod
    def other_calls(cls, config: Any, phase: Phase) -> float:
        return cls.teacher_calls(config, phase, 2)

    def loss(self, batch: Batch) -> Tensor:
        start = 2 * batch.draws.integers(self.phase.student_steps)
        t, middle, s = self.nodes(start + 2), self.nodes(start + 1), self.nodes(start)
        noise = batch.draws.normal(batch.images.shape[1:])
        x_t = add_noise(self.student.schedule, batch.images.double(), noise, t)
        with torch.no_grad():
            target = self.target(x_t, t, middle, s, batch.labels)
        return self.regression_loss(x_t, t, target, batch.labels)

    def target(self, x_t: Tensor, t: Tensor, middle: Tensor, s: Tensor, labels: Tensor | None) -> Tensor:
        """The x0 with which one step from `t` to `s` lands where the teacher's two do; unclipped."""
        schedule = self.student.schedule
        x_middle = ddim_step(schedule, x_t, self.teacher(x_t, t, labels), t, middle)
        x0 = self.teacher(x_middle, middle, labels)
        x_s = ddim_step(schedule, x_middle, x0, middle, s)
        last = (s == self.times[0].to(s.device))[:, None, None, None]
        # The last step ends at the clean image itself, not at the little noise that is left at the first node.
        return torch.where(last, x0, invert_ddim_step(schedule, x_t, x_s, t, s))
