"""Samplers: from noise to images in any number of steps."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from tract_ray.diffusion.denoiser import Denoiser
from tract_ray.diffusion.schedules import NoiseSchedule
from tract_ray.diffusion.steps import ancestral_step, ddim_step


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
    is a function of the sample's own `noise`, so an image does not depend on the batch that it is made in.
    """
    schedule = denoiser.schedule
    times = schedule.sampling_time(torch.arange(steps + 1, dtype=torch.float64) / steps) if times is None else times
    x = schedule.sigma(times[-1]).item() * noise.double()
    for node in range(steps, 0, -1):
        x0 = denoiser(x, times[node], labels)
        x0 = x0.clamp(-1, 1) if clip else x0
        if node > 1:
            x = ancestral_step(schedule, x, x0, step_noise(noise, node).double(), times[node], times[node - 1])
    return x0


def step_noise(noise: Tensor, step: int) -> Tensor:
    """Standard normal numbers `(B, C, H, W)` for one `step`, each sample's a function of its `noise` and the step."""
    bits = noise.detach().cpu().float().contiguous().view(torch.int32).flatten(1).long()
    # A sum with odd weights that wraps around: exact on every machine, and different for different noise.
    seeds = (bits * (2 * torch.arange(bits.shape[1]) + 1)).sum(1) * 1_000_003 + step
    draws = [
        torch.randn(noise.shape[1:], generator=torch.Generator().manual_seed(seed & ((1 << 63) - 1)))
        for seed in seeds.tolist()
    ]
    return torch.stack(draws).to(noise.device)


samplers: dict[str, Callable[..., Tensor]] = {"ddim": sample_ddim, "ancestral": sample_ancestral}
"""By name, all called as `sampler(denoiser, noise, steps, times=…, labels=…)`."""
