"""Features that need neither weights nor labels: a small convolutional network as it is drawn, never trained."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor

from tract_ray.data import Dataset
from tract_ray.evaluation.extractors.classifier import classifier_label
from tract_ray.evaluation.extractors.extractor import FeatureExtractor, register

FEATURES, WIDTHS, PLACES = 64, (32, 64), 4


@register
class RandomFeatures(FeatureExtractor):
    """64 random projections of two random convolutions, pooled to 4x4 places.

    Random networks tell data sets apart that ImageNet's features do not fit (Naeem et al., arXiv:2002.09797). They see
    colours, edges and where these are; what a picture shows they do not know. Scaled as the classifier's are, so that
    a distance reads as per cent of the data's own spread.
    """

    kind = "random"
    note = "compares colours, edges and their places by a network that was never trained, of these data alone"

    def __init__(self, dataset: Dataset, device: torch.device) -> None:
        # Not torch's generator: its numbers are another device's, and may be another version's.
        generator, inside = np.random.Generator(np.random.Philox(0)), dataset.shape[0]
        self.convolutions: list[Tensor] = []
        for width in WIDTHS:
            drawn = generator.standard_normal((width, inside, 3, 3)) * np.sqrt(2 / (9 * inside))
            self.convolutions.append(torch.from_numpy(drawn).float())
            inside = width
        pooled = inside * min(PLACES, dataset.shape[1] // 2) * min(PLACES, dataset.shape[2] // 2)
        drawn = generator.standard_normal((pooled, FEATURES)) / np.sqrt(pooled)
        self.projection = torch.from_numpy(drawn).float()
        content = b"".join(w.numpy().tobytes() for w in (*self.convolutions, self.projection))
        self.convolutions = [w.to(device) for w in self.convolutions]
        self.projection = self.projection.to(device)
        self.scale = 1.0
        spread = self.all(dataset.images).var(axis=0, ddof=1).sum() if len(dataset) > 1 else 0.0
        self.scale = float(np.sqrt(100.0 / max(spread, 1e-12)))
        self.label = classifier_label(dataset.name).replace("classifier_", "", 1)
        self.label = f"random_{self.label}"
        self.fingerprint = hashlib.sha256(content + repr(self.scale).encode()).hexdigest()[:12]

    @classmethod
    def build(cls, dataset: Dataset, cache: Path, device: torch.device) -> FeatureExtractor:
        return cls(dataset, device)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> NDArray[np.float64]:
        first, second = self.convolutions
        h = images.to(self.projection.device).float() / 127.5 - 1
        h = F.avg_pool2d(F.relu(F.conv2d(h, first, padding=1)), 2)
        h = F.relu(F.conv2d(h, second, padding=1))
        h = F.adaptive_avg_pool2d(h, (min(PLACES, h.shape[2]), min(PLACES, h.shape[3])))
        return self.scale * (h.flatten(1) @ self.projection).double().cpu().numpy()
