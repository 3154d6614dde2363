"""An extractor without any weights, for tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tract_ray.data import Dataset
from tract_ray.evaluation.extractors import FeatureExtractor


class Brightness(FeatureExtractor):
    """Mean and spread of an image's pixels."""

    kind = label = "brightness"
    fingerprint = "1"
    samples = 60

    @classmethod
    def build(cls, dataset: Dataset, cache: Path, device: torch.device) -> FeatureExtractor:
        return cls()

    def __call__(self, images: Tensor) -> NDArray[np.float64]:
        pixels = images.flatten(1).double()
        return torch.stack([pixels.mean(1), pixels.std(1)], 1).cpu().numpy()
