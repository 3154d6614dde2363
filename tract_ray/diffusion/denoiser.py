"""The x0 view of a network: `f(x_t, t)` for every parametrisation."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from tract_ray.config import choose
from tract_ray.diffusion.schedules import NoiseSchedule
from tract_ray.diffusion.steps import expand

SIGMA_DATA = 0.5

PRECISIONS = ("float32", "bf16")


def in_precision(precision: str, device: torch.device) -> AbstractContextManager[None]:
    """Where a network is called: in its weights' own precision, or ("bf16") its products in bfloat16 (autocast)."""
    if precision == "float32":
        return nullcontext()
    return torch.autocast(device.type, torch.bfloat16)


@dataclass(frozen=True)
class Prediction:
    """What a network's output means. `to_x0(out, x_t, alpha, sigma)` returns x0, `(B, C, H, W)`."""

    to_x0: Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]
    channels: int = 1  # output channels per image channel
    scale_input: Callable[[Tensor, Tensor], Tensor] | None = None  # (alpha, sigma) -> factor of x_t


def _both(out: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    x_hat, eps = out.chunk(2, dim=1)
    # alpha^2 (x_t - sigma eps) / alpha, with the division cancelled: finite where alpha vanishes.
    return sigma**2 * x_hat + alpha * (x_t - sigma * eps)


def _edm(out: Tensor, x_t: Tensor, alpha: Tensor, sigma: Tensor) -> Tensor:
    level = sigma / alpha
    total = level**2 + SIGMA_DATA**2
    return (SIGMA_DATA**2 / total) * (x_t / alpha) + (level * SIGMA_DATA / torch.sqrt(total)) * out


predictions: dict[str, Prediction] = {
    "x0": Prediction(lambda out, x_t, alpha, sigma: out),
    "eps": Prediction(lambda out, x_t, alpha, sigma: (x_t - sigma * out) / alpha),
    "v": Prediction(lambda out, x_t, alpha, sigma: alpha * x_t - sigma * out),
    "both": Prediction(_both, channels=2),
    "edm": Prediction(
        _edm, scale_input=lambda alpha, sigma: 1 / (alpha * torch.sqrt((sigma / alpha) ** 2 + SIGMA_DATA**2))
    ),
}
"""Salimans & Ho 2022, section 4 (x0, eps, v, both); Karras et al. 2022, table 1 (edm, with sigma_data 0.5)."""


class Denoiser:
    """The x0 view `f(x_t, t)` of a network that predicts x0, eps, v, both or EDM's F.

    The network is called as `network(x, logsnr, labels)` in its own precision, or in `precision` "bf16"; everything
    around it stays in the precision of `x_t`. `network` is a plain attribute, so a wrapped copy (DDP, a compiled
    module) can take its place. `times` are a student's nodes, `(steps + 1,)`: it knows no others. None is a network
    that was trained at all times.
    """

    def __init__(
        self,
        network: nn.Module,
        schedule: NoiseSchedule,
        prediction: str,
        times: Tensor | None = None,
        precision: str = "float32",
    ) -> None:
        self.network = network
        self.schedule = schedule
        self.prediction = choose("prediction", prediction, predictions)
        self.times = times
        self.precision = choose("precision", precision, PRECISIONS)
        self._view = predictions[prediction]

    def __call__(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        """x0 of `x_t` `(B, C, H, W)` at times `t` `(B,)` or scalar; `labels` `(B,)` of a conditional network."""
        t = t.to(x_t.device).expand(x_t.shape[0])
        alpha, sigma = expand(self.schedule.alpha(t), x_t), expand(self.schedule.sigma(t), x_t)
        x_in = x_t if self._view.scale_input is None else self._view.scale_input(alpha, sigma) * x_t
        dtype = next(self.network.parameters()).dtype
        with in_precision(self.precision, x_t.device):
            out = self.network(x_in.to(dtype), self.schedule.logsnr(t).to(dtype), labels)
        return self._view.to_x0(out.to(x_t.dtype), x_t, alpha.to(x_t.dtype), sigma.to(x_t.dtype))

    @property
    def module(self) -> nn.Module:
        """The network itself, out of whatever wraps it for training."""
        module: nn.Module = getattr(self.network, "module", self.network)
        return module

    def view_of(self, network: nn.Module, precision: str | None = None) -> Denoiser:
        """The same x0 view of another network, at any time; in another `precision` where one is named."""
        return Denoiser(network, self.schedule, self.prediction, precision=precision or self.precision)
