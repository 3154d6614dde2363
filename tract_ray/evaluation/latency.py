"""How long a sampler takes."""

from __future__ import annotations

import time

import torch

from tract_ray.evaluation.noise import fixed_noise
from tract_ray.evaluation.score import Sampler


def latency(
    sampler: Sampler,
    shape: tuple[int, int, int],
    device: torch.device,
    *,
    conditional: bool = False,
    images: int = 64,
    repeats: int = 3,
) -> float:
    """Seconds an image of `shape` (C, H, W), sampled in a batch of `images`: the quickest of `repeats`."""
    noise = fixed_noise(0, 0, images, shape).to(device)
    labels = torch.zeros(images, dtype=torch.int64, device=device) if conditional else None
    took = []
    for _ in range(repeats + 1):  # the first one warms up
        begun = time.perf_counter()
        sampler(noise, labels)[0, 0, 0, 0].item()  # waits for the device
        took.append(time.perf_counter() - begun)
    return min(took[1:]) / images
