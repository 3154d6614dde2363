"""Trainings whose images, noise and times are given, so that two programs can be held side by side, step by step."""

from __future__ import annotations

import copy
import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from unittest import mock

import torch
from torch import Tensor, nn

from tract_ray.data import Dataset
from tract_ray.diffusion import Denoiser, build_schedule
from tract_ray.distillation import Batch, Draws, Method, methods
from tract_ray.networks import build_network
from tract_ray.training import loop
from tract_ray.training.recipes import recipes

SHAPE = (1, 16, 16)
SMALL = {"channels": 8, "multipliers": (1,), "blocks": 1, "attention": ()}
Weights = list[Tensor]


@dataclass(frozen=True)
class Script:
    """What a step is given: images and noises `(B, C, H, W)`, uniform numbers `(B,)` in the order they are used."""

    images: Tensor
    noises: Sequence[Tensor]
    uniforms: Sequence[Tensor]


def scripts(steps: int, batch: int, seed: int = 0) -> list[Script]:
    """Numbers for so many steps, in float64; images in [-1, 1], two noises and two uniform numbers a step."""
    generator = torch.Generator().manual_seed(seed)
    size = (batch, *SHAPE)
    return [
        Script(
            torch.rand(size, generator=generator, dtype=torch.float64) * 2 - 1,
            [torch.randn(size, generator=generator, dtype=torch.float64) for _ in range(2)],
            [torch.rand(batch, generator=generator, dtype=torch.float64) for _ in range(2)],
        )
        for _ in range(steps)
    ]


class FromScript(Draws):
    """Draws that are read from a script, in the order in which they are asked for."""

    def __init__(self, script: Script) -> None:
        super().__init__(0, len(script.images))
        self.noises, self.uniforms = list(script.noises), list(script.uniforms)

    def normal(self, shape: Sequence[int]) -> Tensor:
        return self.noises.pop(0)

    def uniform(self) -> Tensor:
        return self.uniforms.pop(0)

    def integers(self, high: int) -> Tensor:
        return (self.uniform() * high).long()


@dataclass
class Outcome:
    """Weights at the end by name, and for each step the gradient's norm before clipping."""

    norms: list[float] = field(default_factory=list)
    weights: dict[str, Weights] = field(default_factory=dict)


def weights_of(network: nn.Module) -> Weights:
    """Copies of a network's weights."""
    return [p.detach().clone() for p in network.parameters()]


def distance(a: Weights, b: Weights) -> float:
    """Euclidean distance of two networks' weights."""
    return float(sum(float((p - q).square().sum()) for p, q in zip(a, b, strict=True)) ** 0.5)


def perturbed(network: nn.Module, scale: float, seed: int = 0) -> nn.Module:
    """A trainable copy of `network` with noise on its weights."""
    network, generator = copy.deepcopy(network).requires_grad_(True), torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(scale * torch.randn(parameter.shape, generator=generator, dtype=parameter.dtype))
    return network


def networks(recipe: str) -> tuple[nn.Module, nn.Module]:
    """Teacher and student in float64: not the same, so that a mix-up shows, and with some size to their outputs."""
    network = build_network("edm_8x8" if "edm" in recipe else "unet_16x16", SHAPE, options=SMALL, seed=0)
    teacher = perturbed(network, 0.05).double().eval().requires_grad_(False)
    return teacher, perturbed(teacher, 0.02, seed=1)


def train_scripted(recipe: str, script: Sequence[Script], folder: Path, **changes: Any) -> Outcome:
    """The training of this package: its loop, its method, its optimiser, with the script's numbers."""
    size = {"batch": len(script[0].images), "samples": len(script[0].images) * len(script)}
    config = recipes[recipe].changed({**size, **changes})
    teacher, student = networks(recipe)
    edm = "edm" in recipe
    view = Denoiser(teacher, build_schedule("ve_karras" if edm else "vp_cosine"), "edm" if edm else "x0")
    method = methods[config.kind](config, view, student)

    def make_batch(method: Method, dataset: object, seed: int, step: int, worker: object) -> Batch:
        return Batch(script[step].images, None, FromScript(script[step]), step - method.phase.start)

    no_images = Dataset("none", torch.zeros(1, *SHAPE, dtype=torch.uint8), torch.zeros(1, dtype=torch.int64), 0)
    with mock.patch.object(loop, "make_batch", make_batch):
        loop.train(method, no_images, seed=0, key="", folder=folder, log_points=10**6)
    lines = [json.loads(line) for line in (folder / "record.jsonl").read_text().splitlines()]
    found = {name: own for name, own in method.modules().items() if name in ("student", "self_teacher", "auxiliary")}
    found["inference"] = next(iter(method.candidates().values()))
    norms = [line["metrics"]["gradient_norm"] for line in lines if "gradient_norm" in line["metrics"]]
    return Outcome(norms, {name: weights_of(network) for name, network in found.items()})
