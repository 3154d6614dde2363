"""The papers' formulas for one image at a time, in plain Python floats: slow, and independent of the package."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

Image = list[float]  # the pixels of one 8x8 image
SIDE = 8


def each(function: Callable[..., float], *images: Image) -> Image:
    return [function(*pixels) for pixels in zip(*images, strict=True)]


def mean_square(a: Image, b: Image) -> float:
    return sum((p - q) ** 2 for p, q in zip(a, b, strict=True)) / len(a)


@dataclass(frozen=True)
class VP:
    """Cosine schedule on [0, 1], from its definition by the log signal-to-noise ratio; networks predict v."""

    def logsnr(self, t: float) -> float:
        first, last = math.atan(math.exp(-10)), math.atan(math.exp(10))
        return -2 * math.log(math.tan((last - first) * t + first))

    def alpha(self, t: float) -> float:
        return 1 / math.sqrt(1 + math.exp(-self.logsnr(t)))

    def sigma(self, t: float) -> float:
        return 1 / math.sqrt(1 + math.exp(self.logsnr(t)))

    def x0(self, network: nn.Module, x: Image, t: float) -> Image:
        v = call(network, x, self.logsnr(t))
        return each(lambda p, q: self.alpha(t) * p - self.sigma(t) * q, x, v)


@dataclass(frozen=True)
class VE:
    """EDM: the time is sigma; networks are preconditioned with sigma_data 0.5."""

    def logsnr(self, t: float) -> float:
        return -2 * math.log(t)

    def alpha(self, t: float) -> float:
        return 1.0

    def sigma(self, t: float) -> float:
        return t

    def x0(self, network: nn.Module, x: Image, t: float) -> Image:
        c_in = 1 / math.sqrt(t**2 + 0.25)
        out = call(network, [c_in * p for p in x], self.logsnr(t))
        return each(lambda p, q: 0.25 / (t**2 + 0.25) * p + t * 0.5 * c_in * q, x, out)

    def nodes(self, steps: int) -> list[float]:
        low, high = 0.002 ** (1 / 7), 80 ** (1 / 7)
        return [0.0, *((low + i / (steps - 1) * (high - low)) ** 7 for i in range(steps))]


Process = VP | VE


def call(network: nn.Module, x: Image, logsnr: float) -> Image:
    """The network's output for one image."""
    with torch.no_grad():
        batch = torch.tensor(x, dtype=torch.float64).reshape(1, 1, SIDE, SIDE)
        out: Image = network(batch, torch.tensor([logsnr], dtype=torch.float64), None).flatten().tolist()
    return out


def noised(process: Process, x0: Image, noise: Image, t: float) -> Image:
    return each(lambda p, q: process.alpha(t) * p + process.sigma(t) * q, x0, noise)


def ddim(process: Process, x: Image, x0: Image, t: float, s: float) -> Image:
    """The direction from x0 to x is the noise, and it stays."""
    noise = each(lambda p, q: (p - process.alpha(t) * q) / process.sigma(t), x, x0)
    return noised(process, x0, noise, s)


def undo_ddim(process: Process, x: Image, y: Image, t: float, s: float) -> Image:
    """Two equations, `x = a_t x0 + s_t noise` and `y = a_s x0 + s_s noise`, solved for x0 by Cramer's rule."""
    determinant = process.alpha(t) * process.sigma(s) - process.alpha(s) * process.sigma(t)
    return each(lambda p, q: (p * process.sigma(s) - q * process.sigma(t)) / determinant, x, y)


def heun(x0: Callable[[Image, float], Image], x: Image, t: float, s: float) -> Image:
    """EDM's second-order step in sigma, with the denoiser `x0(x, sigma)`."""
    slope = each(lambda p, q: (p - q) / t, x, x0(x, t))
    y = each(lambda p, d: p + (s - t) * d, x, slope)
    if s == 0:
        return y
    second = each(lambda p, q: (p - q) / s, y, x0(y, s))
    return each(lambda p, d, e: p + (s - t) * (d + e) / 2, x, slope, second)


def posterior(process: Process, x: Image, x0: Image, noise: Image, t: float, s: float) -> Image:
    """A draw of q(x_s | x_t, x0) by Bayes' rule: the prior `N(a_s x0, s_s^2)` meets the likelihood of x_t."""
    ratio = process.alpha(t) / process.alpha(s)
    likelihood = ratio**2 / (process.sigma(t) ** 2 - (ratio * process.sigma(s)) ** 2)
    prior = process.sigma(s) ** -2
    mean = each(
        lambda p, q: (prior * process.alpha(s) * q + likelihood * p / ratio) / (prior + likelihood),
        x,
        x0,
    )
    return each(lambda m, e: m + e / math.sqrt(prior + likelihood), mean, noise)


def snr(process: Process, t: float) -> float:
    return math.exp(process.logsnr(t))


WEIGHTS: dict[str, Callable[[float], float]] = {
    "uniform": lambda snr: 1.0,
    "snr": lambda snr: snr,
    "truncated_snr": lambda snr: max(snr, 1.0),
    "snr_plus_one": lambda snr: snr + 1,
    "edm": lambda snr: (1 / snr + 0.25) / (0.25 / snr),
}
