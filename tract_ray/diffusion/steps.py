"""One step of each kind, written once for VP and VE processes.

States `x` are `(B, C, H, W)`, times `(B,)` or scalars; `s < t`. Keep states in float64 (or at least float32):
the inverse of a DDIM step divides by as little as 1.5e-3, which half precision does not survive.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tract_ray.diffusion.schedules import NoiseSchedule


def expand(coefficient: Tensor, x: Tensor) -> Tensor:
    """`(B,)` or scalar coefficients, shaped to multiply states `(B, C, H, W)`."""
    return coefficient.to(x.device).reshape(-1, *([1] * (x.ndim - 1)))


def add_noise(schedule: NoiseSchedule, x0: Tensor, noise: Tensor, t: Tensor) -> Tensor:
    """`x_t = alpha_t x_0 + sigma_t xi` (TRACT, section 2.1)."""
    return expand(schedule.alpha(t), x0) * x0 + expand(schedule.sigma(t), x0) * noise


def ddim_step(schedule: NoiseSchedule, x_t: Tensor, x0: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """`delta(f, x_t, t, s) = alpha_s x0 + (sigma_s / sigma_t)(x_t - alpha_t x0)` (TRACT, eq. 4; Song et al. 2021)."""
    ratio = expand(schedule.sigma(s) / schedule.sigma(t), x_t)
    return expand(schedule.alpha(s), x_t) * x0 + ratio * (x_t - expand(schedule.alpha(t), x_t) * x0)


def invert_ddim_step(schedule: NoiseSchedule, x_t: Tensor, x_s: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """The x0 with which one DDIM step from `x_t` lands on `x_s`: the perfect student's target (TRACT, eq. 6)."""
    ratio = schedule.sigma(s) / schedule.sigma(t)
    scale = expand(schedule.alpha(s) - schedule.alpha(t) * ratio, x_t)
    return (x_s - expand(ratio, x_t) * x_t) / scale


def heun_step(
    schedule: NoiseSchedule, denoise: Callable[[Tensor, Tensor], Tensor], x_t: Tensor, t: Tensor, s: Tensor
) -> Tensor:
    """Heun's step for the ODE of `x / alpha` over `sigma / alpha` (EDM, algorithm 1); Euler's where `sigma_s` is 0.

    `denoise(x, t)` is the x0 view of a network. `t` and `s` are `(B,)` or scalars.
    """
    alpha_t, alpha_s = expand(schedule.alpha(t), x_t), expand(schedule.alpha(s), x_t)
    sigma_t, sigma_s = expand(schedule.sigma(t), x_t), expand(schedule.sigma(s), x_t)
    slope = (x_t - alpha_t * denoise(x_t, t)) / sigma_t
    step = sigma_s / alpha_s - sigma_t / alpha_t
    euler = x_t / alpha_t + step * slope
    last = sigma_s == 0
    # At sigma_s = 0 there is no second slope; evaluating it at t keeps the batch whole, the result is masked.
    safe = torch.where(schedule.sigma(s) == 0, t, s)
    alpha, sigma = expand(schedule.alpha(safe), x_t), expand(schedule.sigma(safe), x_t)
    slope_s = (alpha * euler - alpha * denoise(alpha * euler, safe)) / sigma
    return alpha_s * torch.where(last, euler, x_t / alpha_t + step * 0.5 * (slope + slope_s))


def ancestral_step(schedule: NoiseSchedule, x_t: Tensor, x0: Tensor, noise: Tensor, t: Tensor, s: Tensor) -> Tensor:
    """A draw of the posterior `q(x_s | x_t, x0)` (Salimans et al. 2024, section 2; Ho et al. 2020, eq. 6-7)."""
    alpha_t, alpha_s = schedule.alpha(t), schedule.alpha(s)
    var_t, var_s = schedule.sigma(t) ** 2, schedule.sigma(s) ** 2
    ratio = alpha_t / alpha_s
    var_step = var_t - ratio**2 * var_s
    mean = expand(ratio * var_s / var_t, x_t) * x_t + expand(alpha_s * var_step / var_t, x_t) * x0
    return mean + expand(torch.sqrt(var_step * var_s / var_t), x_t) * noise
