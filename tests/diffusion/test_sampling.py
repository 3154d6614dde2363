"""Sampling with a perfect denoiser of Gaussian data, whose probability flow is known."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from tract_ray.diffusion import CosineVP, GaussianDenoiser, KarrasVE, NoiseSchedule, initial_state, sample_ddim

MEAN, STD = 0.2, 0.3


def noise() -> Tensor:
    return torch.linspace(-3, 3, 25, dtype=torch.float64).reshape(-1, 1, 1, 1)


def exact(schedule: NoiseSchedule) -> Tensor:
    """Where the flow carries the sampler's start: the standardised state stays what it is."""
    first = math.atan(math.exp(-10))
    alpha_end, sigma_end = (1.0, 80.0) if isinstance(schedule, KarrasVE) else (math.sin(first), math.cos(first))
    start = (sigma_end * noise() - alpha_end * MEAN) / math.sqrt(alpha_end**2 * STD**2 + sigma_end**2)
    return MEAN + STD * start


def error(schedule: NoiseSchedule, steps: int) -> float:
    found = sample_ddim(GaussianDenoiser(schedule, MEAN, STD), noise(), steps, clip=False)
    return float((found - exact(schedule)).abs().max())


@pytest.mark.parametrize("schedule", [CosineVP(), KarrasVE()], ids=lambda s: s.name)
def test_a_perfect_denoiser_is_reproduced(schedule: NoiseSchedule) -> None:
    assert error(schedule, 1024) < 3e-3


@pytest.mark.parametrize("schedule", [CosineVP(), KarrasVE()], ids=lambda s: s.name)
@pytest.mark.parametrize("steps", [128, 256, 512])
def test_ddim_is_of_first_order(schedule: NoiseSchedule, steps: int) -> None:
    assert error(schedule, steps) / error(schedule, 2 * steps) == pytest.approx(2, rel=0.15)


def test_the_samples_have_the_data_s_moments() -> None:
    z = torch.randn((50_000, 1, 1, 1), generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    x = sample_ddim(GaussianDenoiser(CosineVP(), MEAN, STD), z, 256, clip=False)
    assert x.mean().item() == pytest.approx(MEAN, abs=5 * STD / math.sqrt(50_000))
    assert x.std().item() == pytest.approx(STD, rel=0.02)


def test_flow_is_what_the_sampler_approaches() -> None:
    """The closed form that contracts use agrees with the one written here."""
    schedule = CosineVP()
    x_t = initial_state(schedule, noise(), torch.tensor(1.0))
    flow = GaussianDenoiser(schedule, MEAN, STD).flow(x_t, torch.tensor(1.0), torch.tensor(0.0))
    assert (flow - exact(schedule)).abs().max() < 1e-7  # at t = 0, sigma is still 4.5e-5


@pytest.mark.parametrize("steps", [1, 3])
def test_clipping_bounds_every_x0(steps: int) -> None:
    denoiser = GaussianDenoiser(KarrasVE(), mean=3.0, std=0.1)
    assert sample_ddim(denoiser, noise(), steps).max().item() == pytest.approx(1.0)
    assert sample_ddim(denoiser, noise(), steps, clip=False).max().item() > 2.5


def test_own_times_replace_the_schedule_s() -> None:
    denoiser = GaussianDenoiser(CosineVP(), MEAN, STD)
    times = CosineVP().nodes(1024)[::32]
    assert torch.equal(sample_ddim(denoiser, noise(), 32, times=times), sample_ddim(denoiser, noise(), 32))
    half = sample_ddim(denoiser, noise(), 1, times=torch.tensor([0.0, 0.5]), clip=False)
    first, start = math.atan(math.exp(-10)), math.sqrt(0.5) * noise()
    x0 = denoiser(start, torch.tensor(0.5))
    by_hand = math.cos(first) * x0 + math.sin(first) / math.sqrt(0.5) * (start - math.sqrt(0.5) * x0)
    assert torch.allclose(half, by_hand, atol=1e-9)
