"""Noise schedules: `x_t = alpha_t x_0 + sigma_t xi` as functions of a time `t`, in float64.

A schedule supplies `alpha` and `sigma`; everything else (DDIM, its inverse, the posterior) is written once
for both the variance-preserving (VP) and the variance-exploding (VE) process in `steps.py`.
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod
from dataclasses import dataclass
from typing import ClassVar

import torch
from torch import Tensor

from tract_ray.config import choose


class NoiseSchedule(ABC):
    """A process `x_t = alpha_t x_0 + sigma_t xi`, and the times of its discretisations."""

    name: ClassVar[str]

    @abstractmethod
    def alpha(self, t: Tensor) -> Tensor:
        """Signal scale at times `t` (any shape), float64."""

    @abstractmethod
    def sigma(self, t: Tensor) -> Tensor:
        """Noise scale at times `t` (any shape), float64."""

    @abstractmethod
    def nodes(self, steps: int) -> Tensor:
        """Times of a sampler of `steps` steps, `(steps + 1,)`, increasing from the clean end, float64."""

    @abstractmethod
    def sampling_time(self, u: Tensor) -> Tensor:
        """The time at the fraction `u` in [0, 1] of a sampler's way, 1 at the noisy end, float64."""

    @abstractmethod
    def training_times(self, u: Tensor) -> Tensor:
        """Times at which a teacher is trained, from uniform numbers `u` in [0, 1), float64."""

    def logsnr(self, t: Tensor) -> Tensor:
        """`log(alpha_t^2 / sigma_t^2)`, what the networks are conditioned on."""
        return 2 * (torch.log(self.alpha(t)) - torch.log(self.sigma(t)))


@dataclass(frozen=True)
class CosineVP(NoiseSchedule):
    """Cosine schedule on t in [0, 1]: `logsnr = -2 log tan(a t + b)` between `logsnr_max` and `logsnr_min`.

    Since `gamma = sigmoid(logsnr)`, alpha and sigma are the cosine and sine of the angle `a t + b`: exact at both
    ends, where `1 - sigmoid(logsnr)` loses every digit. Salimans & Ho 2022, section 2 and appendix.
    """

    name: ClassVar[str] = "vp_cosine"
    logsnr_min: float = -20.0
    logsnr_max: float = 20.0

    def _angle(self, t: Tensor) -> Tensor:
        first = math.atan(math.exp(-0.5 * self.logsnr_max))
        last = math.atan(math.exp(-0.5 * self.logsnr_min))
        return first + (last - first) * t.double()

    def alpha(self, t: Tensor) -> Tensor:
        return torch.cos(self._angle(t))

    def sigma(self, t: Tensor) -> Tensor:
        return torch.sin(self._angle(t))

    def nodes(self, steps: int) -> Tensor:
        return torch.arange(steps + 1, dtype=torch.float64) / steps

    def sampling_time(self, u: Tensor) -> Tensor:
        return u.double()

    def training_times(self, u: Tensor) -> Tensor:
        return u.double()


@dataclass(frozen=True)
class KarrasVE(NoiseSchedule):
    """EDM's schedule: `alpha = 1`, and the time is the noise level itself (Karras et al. 2022, table 1 and eq. 5)."""

    name: ClassVar[str] = "ve_karras"
    sigma_min: float = 0.002
    sigma_max: float = 80.0
    rho: float = 7.0

    def alpha(self, t: Tensor) -> Tensor:
        return torch.ones_like(t, dtype=torch.float64)

    def sigma(self, t: Tensor) -> Tensor:
        return t.double()

    def nodes(self, steps: int) -> Tensor:
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        levels = torch.linspace(low, high, steps, dtype=torch.float64) ** self.rho
        # The last node is written down, not computed: one step must start exactly at sigma_max.
        levels[-1] = self.sigma_max
        return torch.cat([torch.zeros(1, dtype=torch.float64), levels])

    def sampling_time(self, u: Tensor) -> Tensor:
        """From `sigma_min`, not 0: a posterior and its weight stay finite at every time."""
        low, high = self.sigma_min ** (1 / self.rho), self.sigma_max ** (1 / self.rho)
        time: Tensor = (low + u.double() * (high - low)) ** self.rho
        return time

    def training_times(self, u: Tensor) -> Tensor:
        """`ln sigma ~ N(-1.2, 1.2^2)`, EDM's training distribution."""
        normal = math.sqrt(2.0) * torch.erfinv((2 * u.double() - 1).clamp(-1 + 1e-7, 1 - 1e-7))
        return torch.exp(-1.2 + 1.2 * normal).clamp(self.sigma_min, self.sigma_max)


schedules: dict[str, type[NoiseSchedule]] = {cls.name: cls for cls in (CosineVP, KarrasVE)}


def build_schedule(name: str) -> NoiseSchedule:
    """The schedule called `name`, with its published constants."""
    return schedules[choose("schedule", name, schedules)]()
