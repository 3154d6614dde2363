"""Samplers: from noise to images in any number of steps."""

from __future__ import annotations

import torch
from torch import Tensor

from tract_ray.diffusion.denoiser import Denoiser
from tract_ray.diffusion.schedules import NoiseSchedule
from tract_ray.diffusion.steps import ddim_step


def initial_state(schedule: NoiseSchedule, noise: Tensor, steps: int) -> Tensor:
    """The state a sampler starts from: `sigma_T xi`, float64. `noise` is standard normal, `(B, C, H, W)`."""
    return schedule.sigma(schedule.nodes(steps)[-1]).item() * noise.double()


@torch.inference_mode()
def sample_ddim(
    denoiser: Denoiser,
    noise: Tensor,
    steps: int,
    *,
    times: Tensor | None = None,
    labels: Tensor | None = None,
    clip: bool = True,
) -> Tensor:
    """Images `(B, C, H, W)` from standard normal `noise` in `steps` DDIM steps (network calls).

    `times` are the sampler's nodes, `(steps + 1,)` and increasing; by default the schedule's own. `clip` bounds every
    x0 to [-1, 1], as the TRACT and BTD authors do when sampling.
    """
    schedule = denoiser.schedule
    times = schedule.nodes(steps) if times is None else times
    x = schedule.sigma(times[-1]).item() * noise.double()
    for t, s in zip(times.flip(0)[:-1], times.flip(0)[1:], strict=True):
        x0 = denoiser(x, t, labels)
        x = ddim_step(schedule, x, x0.clamp(-1, 1) if clip else x0, t, s)
    return x
