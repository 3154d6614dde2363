"""The one data distribution whose perfect denoiser is a formula: a Gaussian. Tests and contracts build on it."""

from __future__ import annotations

import torch
from torch import Tensor

from tract_ray.diffusion.denoiser import Denoiser
from tract_ray.diffusion.schedules import NoiseSchedule
from tract_ray.diffusion.steps import expand


class GaussianDenoiser(Denoiser):
    """`E[x_0 | x_t]` for data `N(mean, std^2)` in every pixel; the ODE it defines has the closed form `flow`."""

    def __init__(self, schedule: NoiseSchedule, mean: float = 0.2, std: float = 0.3) -> None:
        super().__init__(torch.nn.Identity(), schedule, "x0")
        self.mean, self.std = mean, std

    def __call__(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        alpha, sigma = expand(self.schedule.alpha(t), x_t), expand(self.schedule.sigma(t), x_t)
        gain = alpha * self.std**2 / (alpha**2 * self.std**2 + sigma**2)
        return self.mean + gain * (x_t - alpha * self.mean)

    def flow(self, x_t: Tensor, t: Tensor, s: Tensor) -> Tensor:
        """Where the probability-flow ODE carries `x_t` from `t` to `s`: the standardised state is constant."""

        def moments(time: Tensor) -> tuple[Tensor, Tensor]:
            alpha, sigma = expand(self.schedule.alpha(time), x_t), expand(self.schedule.sigma(time), x_t)
            return alpha * self.mean, torch.sqrt(alpha**2 * self.std**2 + sigma**2)

        (mean_t, std_t), (mean_s, std_s) = moments(t), moments(s)
        return mean_s + std_s * (x_t - mean_t) / std_t
