"""Inception-v3 as NVIDIA ported it from TensorFlow, and who measured what with which of its relatives.

A distance compares with a published one only where weights, resizing, number of images, labels and the choice among
several measurements are the same:

| numbers of | extractor | weights | resizing to 299x299 | labels | reported |
|---|---|---|---|---|---|
| TRACT (Berthelot 2023) | `inception_legacy_pytorch` | pytorch-fid's | torch, bilinear | drawn | one |
| EDM (Karras 2022) | `inception_legacy_tensorflow` | NVIDIA's port | inside the network | drawn | least of three |
| clean-fid (Parmar 2022) | `inception_clean` | NVIDIA's port | PIL, bicubic, antialiased | | one |

All are of 50,000 images. Students of moment matching report the best evaluation of their training.
"""

from __future__ import annotations

import hashlib
import os
from abc import abstractmethod
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tract_ray.config import InputError
from tract_ray.data import Dataset
from tract_ray.evaluation.extractors.extractor import FeatureExtractor, register

INCEPTION_FILE = "inception-2015-12-05.pt"
INCEPTION_URL = f"https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/{INCEPTION_FILE}"
INCEPTION_VARIABLE = "TRACT_RAY_INCEPTION"


class InceptionFeatures(FeatureExtractor):
    """The 2048 activations before Inception's last layer, from weights on disk; nothing is downloaded.

    Its conventions are the literature's: 50,000 images, labels drawn at random.
    """

    samples = 50_000
    labels = "random"

    def __init__(self, device: torch.device) -> None:
        self.label, self.device, path = self.kind, device, self.weights()
        self.fingerprint = f"{path.name}:{file_hash(path)[:12]}"
        self.network = self.load(path).to(device).eval()

    @classmethod
    def build(cls, dataset: Dataset, cache: Path, device: torch.device) -> FeatureExtractor:
        return cls(device)

    @classmethod
    def check(cls) -> None:
        cls.weights()

    @classmethod
    @abstractmethod
    def weights(cls) -> Path:
        """The file with the weights, or the `InputError` that says where to get it."""

    @abstractmethod
    def load(self, path: Path) -> Any:
        """The network, from its weights."""

    @abstractmethod
    def features(self, rgb: Tensor) -> Tensor:
        """`(B, 2048)` of images `(B, 3, H, W)`, uint8."""

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> NDArray[np.float64]:
        rgb = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
        features: NDArray[np.float64] = self.features(rgb).double().cpu().numpy()
        return features


class TensorflowInception(InceptionFeatures):
    """NVIDIA's port, run by clean-fid."""

    resizes_inside: bool

    @classmethod
    def weights(cls) -> Path:
        places = (f"~/.cache/tract-ray/{INCEPTION_FILE}", f"/tmp/{INCEPTION_FILE}")  # the latter is clean-fid's own
        path = find_file(INCEPTION_VARIABLE, *places)
        if path is None or path.name != INCEPTION_FILE:
            raise missing(INCEPTION_URL, INCEPTION_VARIABLE)
        return path

    def load(self, path: Path) -> Any:
        from cleanfid.inception_torchscript import InceptionV3W

        try:
            return InceptionV3W(str(path.parent), download=False, resize_inside=self.resizes_inside)
        except RuntimeError:  # an interrupted download
            raise InputError(f"features: {path} is damaged; fetch {INCEPTION_URL} again") from None


@register
class InceptionClean(TensorflowInception):
    """Resized by clean-fid's antialiased bicubic filter."""

    kind = "inception_clean"
    resizes_inside = False

    def features(self, rgb: Tensor) -> Tensor:
        from cleanfid.resize import build_resizer

        resize = build_resizer("clean")
        arrays = [resize(image.permute(1, 2, 0).cpu().numpy()) for image in rgb]
        return self.network(torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2).to(self.device))  # type: ignore[no-any-return]


@register
class InceptionLegacyTensorflow(TensorflowInception):
    """Resized inside the network, as EDM's numbers are."""

    kind = "inception_legacy_tensorflow"
    resizes_inside = True

    def features(self, rgb: Tensor) -> Tensor:
        return self.network(rgb.float().to(self.device))  # type: ignore[no-any-return]


def find_file(variable: str, *places: str) -> Path | None:
    """The file that the environment `variable` names, else the first of `places` that is one."""
    named = os.environ.get(variable)
    paths = [Path(place).expanduser() for place in ([named] if named else places)]
    return next((path for path in paths if path.is_file()), None)


def missing(url: str, variable: str) -> InputError:
    """What to say where the weights are not on this machine."""
    return InputError(
        f"features: Inception's weights are not on this machine; fetch {url} and name the file in {variable}, "
        "or use --features classifier"
    )


def file_hash(path: Path) -> str:
    """SHA-256 of a file's content; computed again only where the file has changed."""
    about = path.stat()
    return _file_hash(path, about.st_mtime_ns, about.st_size)


@lru_cache(maxsize=8)
def _file_hash(path: Path, modified: int, size: int) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
