"""What the loop does to the weights, seen through plain gradient descent."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tract_ray.data import load_dataset
from tract_ray.distillation import Denoising, DenoisingConfig
from tract_ray.networks import build_network
from tract_ray.training import train

CONFIG = DenoisingConfig(samples=8 * 8, batch=8, lr=1.0)


class GradientDescent(Denoising):
    """Denoising whose weights move by lr times the (clipped) gradient; remembers every learning rate."""

    def optimizer(self, name: str, parameters: list[torch.nn.Parameter]) -> torch.optim.Optimizer:
        self.rates: list[float] = []
        optimizer = torch.optim.SGD(parameters)
        optimizer.register_step_pre_hook(lambda o, *_: self.rates.append(o.param_groups[0]["lr"]))
        return optimizer


def trained(config: DenoisingConfig, folder: Path) -> tuple[GradientDescent, float]:
    """The method after training, and the length of the way that its weights went."""
    network = build_network("mlp_8x8_small", seed=0)
    start = torch.nn.utils.parameters_to_vector(network.parameters()).detach().clone()
    method = GradientDescent(config, None, network)
    train(method, load_dataset("digits"), seed=0, key="x", folder=folder)
    end = torch.nn.utils.parameters_to_vector(network.parameters()).detach()
    return method, (end - start).norm().item()


@pytest.mark.parametrize("clip", [1e-4, 1e-2])
def test_one_step_moves_by_the_clipped_norm(clip: float, tmp_path: Path) -> None:
    _, way = trained(replace(CONFIG, samples=8, clip_norm=clip), tmp_path)
    assert way == pytest.approx(clip, rel=1e-3)


@pytest.mark.parametrize(("decay", "rates"), [("constant", [1.0] * 8), ("linear", [1 - k / 8 for k in range(8)])])
def test_learning_rates(decay: str, rates: list[float], tmp_path: Path) -> None:
    method, _ = trained(replace(CONFIG, lr_decay=decay, clip_norm=1e-4), tmp_path)
    assert method.rates == rates


def test_the_average_is_the_mean_of_the_path(tmp_path: Path) -> None:
    """The bias-corrected average after two steps, from the weights after each."""
    one, _ = trained(replace(CONFIG, samples=8, clip_norm=0.1), tmp_path / "one")
    two, _ = trained(replace(CONFIG, samples=16, clip_norm=0.1, ema=0.75), tmp_path / "two")
    (average,) = two.candidates().values()
    for first, second, mean in zip(
        one.student.module.parameters(), two.student.module.parameters(), average.parameters(), strict=True
    ):
        assert torch.allclose(mean, (0.75 * first + second) / 1.75, atol=1e-6)
