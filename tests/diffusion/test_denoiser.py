"""Every parametrisation is the same x0 when the network's output is the consistent one; weightings by number."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from tract_ray.config import InputError
from tract_ray.diffusion import CosineVP, Denoiser, KarrasVE, add_noise, build_schedule, loss_weight, predictions

SIGMA_DATA = 0.5


class Fixed(nn.Module):
    """A network that returns what it was given beforehand, and remembers its inputs."""

    def __init__(self, out: Tensor, dtype: torch.dtype = torch.float64) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, dtype=dtype))
        self.out = out.to(dtype)
        self.seen: tuple[Tensor, Tensor, Tensor | None]

    def forward(self, x: Tensor, logsnr: Tensor, labels: Tensor | None = None) -> Tensor:
        self.seen = (x, logsnr, labels)
        return self.out


def consistent_output(name: str, x0: Tensor, eps: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    """What a perfect network of this parametrisation says, from the papers' definitions."""
    if name == "edm":
        level = sigma / alpha
        c_skip = SIGMA_DATA**2 / (level**2 + SIGMA_DATA**2)
        c_out = level * SIGMA_DATA / torch.sqrt(level**2 + SIGMA_DATA**2)
        return (x0 - c_skip * (x0 + level * eps)) / c_out
    return {"x0": x0, "eps": eps, "v": alpha * eps - sigma * x0, "both": torch.cat([x0, eps], 1)}[name]


PAIRS = [(name, "vp_cosine") for name in predictions]
PAIRS += [(name, "ve_karras") for name in ("x0", "eps", "edm")]  # v and both belong to variance-preserving processes


@pytest.mark.parametrize(("name", "schedule_name"), PAIRS)
def test_the_consistent_output_gives_x0(name: str, schedule_name: str) -> None:
    schedule = build_schedule(schedule_name)
    t = schedule.nodes(40)[1:]
    generator = torch.Generator().manual_seed(0)
    x0, eps = torch.randn((2, 40, 3, 2, 2), generator=generator, dtype=torch.float64)
    alpha, sigma = (c(t)[:, None, None, None] for c in (schedule.alpha, schedule.sigma))
    network = Fixed(consistent_output(name, x0, eps, alpha, sigma))
    found = Denoiser(network, schedule, name)(add_noise(schedule, x0, eps, t), t)
    assert (found - x0).abs().max() < 1e-9


@pytest.mark.parametrize("name", predictions)
def test_what_the_network_is_given(name: str) -> None:
    """Its own precision, the logsnr, the labels, and for EDM the input scaled to unit variance."""
    channels = 2 if name == "both" else 1
    network = Fixed(torch.zeros(2, channels, 2, 2), torch.float32)
    schedule = KarrasVE() if name == "edm" else CosineVP()
    x_t, labels = torch.full((2, 1, 2, 2), 0.8, dtype=torch.float64), torch.tensor([3, 4])
    out = Denoiser(network, schedule, name)(x_t, torch.tensor(0.5), labels)
    x, logsnr, seen = network.seen
    assert (out.dtype, x.dtype, logsnr.dtype) == (torch.float64, torch.float32, torch.float32)
    assert logsnr.tolist() == pytest.approx([2 * math.log(2) if name == "edm" else 0.0] * 2, abs=1e-6)
    assert seen is labels
    assert x.mean().item() == pytest.approx(0.8 / math.sqrt(0.5**2 + 0.5**2) if name == "edm" else 0.8)


def test_both_is_finite_where_the_signal_vanishes() -> None:
    out = torch.ones(1, 2, 1, 1, dtype=torch.float64)
    x0 = predictions["both"].to_x0(out, torch.ones(1, 1, 1, 1), torch.zeros(1), torch.ones(1))
    assert x0.item() == 1.0


def test_unknown_prediction() -> None:
    with pytest.raises(InputError, match=r"^prediction: unknown 'epsilon'"):
        Denoiser(nn.Identity(), CosineVP(), "epsilon")


@pytest.mark.parametrize("t", [0.0, 0.3, 0.5, 0.9, 1.0])
def test_weightings_on_the_cosine_schedule(t: float) -> None:
    b = math.atan(math.exp(-10))
    snr = 1 / math.tan(b + (math.pi / 2 - 2 * b) * t) ** 2
    expected = {"snr": snr, "truncated_snr": max(snr, 1), "snr_plus_one": snr + 1}
    time = torch.tensor([t], dtype=torch.float64)
    for name, value in expected.items():
        assert loss_weight(name, CosineVP(), time).item() == pytest.approx(value, rel=1e-9)


@pytest.mark.parametrize("sigma", [0.002, 0.5, 80.0])
def test_edm_weight_is_one_over_c_out_squared(sigma: float) -> None:
    """So that the loss in F-space has weight 1 (Karras et al. 2022, section 5)."""
    c_out = sigma * SIGMA_DATA / math.sqrt(sigma**2 + SIGMA_DATA**2)
    weight = loss_weight("edm", KarrasVE(), torch.tensor([sigma], dtype=torch.float64))
    assert weight.item() == pytest.approx(1 / c_out**2, rel=1e-9)


def test_v_error_is_the_snr_plus_one_error() -> None:
    """`|v - v'|^2 = (SNR + 1) |x0 - x0'|^2` (Salimans & Ho 2022, appendix D)."""
    schedule, t = CosineVP(), torch.tensor([0.2], dtype=torch.float64)
    alpha, sigma, x_t = schedule.alpha(t), schedule.sigma(t), torch.tensor([0.3])
    v = torch.tensor([0.7, -0.2], dtype=torch.float64)
    x0 = predictions["v"].to_x0(v, x_t, alpha, sigma)
    weight = loss_weight("snr_plus_one", schedule, t).item()
    assert weight * (x0[0] - x0[1]).item() ** 2 == pytest.approx(0.9**2, rel=1e-9)
