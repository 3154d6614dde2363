"""What the tests of all formats do with a network and with the file that it came in."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn
from typer.testing import CliRunner

from tract_ray.cli.command import app
from tract_ray.training import Model, load_model


def randomised(network: nn.Module, seed: int = 1) -> nn.Module:
    """Fresh networks end in zeros, which would agree with anything."""
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(seed)
        for weight in network.parameters():
            weight += 0.05 * torch.randn_like(weight)
    return network.eval()


def model_folder(source: Path, folder: Path, *options: str) -> Model:
    """What `tract-ray import-teacher` makes of a file."""
    arguments = ["import-teacher", str(source), "--out", str(folder), *options]
    CliRunner().invoke(app, arguments, catch_exceptions=False)
    return load_model(folder)
