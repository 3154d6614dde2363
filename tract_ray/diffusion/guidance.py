"""Classifier-free guidance: one class-conditional network, asked twice (Ho & Salimans 2022, arXiv 2207.12598)."""

from __future__ import annotations

import torch
from torch import Tensor

from tract_ray.config import InputError
from tract_ray.diffusion.denoiser import Denoiser

NO_CLASS = -1
"""The label of "no class": a class embedding of a negative label is its bias alone."""


class GuidedDenoiser(Denoiser):
    """`x0 = x0(no class) + guidance (x0(class) - x0(no class))`: guidance 1 is the plain conditional network.

    The network should have seen samples without their class in training (`label_dropout`). Views of other networks
    (`view_of`) are not guided: a student learns the guided x0 in a single call.
    """

    def __init__(self, denoiser: Denoiser, guidance: float) -> None:
        super().__init__(denoiser.network, denoiser.schedule, denoiser.prediction, denoiser.times, denoiser.precision)
        self.guidance = guidance

    def __call__(self, x_t: Tensor, t: Tensor, labels: Tensor | None = None) -> Tensor:
        if labels is None:
            raise InputError("guidance: needs a class-conditional network and labels")
        t = t.to(x_t.device).expand(x_t.shape[0])
        twice = super().__call__(
            torch.cat([x_t, x_t]), torch.cat([t, t]), torch.cat([labels, torch.full_like(labels, NO_CLASS)])
        )
        conditional, unconditional = twice.chunk(2)
        return unconditional + self.guidance * (conditional - unconditional)
