"""Weights of the squared x0 error (Salimans & Ho 2022, section 4; Karras et al. 2022, table 1)."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tract_ray.diffusion.denoiser import SIGMA_DATA
from tract_ray.diffusion.schedules import NoiseSchedule

weightings: dict[str, Callable[[Tensor], Tensor]] = {
    "uniform": torch.ones_like,
    "snr": lambda snr: snr,
    "truncated_snr": lambda snr: snr.clamp(min=1),
    "snr_plus_one": lambda snr: snr + 1,
    "edm": lambda snr: snr + 1 / SIGMA_DATA**2,
}
"""By name, from the signal-to-noise ratio. `edm` is `(sigma^2 + s_d^2) / (sigma s_d)^2` with `snr = 1/sigma^2`."""


def loss_weight(name: str, schedule: NoiseSchedule, t: Tensor) -> Tensor:
    """Weights of the squared x0 error at times `t`, float64, same shape."""
    return weightings[name](torch.exp(schedule.logsnr(t)))
