"""Methods and batches whose draws are written down, for comparison with `reference.py`."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from reference import WEIGHTS, Image, Process, mean_square, snr
from small_methods import small_config, small_network
from torch import Tensor, nn

from tract_ray.diffusion import Denoiser, build_schedule
from tract_ray.distillation import Batch, Draws, Method, methods

B = 6


class Scripted(Draws):
    """Draws that say what they are told to; `given` is asked for the next numbers in the order of the calls."""

    def __init__(self, *numbers: Sequence[float]) -> None:
        super().__init__(0, B)
        self.numbers = list(numbers)
        self.noises: list[Tensor] = []

    def uniform(self) -> Tensor:
        return torch.tensor(self.numbers.pop(0), dtype=torch.float64)

    def integers(self, high: int) -> Tensor:
        numbers = self.numbers.pop(0)
        assert max(numbers) < high
        return torch.tensor(numbers)

    def normal(self, shape: Sequence[int]) -> Tensor:
        self.noises.append(super().normal(shape).double())
        return self.noises[-1]


def build(kind: str, **changes: Any) -> tuple[Method, nn.Module, nn.Module]:
    """A method in double precision; its teacher's network; its student's, which the self-teacher's equals."""
    teacher, student = small_network(seed=0).double(), small_network(seed=1).double()
    ve = kind == "tract_edm" or changes.pop("ve", False)
    schedule = build_schedule("ve_karras" if ve else "vp_cosine")
    view = Denoiser(teacher.eval().requires_grad_(False), schedule, "edm" if ve else "v")
    method = methods[kind](small_config(kind, 12, B, **changes), view, student)
    method.start_phase(method.phases[0])
    return method, teacher, student


def batch_of(draws: Scripted, step: int = 0) -> tuple[Batch, list[Image]]:
    images = torch.rand((B, 1, 8, 8), generator=torch.Generator().manual_seed(3), dtype=torch.float64) * 2 - 1
    return Batch(images, None, draws, step), [image.flatten().tolist() for image in images]


def rows(noise: Tensor) -> list[Image]:
    return [row.flatten().tolist() for row in noise]


def agree(loss: Tensor, expected: list[float]) -> None:
    assert loss.dtype == torch.float64
    assert loss.tolist() == pytest.approx(expected, rel=1e-7)


def error(process: Process, network: nn.Module, x: Image, t: float, target: Image, weighting: str) -> float:
    return WEIGHTS[weighting](snr(process, t)) * mean_square(process.x0(network, x, t), target)


def some_uniforms(seed: int) -> list[float]:
    """Random numbers of [0, 1), among them its ends."""
    return [0.0, 1 - 1e-6, *(random.Random(seed).random() for _ in range(B - 2))]
