"""What all methods that learn from a teacher share: inference averages, and what a phase hands to the next."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

from torch import Tensor, nn

from tract_ray.config import choose, require, to_dict
from tract_ray.diffusion import Denoiser, GuidedDenoiser, loss_weight
from tract_ray.distillation.bank import AverageBank
from tract_ray.distillation.ema import EMA, heuristic_mu
from tract_ray.distillation.method import Batch, Method, MethodConfig, num_classes, require_teacher, squared_error
from tract_ray.distillation.phases import Phase
from tract_ray.distillation.reconstruction import propose
from tract_ray.distillation.recorder import AverageFolder, AverageRecorder

AVERAGES = ("mu_i", "mu_i_last", "mu_i_residual", "mu_i_bank", "mu_i_bank_phases", "mu_i_snapshots")


@dataclass(frozen=True, kw_only=True)
class DistillationConfig(MethodConfig):
    """What every distillation is told.

    `mu_i` is the inference average, which also becomes the next phase's teacher; None takes the heuristic
    `mu_i_residual^(1/N)`, N the optimiser steps of the phase; `mu_i_last` is that of the last phase alone. `mu_i_bank`
    lists further averages that the last phase carries and every evaluation scores; `mu_i_bank_phases` "all" lets every
    phase carry them, so that runs that differ in mu_i only share their phases as far as they can. `mu_i_snapshots` > 0
    stores averages at so many steps of the last phase, from which any other mu_i is made afterwards
    (`reconstruction.py`); it carries three further averages. `guidance` is the teacher's classifier-free guidance, 1
    for none.

    What a phase after the first begins with, beside its new teacher: `student_init` "teacher" restarts the student from
    that teacher, "continue" lets it go on; `keep_optimizer` keeps Adam's moments, `keep_averages` the self-teacher and
    the inference averages. TRACT's code keeps all three; its paper speaks of a student that starts from the teacher
    (section 3). BTD's paper and code keep none. A kept average of another mu than any before goes on from the phase's
    own one.
    """

    mu_i: float | None = None
    mu_i_last: float | None = None
    mu_i_residual: float = 1e-3
    mu_i_bank: tuple[float, ...] = ()
    mu_i_bank_phases: str = "last"
    mu_i_snapshots: int = 0
    guidance: float = 1.0
    student_init: str = "teacher"
    keep_optimizer: bool = False
    keep_averages: bool = False

    def __post_init__(self) -> None:
        super().__post_init__()
        for name in ("mu_i", "mu_i_last"):
            mu = getattr(self, name)
            require(mu is None or 0 <= mu < 1, name, f"must be in [0, 1), got {mu}")
        for mu in self.mu_i_bank:
            require(0 <= mu < 1, "mu_i_bank", f"every value must be in [0, 1), got {mu}")
        require(self.mu_i_snapshots >= 0, "mu_i_snapshots", f"must not be negative, got {self.mu_i_snapshots}")
        require(0 < self.mu_i_residual < 1, "mu_i_residual", f"must be in (0, 1), got {self.mu_i_residual}")
        choose("mu_i_bank_phases", self.mu_i_bank_phases, ("last", "all"))
        require(self.guidance >= 0, "guidance", f"must not be negative, got {self.guidance}")
        choose("student_init", self.student_init, ("teacher", "continue"))

    def check_averages(self) -> None:
        """Refuse snapshots of kept averages; subclasses call it when their phases can be laid out."""
        require(
            not (self.mu_i_snapshots and self.keep_averages and len(self.phases()) > 1),
            "mu_i_snapshots",
            "cannot be had with keep_averages: what the last phase stores says nothing of the phases before",
        )

    @property
    def carries_on(self) -> bool:
        """Whether a phase begins with more than the inference average of the one before."""
        return self.student_init == "continue" or self.keep_optimizer or self.keep_averages

    def inference_mu(self, phase: Phase) -> float:
        """mu_i of `phase`: the given value, or the heuristic."""
        if self.mu_i_last is not None and self.is_last(phase):
            return self.mu_i_last
        return self.mu_i if self.mu_i is not None else heuristic_mu(self.mu_i_residual, self.updates_of(phase))

    def updates_of(self, phase: Phase) -> float:
        """The length of `phase` that the heuristic goes by."""
        return phase.steps

    def carried_mus(self, phase: Phase) -> list[float]:
        """Mu of every inference average that `phase` carries."""
        banked = self.mu_i_bank_phases == "all" or self.is_last(phase)
        return sorted({self.inference_mu(phase), *(self.mu_i_bank if banked else ())})


class Distillation(Method):
    """A student with the teacher's noise schedule and x0 view, and averages of it to sample from.

    `times` are the nodes of the first phase's teacher, `(T + 1,)`: its own where it is a student, else the schedule's.
    The nodes of every later sampler are among them. The first teacher may have any architecture; from the second phase
    on, the teacher is a student.
    """

    config: DistillationConfig
    layout: ClassVar[tuple[str, ...]] = ()  # settings that say nothing but where phases begin and end

    @classmethod
    def check_teacher(cls, config: DistillationConfig, steps: int | None) -> None:
        first = config.phases()[0].teacher_steps
        only = f"is a student of {steps} step(s) and can teach a schedule that begins with {steps} only, not {first}"
        require(steps in (None, first), "teacher", only)

    @classmethod
    def determines(cls, config: DistillationConfig, phase: Phase, start: int, end: int) -> dict[str, Any]:
        place = {"first": phase.index == 0, "longest": config.phases()[0].teacher_steps}
        spans = {name: getattr(phase, name) for name in ("start", "steps", "teacher_steps", "student_steps")}
        snapshots = config.mu_i_snapshots if config.is_last(phase) else 0
        carried = {"mu": config.carried_mus(phase), "snapshots": snapshots}
        if config.carries_on and len(config.phases()) > 1:
            place["last"] = config.is_last(phase)  # the last phase stores less than what another would go on from
        own = cls.effective(config, phase)
        return {"method": own, "phase": place | spans, "steps": [start, end], "averages": carried}

    @classmethod
    def effective(cls, config: DistillationConfig, phase: Phase) -> dict[str, Any]:
        """The settings that have an effect beside the averages and the layout; equal effects are spelt alike."""
        without = {"samples", *AVERAGES, *cls.layout}
        if len(config.phases()) == 1:
            without |= {"student_init", "keep_optimizer", "keep_averages"}
        own = {name: value for name, value in to_dict(config).items() if name not in without}
        return own | {"warmup": config.warmup if config.warmup > 1 else 0}  # the first step has the whole rate anyway

    @classmethod
    def teacher_calls(cls, config: DistillationConfig, phase: Phase, calls: float) -> float:
        """Calls of the teacher's network where its x0 is asked for `calls` times; guidance asks it twice."""
        return calls * (2 if config.guidance != 1 and phase.index == 0 else 1)

    @classmethod
    def handover(cls, config: DistillationConfig, phase: Phase) -> float:
        return config.inference_mu(phase)

    def __init__(self, config: DistillationConfig, teacher: Denoiser | None, student: nn.Module) -> None:
        super().__init__(config, teacher, student)
        self.teacher = self._guided(require_teacher(teacher, self.kind))
        self.teacher.precision = config.precision
        self.student = self.teacher.view_of(student)
        self.trained = {"student": self.student}
        own, first = self.teacher.times, self.phases[0].teacher_steps
        self.check_teacher(config, None if own is None else len(own) - 1)
        self.times = self.teacher.schedule.nodes(first) if own is None else own
        self.architecture = 0  # the phase that brought the student's
        self.inference = AverageBank(student, config.carried_mus(self.phase))
        self.recorder: AverageRecorder | None = None
        self.average_folder: AverageFolder | None = None

    def _guided(self, teacher: Denoiser) -> Denoiser:
        if self.config.guidance == 1:
            return copy.copy(teacher)  # its network will be replaced, the caller's teacher stays whole
        require(num_classes(teacher.module) > 0, "guidance", "the teacher is not class-conditional")
        return GuidedDenoiser(teacher, self.config.guidance)

    def start_phase(self, phase: Phase) -> None:
        if phase.index == 0:
            return self.set_phase(phase)
        before, own = self.averages(), _inference(self.config.inference_mu(self.phases[phase.index - 1]))
        made = before[own].network
        weights = made.state_dict()
        if self.changes_at(phase):
            self._hold_student(phase, made)
        elif self.config.student_init == "teacher":
            self.student.module.load_state_dict(weights)
        self.set_phase(phase)
        self.teacher.network.load_state_dict(weights)
        if self.config.keep_averages and not self.changes_at(phase):
            for name, average in self.averages().items():
                average.go_on_from(before.get(name, before[own]))

    def optimizers_go_on(self, phase: Phase) -> bool:
        return self.config.keep_optimizer and phase.index > 0 and not self.changes_at(phase)

    def changes_at(self, phase: Phase) -> bool:
        """Whether the student's architecture changes when `phase` begins: nothing of it can be kept then."""
        return phase.index > 0 and phase.index in self.students

    def _architecture(self, index: int) -> int:
        """The phase that brought the architecture of phase `index`."""
        return max((k for k in self.students if k <= index), default=0)

    def _student_of(self, index: int, source: nn.Module | None = None) -> nn.Module:
        """The network of phase `index`: the one that is held, or a new one where it has another architecture."""
        own = self._architecture(index)
        return self.student.module if own == self.architecture else self.students[own](source)

    def _hold_student(self, phase: Phase, source: nn.Module | None = None) -> None:
        network, self.architecture = self._student_of(phase.index, source), self._architecture(phase.index)
        if network is not self.student.module:
            self.student.network = network  # the loop wraps it again

    @property
    def taught_by_student(self) -> bool:
        """Whether the phase's teacher is a student, which takes DDIM steps alone."""
        return self.phase.index > 0 or self.teacher.times is not None

    def set_phase(self, phase: Phase) -> None:
        self.phase = phase
        if phase.index > 0:
            self.teacher = self.student.view_of(frozen_copy(self._student_of(phase.index - 1)))
        self._hold_student(phase)
        self.inference = AverageBank(self.student.module, self.config.carried_mus(phase))
        self.recorder = None
        if self.config.is_last(phase) and self.config.mu_i_snapshots:
            updates = sum(self.active(step) == "student" for step in range(phase.steps))
            self.recorder = AverageRecorder(self.student.module, propose(updates, self.config.mu_i_snapshots))

    def regression_loss(self, x_t: Tensor, t: Tensor, target: Tensor, labels: Tensor | None) -> Tensor:
        """Weighted squared error of the student's x0 at `x_t`, `(b,)`."""
        error = squared_error(self.student(x_t, t, labels), target)
        return loss_weight(self.config.weighting, self.student.schedule, t) * error

    def nodes(self, index: Tensor) -> Tensor:
        """Times of the current teacher's nodes number `index` `(b,)`, 0 at the clean end."""
        stride = self.phases[0].teacher_steps // self.phase.teacher_steps
        return self.times.to(index.device)[index * stride]

    def averages(self) -> dict[str, EMA]:
        """The averages that follow the student, by name."""
        recorded = self.recorder.members if self.recorder else {}
        return {_inference(mu): average for mu, average in self.inference.items()} | {
            f"recorded.{mu!r}": average for mu, average in recorded.items()
        }

    def followers(self) -> list[EMA | AverageBank]:
        """What takes the student's weights in after each step."""
        return [self.inference, *([self.recorder.members] if self.recorder else [])]

    @property
    def settled(self) -> bool:
        return all(follower.settled for follower in self.followers())

    def after_step(self, batch: Batch) -> None:
        for follower in self.followers():
            follower.update(self.student.module)
        if self.recorder and self.average_folder:
            self.recorder.store(self.student.module, self.average_folder)

    def store_averages(self, folder: Path) -> None:
        self.average_folder = AverageFolder(folder)

    def candidates(self) -> dict[float, nn.Module]:
        own = self.config.inference_mu(self.phase)
        others = [mu for mu in self.inference if mu != own] if self.config.is_last(self.phase) else []
        return {mu: self.inference[mu].network for mu in (own, *others)}

    def sampling_times(self, steps: int) -> Tensor:
        longest = self.phases[0].teacher_steps
        require(longest % steps == 0, "steps", f"{steps} does not divide the teacher's {longest}")
        return self.times[:: longest // steps]

    def modules(self) -> dict[str, nn.Module]:
        averages = {name: average.network for name, average in self.averages().items()}
        return {"teacher": self.teacher.network, "student": self.student.module, **averages}

    def kept(self) -> set[str]:
        kept = {_inference(mu) for mu in self.inference}
        if self.config.is_last(self.phase):
            return kept
        kept |= {"student"} if self.config.student_init == "continue" else set()
        return kept | (set(self.averages()) if self.config.keep_averages else set())

    def counters(self) -> dict[str, int]:
        return {name: average.updates for name, average in self.averages().items()}

    def restore_counters(self, counters: Mapping[str, int]) -> None:
        for name, average in self.averages().items():
            average.updates = counters[name]


def _inference(mu: float) -> str:
    """The name of the inference average at `mu` in a checkpoint: its own, to the last digit."""
    return f"inference.{mu!r}"


def frozen_copy(network: nn.Module) -> nn.Module:
    """A copy of `network` for evaluation: no dropout, no gradients."""
    return copy.deepcopy(network).eval().requires_grad_(False)
