"""Small models with weights that are no zeros."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from tract_ray.diffusion import Denoiser, build_schedule
from tract_ray.networks.exporting import export_network
from tract_ray.training import Model, NetworkConfig
from tract_ray.training.run_config import build_for

SIZES: dict[str, dict[str, Any]] = {
    "mlp_8x8": {"width": 16, "blocks": 1, "embedding": 16},
    "unet_8x8": {"multipliers": (1,), "attention": (8,)},
    "edm_8x8": {"multipliers": (1,), "attention": (4,)},
    # Diffusers needs as many groups in every norm: 32 from 128 channels on.
    "unet_cifar10": {"channels": 128, "embedding": 32, "multipliers": (1,), "blocks": 1, "attention": ()},
}


def model(name: str, prediction: str, num_classes: int = 0, times: list[float] | None = None) -> Model:
    config = NetworkConfig(name=name, options=SIZES[name])
    network = build_for(config, (1, 8, 8), prediction, num_classes, seed=0)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        for weight in network.parameters():  # fresh networks end in a layer of zeros
            weight += 0.03 * torch.randn_like(weight)
    schedule = build_schedule("ve_karras" if prediction == "edm" else "vp_cosine")
    denoiser = Denoiser(network.eval().requires_grad_(False), schedule, prediction)
    steps = len(times) - 1 if times else 1024
    return Model(denoiser, config, (1, 8, 8), steps, num_classes, times, dataset="digits")


def noise(count: int) -> torch.Tensor:
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(2))


def weights_of(source: Model, path: Path) -> Path:
    network = source.network
    return export_network(
        source.denoiser,
        source.shape,
        path,
        "safetensors",
        num_classes=source.num_classes,
        network=network.name,
        options=network.options,
    )
