"""Plain regression from noise to the teacher's samples: the naive baseline (Luhman & Luhman 2021, arXiv 2101.02388)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from tract_ray.config import require
from tract_ray.diffusion import Denoiser, initial_state, sample_ddim
from tract_ray.distillation.base import Distillation, DistillationConfig
from tract_ray.distillation.draws import derive_seed
from tract_ray.distillation.method import Batch, num_classes, register
from tract_ray.distillation.phases import MAX_STEPS, Phase

CHUNK = 256


@dataclass(frozen=True, kw_only=True)
class RegressionConfig(DistillationConfig):
    """`pairs` of noise and sample are made once, with `teacher_steps` DDIM steps, and used again and again.

    With `pairs` 0 every batch is made afresh, at `teacher_steps` more network calls for each.
    """

    kind: ClassVar[str] = "regression"
    teacher_steps: int = 64
    pairs: int = 50_000
    pairs_seed: int = 0

    def __post_init__(self) -> None:
        super().__post_init__()
        require(
            2 <= self.teacher_steps <= MAX_STEPS,
            "teacher_steps",
            f"must be from 2 to {MAX_STEPS}, got {self.teacher_steps}",
        )
        require(self.pairs >= 0, "pairs", f"must not be negative, got {self.pairs}")

    def phases(self) -> tuple[Phase, ...]:
        """A single one."""
        return (Phase(0, 0, self.steps, self.teacher_steps, 1),)


@register
class Regression(Distillation):
    """A student that maps the noise to the image that the teacher's many steps make of it."""

    kind = "regression"
    paper = "Luhman & Luhman 2021, arXiv 2101.02388"
    config_type = RegressionConfig

    @classmethod
    def effective(cls, config: DistillationConfig, phase: Phase) -> dict[str, Any]:
        own = super().effective(config, phase)
        return own if own["pairs"] else own | {"pairs_seed": 0}

    config: RegressionConfig

    def __init__(self, config: RegressionConfig, teacher: Denoiser | None, student: nn.Module) -> None:
        super().__init__(config, teacher, student)
        self._pairs: tuple[Tensor, Tensor] | None = None

    @classmethod
    def other_calls(cls, config: Any, phase: Phase) -> float:
        made = config.pairs / config.samples if config.pairs else 1
        return cls.teacher_calls(config, phase, made * config.teacher_steps)

    def loss(self, batch: Batch) -> Tensor:
        if self.config.pairs == 0:
            noise, labels = batch.draws.normal(batch.images.shape[1:]), batch.labels
            target = self.target(noise, labels)
        else:
            noises, targets = self._all_pairs(batch)
            chosen = batch.draws.integers(self.config.pairs)
            noise, target, labels = noises[chosen], targets[chosen].double(), self._labels(chosen, batch)
        t = self.times[-1].to(noise.device).expand(noise.shape[0])
        return self.regression_loss(initial_state(self.student.schedule, noise, self.times[-1]), t, target, labels)

    def target(self, noise: Tensor, labels: Tensor | None) -> Tensor:
        """The teacher's sample from `noise`, unclipped."""
        with torch.no_grad():
            steps, times = self.config.teacher_steps, self.times
            return sample_ddim(self.teacher, noise, steps, times=times, labels=labels, clip=False).clone()

    def _all_pairs(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """All pairs, made at first use. They follow from `pairs_seed`, so a resumed run makes the same again."""
        if self._pairs is None:
            shape, device, noises, targets = batch.images.shape[1:], batch.images.device, [], []
            for first in range(0, self.config.pairs, CHUNK):
                numbers = torch.arange(first, min(first + CHUNK, self.config.pairs), device=device)
                generator = torch.Generator().manual_seed(derive_seed("pairs", self.config.pairs_seed, first))
                noises.append(torch.randn((len(numbers), *shape), generator=generator).to(device))
                targets.append(self.target(noises[-1], self._labels(numbers, batch)).float())
            self._pairs = torch.cat(noises), torch.cat(targets)
        return self._pairs

    def _labels(self, numbers: Tensor, batch: Batch) -> Tensor | None:
        """The classes in turn: pair `i` is of class `i` modulo their number."""
        return None if batch.labels is None else numbers % num_classes(self.student.module)
