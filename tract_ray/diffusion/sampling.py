"""First-order samplers: from noise to images in any number of steps, with one network call each."""

from __future__ import annotations

import torch
from torch import Tensor

from tract_ray.diffusion.denoiser import Denoiser
from tract_ray.diffusion.schedules import NoiseSchedule
from tract_ray.diffusion.step_noise import step_noise
from tract_ray.diffusion.steps import ancestral_step, ddim_step


def initial_state(schedule: NoiseSchedule, noise: Tensor, t: Tensor) -> Tensor:
    """The state a sampler starts from at `t`: `sigma_t xi`, float64. `noise` is standard normal, `(B, C, H, W)`."""
    return schedule.sigma(t).item() * noise.double()


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
    """Images `(B, C, H, W)` from standard normal `noise` in `steps` DDIM steps.

    `times` are the sampler's nodes, `(steps + 1,)` and increasing; by default the schedule's own. `clip` bounds every
    x0 to [-1, 1], as the TRACT and BTD authors do when sampling.
    """
    schedule = denoiser.schedule
    times = schedule.nodes(steps) if times is None else times
    x = initial_state(schedule, noise, times[-1])
    for t, s in zip(times.flip(0)[:-1], times.flip(0)[1:], strict=True):
        x0 = denoiser(x, t, labels)
        x = ddim_step(schedule, x, x0.clamp(-1, 1) if clip else x0, t, s)
    return x


def sample_euler(
    denoiser: Denoiser, noise: Tensor, steps: int, *, times: Tensor | None = None, labels: Tensor | None = None
) -> Tensor:
    """Images `(B, C, H, W)` by Euler's rule for the probability-flow ODE of `x / alpha` over `sigma / alpha`.

    That is DDIM with x0 as it comes (Karras et al. 2022, section 3 and table 1). Arguments as in `sample_ddim`.
    """
    return sample_ddim(denoiser, noise, steps, times=times, labels=labels, clip=False)


@torch.inference_mode()
def sample_ancestral(
    denoiser: Denoiser,
    noise: Tensor,
    steps: int,
    *,
    times: Tensor | None = None,
    labels: Tensor | None = None,
    clip: bool = True,
) -> Tensor:
    """Images `(B, C, H, W)` in `steps` ancestral steps (Salimans et al. 2024, algorithm 1); returns the last x0.

    Arguments as in `sample_ddim`; by default the nodes divide the sampler's way evenly. The noise that each step adds
    is a function of the sample's own `noise` (`step_noise.py`).
    """
    schedule = denoiser.schedule
    times = schedule.sampling_time(torch.arange(steps + 1, dtype=torch.float64) / steps) if times is None else times
    x = initial_state(schedule, noise, times[-1])
    for node in range(steps, 0, -1):
        x0 = denoiser(x, times[node], labels)
        x0 = x0.clamp(-1, 1) if clip else x0
        if node > 1:
            x = ancestral_step(schedule, x, x0, step_noise(noise, node).double(), times[node], times[node - 1])
    return x0
