"""Step functions: the inverse inverts, Heun is of second order, the posterior is Bayes' rule."""

from __future__ import annotations

import itertools
import math

import pytest
import torch
from torch import Tensor

from tract_ray.diffusion import (
    GaussianDenoiser,
    KarrasVE,
    add_noise,
    ancestral_step,
    build_schedule,
    ddim_step,
    heun_step,
    invert_ddim_step,
    schedules,
)

NODES = {"vp_cosine": 1024, "ve_karras": 40}


def states(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """x_0 and noise for `count` samples, `(count, 1, 2, 2)`, float64."""
    generator = torch.Generator().manual_seed(seed)
    shape = (count, 1, 2, 2)
    x0 = torch.rand(shape, generator=generator, dtype=torch.float64) * 2 - 1
    return x0, torch.randn(shape, generator=generator, dtype=torch.float64)


def pairs(name: str, kind: str) -> tuple[Tensor, Tensor]:
    """Times t and s: every step of the schedule, every jump to its clean end, or every jump from its noisy end."""
    nodes = build_schedule(name).nodes(NODES[name])
    if kind == "adjacent":
        return nodes[1:], nodes[:-1]
    if kind == "to the start":
        return nodes[1:], nodes[0].expand(len(nodes) - 1)
    return nodes[-1].expand(len(nodes) - 1), nodes[:-1]


@pytest.mark.parametrize("name", schedules)
@pytest.mark.parametrize("kind", ["adjacent", "to the start", "from the end"])
def test_the_inverse_of_a_ddim_step_inverts(name: str, kind: str) -> None:
    schedule = build_schedule(name)
    t, s = pairs(name, kind)
    x0, noise = states(len(t))
    x_t = add_noise(schedule, x0, noise, t)
    x_s = ddim_step(schedule, x_t, x0, t, s)
    assert (invert_ddim_step(schedule, x_t, x_s, t, s) - x0).abs().max() < 1e-9
    other = x_s + 0.1 * states(len(t), seed=1)[1]  # any x_s, not only the one that x_0 leads to
    again = ddim_step(schedule, x_t, invert_ddim_step(schedule, x_t, other, t, s), t, s)
    assert (again - other).abs().max() < 1e-9


@pytest.mark.parametrize("name", schedules)
def test_ddim_keeps_the_noise_of_a_true_pair(name: str) -> None:
    """With the true x_0, a step lands on `alpha_s x_0 + sigma_s xi` of the same xi."""
    schedule = build_schedule(name)
    t, s = pairs(name, "adjacent")
    x0, noise = states(len(t))
    landed = ddim_step(schedule, add_noise(schedule, x0, noise, t), x0, t, s)
    assert (landed - add_noise(schedule, x0, noise, s)).abs().max() < 1e-11


def test_a_float32_state_survives_the_inverse() -> None:
    schedule = build_schedule("vp_cosine")
    t, s = pairs("vp_cosine", "adjacent")
    x0, noise = (x.float() for x in states(len(t)))
    x_t = add_noise(schedule, x0.double(), noise.double(), t).float()
    x_s = ddim_step(schedule, x_t.double(), x0.double(), t, s).float()
    assert (invert_ddim_step(schedule, x_t, x_s, t, s) - x0).abs().max() < 3e-4


def test_ddim_by_hand() -> None:
    """One VE step in plain numbers: x_s = x0 + (s / t)(x_t - x0)."""
    x_t, x0 = torch.full((1, 1, 1, 1), 3.0), torch.full((1, 1, 1, 1), 1.0)
    assert ddim_step(KarrasVE(), x_t, x0, torch.tensor(4.0), torch.tensor(1.0)).item() == pytest.approx(1.5)
    assert ddim_step(KarrasVE(), x_t, x0, torch.tensor(4.0), torch.tensor(0.0)).item() == pytest.approx(1.0)


def heun_error(steps: int) -> float:
    """Largest error of `steps` Heun steps from sigma 5 to 0.1 on Gaussian data, against the closed form."""
    schedule, mean, std = KarrasVE(), 0.2, 0.3
    denoiser = GaussianDenoiser(schedule, mean, std)
    times = torch.linspace(5 ** (1 / 7), 0.1 ** (1 / 7), steps + 1, dtype=torch.float64) ** 7
    start = 5 * states(8)[1]
    x = start
    for t, s in itertools.pairwise(times):
        x = heun_step(schedule, denoiser, x, t.expand(8), s.expand(8))
    exact = mean + (start - mean) * math.sqrt((0.1**2 + std**2) / (5**2 + std**2))
    return float((x - exact).abs().max())


@pytest.mark.parametrize("steps", [20, 40, 80])
def test_heun_is_of_second_order(steps: int) -> None:
    assert heun_error(steps) / heun_error(2 * steps) == pytest.approx(4, rel=0.15)


def test_heun_ends_with_the_denoised_image() -> None:
    schedule = KarrasVE()
    denoiser = GaussianDenoiser(schedule)
    x_t = states(3)[1]
    t, s = torch.tensor([0.002, 0.5, 0.5]), torch.tensor([0.0, 0.0, 0.1])
    x_s = heun_step(schedule, denoiser, x_t, t, s)
    assert torch.allclose(x_s[:2], denoiser(x_t, t)[:2], atol=1e-14)
    assert not torch.allclose(x_s[2], denoiser(x_t, t)[2], atol=1e-3)


def posterior(x_t: float, x0: float, at: float, st: float, as_: float, ss: float) -> tuple[float, float]:
    """Mean and standard deviation of `N(x_s; a_s x_0, s_s^2) N(x_t; r x_s, s_t^2 - r^2 s_s^2)`, in precisions."""
    r = at / as_
    prior, likelihood = 1 / ss**2, r**2 / (st**2 - r**2 * ss**2)
    precision = prior + likelihood
    return (prior * as_ * x0 + likelihood * (x_t / r)) / precision, math.sqrt(1 / precision)


@pytest.mark.parametrize(
    ("name", "t", "s"),
    [
        ("vp_cosine", 1.0, 0.5),
        ("vp_cosine", 0.5, 0.499),
        ("vp_cosine", 0.3, 0.0),
        ("ve_karras", 80.0, 0.5),
        ("ve_karras", 1.0, 0.9),
    ],
)
def test_ancestral_posterior_is_bayes_rule(name: str, t: float, s: float) -> None:
    schedule = build_schedule(name)
    times = torch.tensor([t, s], dtype=torch.float64)
    (at, as_), (st, ss) = schedule.alpha(times).tolist(), schedule.sigma(times).tolist()
    mean, std = posterior(0.7, -0.4, at, st, as_, ss)
    x_t, x0 = (torch.full((1, 1, 1, 1), v, dtype=torch.float64) for v in (0.7, -0.4))
    at_mean, one_off = (
        ancestral_step(schedule, x_t, x0, torch.full_like(x_t, xi), times[0], times[1]).item() for xi in (0.0, 1.0)
    )
    assert at_mean == pytest.approx(mean, rel=1e-9, abs=1e-12)
    assert one_off - at_mean == pytest.approx(std, rel=1e-9)


def test_ancestral_step_to_no_noise_returns_x0() -> None:
    x0, noise = states(4)
    t, s = torch.full((4,), 0.5), torch.zeros(4)
    assert torch.equal(ancestral_step(KarrasVE(), x0 + 0.5 * noise, x0, noise, t, s), x0)


@pytest.mark.parametrize("name", schedules)
def test_ancestral_steps_keep_the_marginal(name: str) -> None:
    """From x_t ~ q(x_t | x_0), a posterior draw has the mean and variance of q(x_s | x_0)."""
    schedule = build_schedule(name)
    t, s = (schedule.nodes(NODES[name])[k].double() for k in (NODES[name] // 2, NODES[name] // 4))
    generator = torch.Generator().manual_seed(0)
    first, second = torch.randn((2, 200_000, 1, 1, 1), generator=generator, dtype=torch.float64)
    x0 = torch.full_like(first, 0.6)
    x_s = ancestral_step(schedule, add_noise(schedule, x0, first, t), x0, second, t, s)
    sigma = schedule.sigma(s).item()
    assert x_s.mean().item() == pytest.approx(0.6 * schedule.alpha(s).item(), abs=5 * sigma / math.sqrt(200_000))
    assert x_s.std().item() == pytest.approx(sigma, rel=0.01)
