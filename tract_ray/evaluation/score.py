"""What a sampler scores: the distance of its images, from fixed noise, to a data set's."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tract_ray.data import Dataset
from tract_ray.data.dataset import to_uint8
from tract_ray.evaluation.extractors import FeatureExtractor, build_extractor
from tract_ray.evaluation.metrics import Metric, metrics
from tract_ray.evaluation.noise import CHUNK, Noise, fixed_labels, fixed_noise, set_seed

Sampler = Callable[[Tensor, Tensor | None], Tensor]
"""`(noise (B, C, H, W), labels (B,) or None) -> images (B, C, H, W) in [-1, 1]`."""


class Evaluator:
    """Scores samplers against one data set with one extractor and metric, from noise fixed by `seed`.

    `metric` is the name of what it measures, `fid_digits`. `label_kind` says how labels of a `conditional` network are
    chosen (`noise.py`). What is said of noise there holds for all methods: a number to report is of the set `report`.
    """

    def __init__(
        self,
        dataset: Dataset,
        features: str,
        cache: Path,
        *,
        metric: str = "fid",
        seed: int = 0,
        device: torch.device | str = "cpu",
        conditional: bool = False,
        label_kind: str = "balanced",
    ) -> None:
        self.dataset, self.seed, self.device = dataset, seed, torch.device(device)
        self.conditional, self.label_kind = conditional, label_kind
        self.extractor: FeatureExtractor = build_extractor(features, dataset, cache, device)
        self.measure: Metric = metrics[metric]()
        self.metric = f"{metric}_{self.extractor.label}"
        self._real: NDArray[np.float64] | None = None
        self._reference: Any = None

    @property
    def real(self) -> NDArray[np.float64]:
        """Features of the whole data set, `(N, D)`."""
        if self._real is None:
            self._real = self.extractor.all(self.dataset.images)
        return self._real

    @property
    def reference(self) -> Any:
        """What the metric keeps of `real`."""
        if self._reference is None:
            self._reference = self.measure.reference(self.real)
        return self._reference

    def features(self, sampler: Sampler, start: int, count: int, noise: Noise = "report") -> NDArray[np.float64]:
        """Features `(count, D)` of the sampler's images number `start …` of one of this evaluation's sets of noise."""
        parts = [self.real[:0]]  # a share may be empty
        for first in range(start, start + count, CHUNK):
            size = min(CHUNK, start + count - first)
            drawn = fixed_noise(set_seed(self.seed, noise), first, size, self.dataset.shape).to(self.device)
            images = sampler(drawn, self.labels(first, size, noise))
            parts.append(self.extractor(to_uint8(images)))
        return np.concatenate(parts)

    def labels(self, start: int, count: int, noise: Noise = "report") -> Tensor | None:
        """Labels of samples `start …`, or None for an unconditional network."""
        if not self.conditional:
            return None
        seed, classes = set_seed(self.seed, noise), self.dataset.num_classes
        return fixed_labels(seed, start, count, classes, self.label_kind).to(self.device)

    def distance_of(self, features: NDArray[np.float64]) -> float:
        """Distance of samples with these features to the data."""
        return self.measure.distance(features, self.reference)

    def distance(self, sampler: Sampler, count: int) -> float:
        """Distance of `count` fixed samples to the data."""
        return self.distance_of(self.features(sampler, 0, count))

    def noise_floor(self) -> float:
        """Distance of one random half of the real images to the other: what a perfect sampler could show."""
        order = np.random.default_rng(self.seed).permutation(len(self.real))
        half = len(order) // 2
        return self.measure.distance(self.real[order[:half]], self.measure.reference(self.real[order[half:]]))

    def describe(self, count: int) -> dict[str, str | int]:
        """What must be named with every distance: of what it is, by whom it was computed, and on which samples."""
        return {
            "metric": self.metric,
            "extractor": self.extractor.fingerprint,
            "computation": self.measure.computation(),
            "samples": count,
            "labels": self.label_kind if self.conditional else "none",
            "seed": self.seed,
        }
