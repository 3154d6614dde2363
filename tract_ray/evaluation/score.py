"""What a sampler scores: the distance of its images, from fixed noise, to a data set's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tract_ray.data import Dataset
from tract_ray.data.dataset import to_uint8
from tract_ray.evaluation.features import FeatureExtractor, build_extractor
from tract_ray.evaluation.frechet import Statistics, computation, frechet_distance

Sampler = Callable[[Tensor, Tensor | None], Tensor]
"""`(noise (B, C, H, W), labels (B,) or None) -> images (B, C, H, W) in [-1, 1]`."""

CHUNK = 500


def fixed_noise(seed: int, start: int, count: int, shape: tuple[int, int, int]) -> Tensor:
    """Standard normal `(count, C, H, W)` for samples `start …` of an evaluation; made on the CPU, in chunks of 500,
    so that every machine, device and number of workers starts from the same noise.
    """
    parts = []
    for chunk in range(start // CHUNK, -(-(start + count) // CHUNK)):
        generator = torch.Generator().manual_seed(seed * 1_000_003 + chunk)
        parts.append(torch.randn((CHUNK, *shape), generator=generator))
    offset = start % CHUNK
    return torch.cat(parts)[offset : offset + count]


class Evaluator:
    """Scores samplers against one data set with one extractor, from noise fixed by `seed`."""

    def __init__(
        self,
        dataset: Dataset,
        features: str,
        cache: Path,
        *,
        seed: int = 0,
        device: torch.device | str = "cpu",
        conditional: bool = False,
    ) -> None:
        self.dataset, self.seed, self.device, self.conditional = dataset, seed, torch.device(device), conditional
        self.extractor: FeatureExtractor = build_extractor(features, dataset, cache, device)
        self.metric = self.extractor.metric
        self._real: NDArray[np.float64] | None = None
        self._reference: Statistics | None = None

    @property
    def real(self) -> NDArray[np.float64]:
        """Features of the whole data set, `(N, D)`."""
        if self._real is None:
            self._real = self.extractor.all(self.dataset.images)
        return self._real

    @property
    def reference(self) -> Statistics:
        """Statistics of `real`."""
        if self._reference is None:
            self._reference = Statistics.of(self.real)
        return self._reference

    def features(self, sampler: Sampler, start: int, count: int) -> NDArray[np.float64]:
        """Features `(count, D)` of the sampler's images number `start …` of this evaluation's fixed noise."""
        parts = [self.real[:0]]  # a share may be empty
        for first in range(start, start + count, CHUNK):
            size = min(CHUNK, start + count - first)
            noise = fixed_noise(self.seed, first, size, self.dataset.shape).to(self.device)
            images = sampler(noise, self.labels(first, size))
            parts.append(self.extractor(to_uint8(images)))
        return np.concatenate(parts)

    def labels(self, start: int, count: int) -> Tensor | None:
        """Labels of samples `start …`: the classes in turn, or None for an unconditional network."""
        if not self.conditional:
            return None
        return torch.arange(start, start + count, device=self.device) % self.dataset.num_classes

    def distance(self, sampler: Sampler, count: int) -> float:
        """Fréchet distance of `count` fixed samples to the data."""
        return frechet_distance(Statistics.of(self.features(sampler, 0, count)), self.reference)

    def noise_floor(self) -> float:
        """Distance of one random half of the real images to the other: what a perfect sampler could show."""
        order = np.random.default_rng(self.seed).permutation(len(self.real))
        half = len(order) // 2
        return frechet_distance(Statistics.of(self.real[order[:half]]), Statistics.of(self.real[order[half:]]))

    def describe(self, count: int) -> dict[str, str | int]:
        """What must be named with every distance: metric, extractor, computation, number of samples and seed."""
        return {
            "metric": self.metric,
            "extractor": self.extractor.fingerprint,
            "computation": computation(),
            "samples": count,
            "seed": self.seed,
        }
