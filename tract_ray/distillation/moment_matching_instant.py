"""Moment matching in the teacher's parameter space (Salimans et al. 2024, arXiv 2406.04103, algorithm 3)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.func import functional_call, jvp
from torch.nn.attention import SDPBackend, sdpa_kernel

from tract_ray.config import require
from tract_ray.diffusion import Denoiser, add_noise, loss_weight
from tract_ray.distillation.base import DistillationConfig
from tract_ray.distillation.method import Batch, register, squared_error
from tract_ray.distillation.moment_matching import GeneratorDistillation, MomentMatchingConfig
from tract_ray.distillation.phases import Phase

BETA2, EPS = 0.999, 1e-8  # Adam's, as the teacher's own training would use them


@dataclass(frozen=True, kw_only=True)
class InstantMomentMatchingConfig(MomentMatchingConfig):
    """Adds `preconditioner_steps`: for so many optimiser steps the scale of the teacher's gradients is measured."""

    kind: ClassVar[str] = "moment_matching_instant"
    preconditioner_steps: int = 1000

    def __post_init__(self) -> None:
        super().__post_init__()
        require(self.batch % 2 == 0, "batch", f"is split in two halves and must be even, got {self.batch}")
        require(self.preconditioner_steps >= 1, "preconditioner_steps", "must be at least 1")


class Preconditioner(nn.Module):
    """Adam's scale of each parameter, `1 / (sqrt(v) + eps)`, from the gradients it has seen."""

    def __init__(self, parameters: Sequence[Tensor]) -> None:
        super().__init__()
        self.updates = 0
        self.moments = nn.ParameterList([nn.Parameter(torch.zeros_like(p), requires_grad=False) for p in parameters])

    def update(self, gradients: Sequence[Tensor]) -> None:
        """Take in one gradient."""
        self.updates += 1
        for moment, gradient in zip(self.moments, gradients, strict=True):
            moment.mul_(BETA2).addcmul_(gradient, gradient, value=1 - BETA2)

    def forward(self, gradients: Sequence[Tensor]) -> list[Tensor]:
        """The gradients, scaled. A parameter that the teacher's training never moved is left out."""
        unbiased = [moment / (1 - BETA2**self.updates) for moment in self.moments]
        scaled = zip(gradients, unbiased, strict=True)
        return [torch.where(v > 0, gradient / (v.sqrt() + EPS), 0) for gradient, v in scaled]


class _X0(nn.Module):
    """The teacher's x0 as a module, so that `torch.func` can differentiate it by the network's parameters."""

    def __init__(self, denoiser: Denoiser) -> None:
        super().__init__()
        self.network = denoiser.network
        self.denoise = denoiser

    def forward(self, *arguments: Any) -> Tensor:
        return self.denoise(*arguments)


@register
class InstantMomentMatching(GeneratorDistillation):
    """A generator on whose samples the teacher's training gradient vanishes, as it does on the data.

    With `nu` the gradient of the teacher's loss on a minibatch and `Lambda` the preconditioner, `nu_1' Lambda nu_2` of
    two independent minibatches estimates the squared mean gradient without bias. The even samples of a batch and the
    odd ones are the two minibatches, each the other's partner.
    """

    kind = "moment_matching_instant"
    paper = "Salimans et al. 2024, arXiv 2406.04103"
    config_type = InstantMomentMatchingConfig
    divisible = False

    @classmethod
    def effective(cls, config: DistillationConfig, phase: Phase) -> dict[str, Any]:
        own = super().effective(config, phase)
        return own | {"preconditioner_steps": min(own["preconditioner_steps"], phase.steps)}

    config: InstantMomentMatchingConfig

    def __init__(self, config: InstantMomentMatchingConfig, teacher: Denoiser | None, student: nn.Module) -> None:
        super().__init__(config, teacher, student)
        self._x0 = _X0(self.teacher)
        self.preconditioner = Preconditioner(list(self._x0.parameters()))

    @classmethod
    def other_calls(cls, config: Any, phase: Phase) -> float:
        """Two gradients (a forward and two backward calls) and two directional derivatives of the teacher."""
        return cls.teacher_calls(config, phase, 1 + 2 * 2 + 2 * 2)

    def loss(self, batch: Batch) -> Tensor:
        made = self.generate(batch, self.student)
        if self.preconditioner.updates == batch.step < self.config.preconditioner_steps:
            self._measure(batch)  # once in each step, however often its loss is asked for
        local = batch.draws.local
        even = torch.arange(local.start, local.stop, device=made.s.device) % 2 == 0
        x0 = made.x0.detach()
        inputs = made.x_s, made.s, batch.labels
        gradients = self.teacher_gradients(x0, inputs, made.weight, [even, ~even], batch.draws.world)
        seen, slope_even = self._directional(inputs, self.preconditioner(gradients[1]))
        _, slope_odd = self._directional(inputs, self.preconditioner(gradients[0]))
        slope = torch.where(even[:, None, None, None], slope_even, slope_odd)
        # Each sample's nu' (Lambda nu_partner); the gradient reaches the generator through x0 alone. Both factors
        # depend on it: through a sample's own nu and, by symmetry as much, where it is its partners' partner.
        x0 = 2 * made.x0 - x0
        return made.weight * (-2 * (x0 - seen) * slope).flatten(1).mean(1)

    def teacher_gradients(
        self,
        x0: Tensor,
        inputs: tuple[Tensor, Tensor, Tensor | None],
        weight: Tensor,
        parts: Sequence[Tensor],
        world: int = 1,
    ) -> list[list[Tensor]]:
        """Gradients of the teacher's denoising loss of `x0`, each the mean over one of `parts` of the global batch.

        `world` processes hold a share of that batch each.
        """
        own = {name: p.detach().requires_grad_() for name, p in self._x0.named_parameters()}
        with torch.enable_grad():
            error = weight * squared_error(functional_call(self._x0, own, inputs), x0)
            means = []
            for part in parts:
                found = torch.autograd.grad((error * part).sum(), list(own.values()), retain_graph=True)
                total = [*found, part.sum().to(found[0].dtype)]
                for tensor in total if world > 1 else ():
                    dist.all_reduce(tensor)
                means.append([gradient / total[-1] for gradient in total[:-1]])
        return means

    def _directional(
        self, inputs: tuple[Tensor, Tensor, Tensor | None], direction: Sequence[Tensor]
    ) -> tuple[Tensor, Tensor]:
        """The teacher's x0 and its derivative along a `direction` of its parameters, both without gradient."""
        own = {name: p.detach() for name, p in self._x0.named_parameters()}
        tangents = dict(zip(own, direction, strict=True))
        # Fused attention has no forward-mode derivative.
        with torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
            pair: tuple[Tensor, Tensor] = jvp(lambda p: functional_call(self._x0, p, inputs), (own,), (tangents,))  # type: ignore[assignment]
        return pair

    def _measure(self, batch: Batch) -> None:
        """Take in the scale of the teacher's gradient on data."""
        schedule, x0 = self.teacher.schedule, batch.images.double()
        s = schedule.sampling_time(batch.draws.uniform())
        x_s = add_noise(schedule, x0, batch.draws.normal(x0.shape[1:]), s)
        weight = loss_weight(self.config.weighting, schedule, s)
        everything = torch.ones_like(s, dtype=torch.bool)
        inputs = x_s, s, batch.labels
        self.preconditioner.update(self.teacher_gradients(x0, inputs, weight, [everything], batch.draws.world)[0])

    def modules(self) -> dict[str, nn.Module]:
        return {**super().modules(), "preconditioner": self.preconditioner}

    def counters(self) -> dict[str, int]:
        return {**super().counters(), "preconditioner": self.preconditioner.updates}

    def restore_counters(self, counters: Mapping[str, int]) -> None:
        super().restore_counters(counters)
        self.preconditioner.updates = counters["preconditioner"]
