"""Heun's sampler against EDM's algorithms 1 and 2, written here in plain float64 from the paper."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from tract_ray.config import InputError
from tract_ray.diffusion import (
    CosineVP,
    Denoiser,
    GaussianDenoiser,
    KarrasVE,
    NoiseSchedule,
    sample_euler,
    sample_heun,
    samplers,
)
from tract_ray.diffusion.step_noise import step_noise
from tract_ray.networks import build_network

MEAN, STD = 0.2, 0.3
CHURN = {"s_churn": 40.0, "s_tmin": 0.05, "s_tmax": 50.0, "s_noise": 1.003}  # EDM's for ImageNet-64


def noise(count: int = 6, size: int = 8) -> Tensor:
    return torch.randn((count, 1, size, size), generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def edm(
    x0: Callable[[Tensor, float], Tensor], xi: Tensor, steps: int, fresh: Callable[[int], Tensor], **churn: float
) -> Tensor:
    """Karras et al. 2022, eq. 5 and algorithm 2; without churn, algorithm 1. `fresh(i)` is the noise of step i."""
    rho = 7
    levels = [
        (80 ** (1 / rho) + i / (steps - 1) * (0.002 ** (1 / rho) - 80 ** (1 / rho))) ** rho for i in range(steps)
    ] + [0.0]
    x = levels[0] * xi
    for i in range(steps):
        now, then = levels[i], levels[i + 1]
        within = churn.get("s_tmin", 0.0) <= now <= churn.get("s_tmax", math.inf)
        gamma = min(churn.get("s_churn", 0.0) / steps, math.sqrt(2) - 1) if within else 0.0
        raised = now * (1 + gamma)
        x = x + math.sqrt(raised**2 - now**2) * churn.get("s_noise", 1.0) * fresh(i)
        d = (x - x0(x, raised)) / raised
        y = x + (then - raised) * d
        if then:
            y = x + (then - raised) * (d + (y - x0(y, then)) / then) / 2
        x = y
    return x


@pytest.fixture(scope="module")
def denoiser() -> Denoiser:
    """A network of EDM's kind with weights that are not nearly zero."""
    network = build_network("mlp_8x8", options={"width": 32, "blocks": 1, "embedding": 16}, seed=0).double()
    with torch.no_grad():
        for parameter in network.parameters():
            parameter += 0.1 * torch.randn(parameter.shape, generator=torch.Generator().manual_seed(1)).double()
    return Denoiser(network.eval().requires_grad_(False), KarrasVE(), "edm")


def preconditioned(denoiser: Denoiser) -> Callable[[Tensor, float], Tensor]:
    """EDM's D(x; sigma), table 1, around the bare network."""
    network = copy.deepcopy(denoiser.module)

    def x0(x: Tensor, sigma: float) -> Tensor:
        total = sigma**2 + 0.25
        logsnr = torch.full((len(x),), -2 * math.log(sigma), dtype=torch.float64)
        out = network(x / math.sqrt(total), logsnr, None)
        return 0.25 / total * x + sigma * 0.5 / math.sqrt(total) * out

    return x0


@pytest.mark.parametrize("steps", [18, 40])
@pytest.mark.parametrize("churn", [{}, CHURN], ids=["deterministic", "churn"])
def test_it_gives_edm_s_images(denoiser: Denoiser, steps: int, churn: dict[str, float]) -> None:
    xi = noise()
    found = sample_heun(denoiser, xi, steps, **churn)
    expected = edm(preconditioned(denoiser), xi, steps, lambda i: step_noise(xi, steps - i).double(), **churn)
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-9)
    assert expected.abs().max() > 1.05, "clipping would show"


def error(steps: int, schedule: NoiseSchedule, sampler: str = "heun") -> float:
    gaussian = GaussianDenoiser(schedule, MEAN, STD)
    xi = torch.linspace(-3, 3, 25, dtype=torch.float64).reshape(-1, 1, 1, 1)
    first, last = schedule.nodes(2)[[0, -1]]
    exact = gaussian.flow(schedule.sigma(last) * xi, last, first)
    return float((samplers[sampler](gaussian, xi, steps) - exact).abs().max())


def test_it_is_of_second_order() -> None:
    """Halving the step quarters the error."""
    assert error(64, KarrasVE()) / error(128, KarrasVE()) == pytest.approx(4, rel=0.1)


def test_it_runs_on_a_vp_process_too() -> None:
    assert error(256, CosineVP()) < error(256, CosineVP(), "euler") / 50


@pytest.mark.parametrize("name", sorted(samplers))
@pytest.mark.parametrize("steps", [1, 2, 18])
def test_network_calls_are_counted(name: str, steps: int) -> None:
    class Counting(GaussianDenoiser):
        calls = 0

        def __call__(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
            Counting.calls += 1
            return super().__call__(x_t, t, labels)

    samplers[name](Counting(KarrasVE()), noise(), steps)
    assert Counting.calls == samplers[name].nfe(steps)


def test_edm_s_two_budgets() -> None:
    assert [samplers["heun"].nfe(steps) for steps in (18, 40)] == [35, 79]


def test_euler_is_heun_s_first_slope(denoiser: Denoiser) -> None:
    x0, x = preconditioned(denoiser), 80 * noise()
    levels = KarrasVE().nodes(5).flip(0).tolist()
    for now, then in pairwise(levels):
        x = x + (then - now) * (x - x0(x, now)) / now
    torch.testing.assert_close(sample_euler(denoiser, noise(), 5), x, rtol=0, atol=1e-10)


def test_churn_belongs_to_the_sample(denoiser: Denoiser) -> None:
    """An image does not depend on its batch, and differs from the one without churn."""
    xi = noise()
    whole = sample_heun(denoiser, xi, 6, **CHURN)
    alone = torch.cat([sample_heun(denoiser, xi[k : k + 1], 6, **CHURN) for k in range(len(xi))])
    torch.testing.assert_close(alone, whole, rtol=0, atol=1e-12)
    assert (whole - sample_heun(denoiser, xi, 6)).abs().max() > 0.01


def test_churn_keeps_the_distribution() -> None:
    """Noise that is added and taken away again: the samples still have the data's moments."""
    xi = noise(20_000, 1)
    images = sample_heun(GaussianDenoiser(KarrasVE(), MEAN, STD), xi, 256, s_churn=20.0)
    assert images.mean().item() == pytest.approx(MEAN, abs=4 * STD / math.sqrt(20_000))
    assert images.std().item() == pytest.approx(STD, rel=0.02)


def test_churn_is_for_ve() -> None:
    with pytest.raises(InputError, match="s_churn: needs ve_karras, not vp_cosine"):
        sample_heun(GaussianDenoiser(CosineVP()), noise(), 4, s_churn=1.0)
