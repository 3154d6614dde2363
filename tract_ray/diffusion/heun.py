"""EDM's sampler: Heun's second-order steps, with as much fresh noise as one likes (Karras et al. 2022)."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from tract_ray.config import require
from tract_ray.diffusion.denoiser import Denoiser
from tract_ray.diffusion.sampling import initial_state
from tract_ray.diffusion.schedules import KarrasVE
from tract_ray.diffusion.step_noise import step_noise
from tract_ray.diffusion.steps import ddim_step, heun_step


@torch.inference_mode()
def sample_heun(
    denoiser: Denoiser,
    noise: Tensor,
    steps: int,
    *,
    times: Tensor | None = None,
    labels: Tensor | None = None,
    s_churn: float = 0.0,
    s_tmin: float = 0.0,
    s_tmax: float = math.inf,
    s_noise: float = 1.0,
) -> Tensor:
    """Images `(B, C, H, W)` from standard normal `noise` in `steps` Heun steps, `2 steps - 1` network calls.

    Without churn this is EDM's algorithm 1; with `s_churn` > 0 algorithm 2, which first adds noise of the scale
    `s_noise` to each state between the noise levels `s_tmin` and `s_tmax`. The last step is Euler's: a second slope
    would be that of a state without noise. x0 is not clipped. `times` as in `sample_ddim`; churn needs the schedule
    ve_karras, where a time is a noise level.
    """
    schedule = denoiser.schedule
    require(s_churn == 0 or isinstance(schedule, KarrasVE), "s_churn", f"needs ve_karras, not {schedule.name}")
    times = schedule.nodes(steps) if times is None else times
    # Algorithm 2, line 5: at most 40% more noise at once.
    gamma = min(s_churn / steps, math.sqrt(2) - 1)
    x = initial_state(schedule, noise, times[-1])
    for node in range(steps, 0, -1):
        t, s = times[node], times[node - 1]
        if gamma > 0 and s_tmin <= t <= s_tmax:
            raised = t + gamma * t
            x = x + torch.sqrt(raised**2 - t**2).item() * s_noise * step_noise(noise, node).double()
            t = raised
        if node > 1:
            x = heun_step(schedule, lambda state, time: denoiser(state, time, labels), x, t, s)
        else:
            x = ddim_step(schedule, x, denoiser(x, t, labels), t, s)
    return x
