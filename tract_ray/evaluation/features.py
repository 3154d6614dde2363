"""Feature extractors by name. The metric carries the extractor's name, because distances of two extractors differ."""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tract_ray.config import InputError, choose
from tract_ray.data import Dataset, datasets
from tract_ray.data.on_disk import FOLDER_PREFIX, parse_folder
from tract_ray.evaluation.classifier import SmallClassifier, trained_classifier

INCEPTION_FILE = "inception-2015-12-05.pt"
INCEPTION_URL = f"https://nvlabs-fi-cdn.nvidia.com/stylegan2-ada-pytorch/pretrained/metrics/{INCEPTION_FILE}"

extractors = ("classifier", "inception_clean", "inception_legacy")


class FeatureExtractor(ABC):
    """uint8 images `(B, C, H, W)` -> features `(B, D)`. `metric` is the name of the distance measured on them."""

    metric: str
    fingerprint: str

    @abstractmethod
    def __call__(self, images: Tensor) -> NDArray[np.float64]:
        """Features of one batch, on the CPU."""

    def all(self, images: Tensor, batch: int = 500) -> NDArray[np.float64]:
        """Features `(N, D)` of any number of images."""
        return np.concatenate([self(part) for part in images.split(batch)])


class ClassifierFeatures(FeatureExtractor):
    """The 64 features of a small classifier of the data set itself, for sets that Inception does not fit.

    Scaled once so that the real images' features have a total variance of 100: a distance then reads as per cent of
    the data's own spread.
    """

    def __init__(self, dataset: Dataset, cache: Path) -> None:
        self.network: SmallClassifier
        self.network, self.fingerprint = trained_classifier(dataset, cache)
        self.metric = classifier_metric(dataset.name)
        self.scale = 1.0
        real = self.all(dataset.images)
        self.scale = float(np.sqrt(100.0 / real.var(axis=0, ddof=1).sum()))

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> NDArray[np.float64]:
        device = next(self.network.parameters()).device
        return self.scale * self.network.features(images.to(device)).double().cpu().numpy()


def classifier_metric(name: str) -> str:
    """The distance's name: `fid_digits`; `fid_classifier_…` for a data set whose distance one expects from Inception.

    A folder is named by its last part and the size: `folder:data/cifar10@16` -> `fid_classifier_cifar10_16`.
    """
    if name in datasets and datasets[name].features == "classifier":
        return f"fid_{name}"
    if name.startswith(FOLDER_PREFIX):
        path, size = parse_folder(name)
        name = f"{path.stem}_{size}"
    return "fid_classifier_" + re.sub(r"[^\w.-]", "_", name)  # what MLflow allows in a metric's name


class InceptionFeatures(FeatureExtractor):
    """Inception-v3 (the TensorFlow port) as clean-fid runs it, from weights on disk; nothing is downloaded.

    `clean` resizes with clean-fid's antialiased bicubic filter, `legacy` inside the network as the EDM and TRACT
    papers do; the two differ, so the metric says which.
    """

    def __init__(self, mode: str, device: torch.device | str = "cpu") -> None:
        path = require_inception()
        from cleanfid.inception_torchscript import InceptionV3W
        from cleanfid.resize import make_resizer

        self.metric = f"fid_inception_{mode}"
        self.fingerprint = f"{path.name}:{path.stat().st_size}"
        self.mode, self.device = mode, torch.device(device)
        try:
            self.network = InceptionV3W(str(path.parent), download=False, resize_inside=mode == "legacy")
        except RuntimeError:  # an interrupted download
            raise InputError(f"features: {path} is damaged; fetch {INCEPTION_URL} again") from None
        self.network = self.network.to(self.device).eval()
        self.resize = make_resizer("PIL", False, "bicubic", (299, 299))

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> NDArray[np.float64]:
        rgb = images.expand(-1, 3, -1, -1) if images.shape[1] == 1 else images
        if self.mode == "clean":
            arrays = [self.resize(image.permute(1, 2, 0).cpu().numpy()) for image in rgb]
            rgb = torch.from_numpy(np.stack(arrays)).permute(0, 3, 1, 2)
        features: NDArray[np.float64] = self.network(rgb.float().to(self.device)).double().cpu().numpy()
        return features


def inception_weights() -> Path | None:
    """Where the weights are: `TRACT_RAY_INCEPTION`, the package's cache, or clean-fid's own place in /tmp."""
    named = os.environ.get("TRACT_RAY_INCEPTION")
    places = [named] if named else [f"~/.cache/tract-ray/{INCEPTION_FILE}", f"/tmp/{INCEPTION_FILE}"]
    for place in places:
        path = Path(place).expanduser()
        if path.is_file() and path.name == INCEPTION_FILE:
            return path
    return None


def require_inception() -> Path:
    """`inception_weights()`, or the `InputError` that says where to get them."""
    path = inception_weights()
    if path is None:
        raise InputError(
            f"features: Inception's weights are not on this machine; fetch {INCEPTION_URL} and name the file in "
            "TRACT_RAY_INCEPTION, or use --features classifier"
        )
    return path


def check_extractor(name: str) -> None:
    """Raise `InputError` where `build_extractor` would for want of the extractor's weights."""
    if choose("features", name, extractors) != "classifier":
        require_inception()


def build_extractor(name: str, dataset: Dataset, cache: Path, device: torch.device | str = "cpu") -> FeatureExtractor:
    """The extractor `name` for images of `dataset`; `cache` holds trained classifiers."""
    choose("features", name, extractors)
    if name == "classifier":
        return ClassifierFeatures(dataset, cache)
    return InceptionFeatures(name.removeprefix("inception_"), device)
