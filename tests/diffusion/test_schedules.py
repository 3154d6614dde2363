"""Schedules against slow Python arithmetic written from the papers' formulas."""

from __future__ import annotations

import math

import pytest
import torch

from tract_ray.config import InputError
from tract_ray.diffusion import CosineVP, KarrasVE, build_schedule, schedules

TIMES = [0.0, 1 / 1024, 0.01, 0.25, 0.5, 0.75, 0.99, 1023 / 1024, 1.0]


def cosine_logsnr(t: float) -> float:
    """`-2 log tan(a t + b)`, with a and b such that it runs from 20 to -20 (Salimans & Ho 2022)."""
    b = math.atan(math.exp(-10))
    a = math.atan(math.exp(10)) - b
    return -2 * math.log(math.tan(a * t + b))


def sigmoid(x: float) -> float:
    return 1 / (1 + math.exp(-x))


def scalar(value: float) -> torch.Tensor:
    return torch.tensor(value, dtype=torch.float64)


@pytest.mark.parametrize("t", TIMES)
def test_cosine_alpha_and_sigma_are_the_roots_of_the_sigmoids(t: float) -> None:
    schedule, logsnr = CosineVP(), cosine_logsnr(t)
    assert schedule.alpha(scalar(t)).item() == pytest.approx(math.sqrt(sigmoid(logsnr)), rel=1e-10)
    assert schedule.sigma(scalar(t)).item() == pytest.approx(math.sqrt(sigmoid(-logsnr)), rel=1e-10)
    assert schedule.logsnr(scalar(t)).item() == pytest.approx(logsnr, rel=1e-10, abs=1e-10)


def test_cosine_ends_are_the_clipped_ones() -> None:
    ends = CosineVP().logsnr(torch.tensor([0.0, 1.0]))
    assert ends.tolist() == pytest.approx([20.0, -20.0], rel=1e-11)


def test_cosine_preserves_variance() -> None:
    t = torch.linspace(0, 1, 10_001, dtype=torch.float64)
    total = CosineVP().alpha(t) ** 2 + CosineVP().sigma(t) ** 2
    assert (total - 1).abs().max() <= 1e-15


@pytest.mark.parametrize("name", schedules)
def test_coefficients_are_float64_whatever_the_times_are(name: str) -> None:
    schedule = build_schedule(name)
    t = torch.tensor([0.25, 0.5], dtype=torch.float32)
    assert {f(t).dtype for f in (schedule.alpha, schedule.sigma, schedule.logsnr)} == {torch.float64}


@pytest.mark.parametrize("name", schedules)
@pytest.mark.parametrize("steps", [1, 2, 40, 1024])
def test_nodes_increase_and_noise_with_them(name: str, steps: int) -> None:
    schedule = build_schedule(name)
    nodes = schedule.nodes(steps)
    assert nodes.shape == (steps + 1,)
    assert (nodes.diff() > 0).all()
    assert (schedule.logsnr(nodes).diff() < 0).all()


def test_cosine_nodes_of_fewer_steps_are_a_subset() -> None:
    assert torch.equal(CosineVP().nodes(32), CosineVP().nodes(1024)[::32])


@pytest.mark.parametrize("steps", [2, 18, 40])
def test_karras_nodes_follow_equation_5(steps: int) -> None:
    low, high = 0.002 ** (1 / 7), 80 ** (1 / 7)
    expected = [(high + i / (steps - 1) * (low - high)) ** 7 for i in range(steps)] + [0.0]
    assert KarrasVE().nodes(steps).flip(0).tolist() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize("steps", [1, 2, 40])
def test_karras_starts_exactly_at_sigma_max_and_ends_at_zero(steps: int) -> None:
    nodes = KarrasVE().nodes(steps)
    assert nodes[-1].item() == 80.0
    assert nodes[0].item() == 0.0


def test_karras_keeps_the_signal() -> None:
    t = torch.tensor([0.0, 0.5, 80.0])
    assert KarrasVE().alpha(t).tolist() == [1, 1, 1]
    assert KarrasVE().sigma(t).tolist() == [0.0, 0.5, 80.0]
    assert KarrasVE().logsnr(scalar(0.5)).item() == pytest.approx(2 * math.log(2), rel=1e-14)


@pytest.mark.parametrize("z", [-2.0, -1.0, 0.0, 1.0, 2.5])
def test_karras_training_levels_are_log_normal(z: float) -> None:
    u = 0.5 * (1 + math.erf(z / math.sqrt(2)))
    assert KarrasVE().training_times(scalar(u)).item() == pytest.approx(math.exp(-1.2 + 1.2 * z), rel=1e-6)


def test_karras_training_levels_stay_in_range() -> None:
    levels = KarrasVE().training_times(torch.tensor([0.0, 1e-12, 1 - 1e-16], dtype=torch.float64))
    assert levels.min().item() >= 0.002
    assert levels.max().item() <= 80.0


def test_unknown_schedule() -> None:
    with pytest.raises(InputError, match=r"^schedule: unknown 'vp_cosin'; did you mean 'vp_cosine'\?"):
        build_schedule("vp_cosin")
