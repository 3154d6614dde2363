"""Features for sets that Inception does not fit: a small classifier's last hidden layer, trained once per data set."""

from __future__ import annotations

import hashlib
import json
import re
import sys
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn

from tract_ray.config import require
from tract_ray.data import Dataset, datasets, sample_indices
from tract_ray.data.on_disk import FOLDER_PREFIX, parse_folder
from tract_ray.evaluation.extractors.extractor import FeatureExtractor, register
from tract_ray.files import DamagedError, atomic_folder, made_again, read_safetensors, write_json, write_safetensors

FEATURES = 64
RECIPE: dict[str, float] = {"version": 1, "batch": 128, "steps": 600, "lr": 3e-3, "seed": 0, "threads": 1}
MANY, LONGER = 10_000, 5
"""More images than `MANY` are learned from for `LONGER` times the steps: 63% of CIFAR-10's test images at 16x16 are
then told apart, not 53%."""


class SmallClassifier(nn.Module):
    """Two strided convolutions and two dense layers: `(B, C, H, W)` uint8 -> logits `(B, classes)`."""

    def __init__(self, shape: tuple[int, int, int], num_classes: int) -> None:
        super().__init__()
        channels, height, _ = shape
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1)
        self.conv2 = nn.Conv2d(16, 32, 3, stride=2, padding=1)
        self.pool = nn.AdaptiveAvgPool2d(min(4, height // 2))
        self.dense = nn.Linear(32 * min(4, height // 2) ** 2, FEATURES)
        self.head = nn.Linear(FEATURES, num_classes)

    def features(self, images: Tensor) -> Tensor:
        """`(B, 64)`, the activations that the logits are read from."""
        h = F.relu(self.conv1(images.float() / 127.5 - 1))
        h = self.pool(F.relu(self.conv2(h)))
        return F.silu(self.dense(h.flatten(1)))  # smooth: a dead unit would make the covariance singular

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.head(self.features(images))
        return logits


@register
class ClassifierFeatures(FeatureExtractor):
    """The 64 features of a small classifier of the data set itself.

    Scaled once so that the real images' features have a total variance of 100: a distance then reads as per cent of
    the data's own spread.
    """

    kind = "classifier"

    def __init__(self, dataset: Dataset, cache: Path) -> None:
        self.network: SmallClassifier
        self.network, self.fingerprint = trained_classifier(dataset, cache)
        self.label = classifier_label(dataset.name)
        self.scale = 1.0
        real = self.all(dataset.images)
        self.scale = float(np.sqrt(100.0 / real.var(axis=0, ddof=1).sum()))

    @classmethod
    def build(cls, dataset: Dataset, cache: Path, device: torch.device) -> FeatureExtractor:
        return cls(dataset, cache)

    @torch.inference_mode()
    def __call__(self, images: Tensor) -> NDArray[np.float64]:
        device = next(self.network.parameters()).device
        return self.scale * self.network.features(images.to(device)).double().cpu().numpy()


def classifier_label(name: str) -> str:
    """`digits`; `classifier_…` for a data set whose distance one expects from Inception.

    A folder is named by its last part and the size: `folder:data/cifar10@16` -> `classifier_cifar10_16`.
    """
    if name in datasets and datasets[name].features == "classifier":
        return name
    if name.startswith(FOLDER_PREFIX):
        path, size = parse_folder(name)
        name = f"{path.stem}_{size}"
    return "classifier_" + re.sub(r"[^\w.-]", "_", name)  # what MLflow allows in a metric's name


def trained_classifier(dataset: Dataset, cache: Path) -> tuple[SmallClassifier, str]:
    """The classifier of `dataset` and the fingerprint of its weights; trained the first time (seconds for digits).

    Training is deterministic: fixed seed, data order and one thread. Two processes that need it at once both train
    the same weights; the folder appears whole or not at all.
    """
    require(dataset.num_classes > 1, "features", f"{dataset.name} has no labels; a classifier needs some")
    recipe = {**RECIPE, "steps": RECIPE["steps"] * (LONGER if len(dataset) > MANY else 1)}
    key = hashlib.sha256(json.dumps([recipe, dataset.shape, dataset.fingerprint]).encode()).hexdigest()[:16]
    folder = cache / "classifiers" / f"{dataset.name.partition(':')[0]}-{key}"
    network = SmallClassifier(dataset.shape, dataset.num_classes)
    try:
        weights = read_safetensors(folder / "model.safetensors", "features") if folder.exists() else None
    except DamagedError as error:
        weights = None
        print(made_again(folder, error, "trained again"), file=sys.stderr)
    if weights is None:
        accuracy = _train(network, dataset, recipe)
        with atomic_folder(folder, keep=True) as new:
            write_safetensors(new / "model.safetensors", network.state_dict())
            write_json(new / "config.json", {"recipe": recipe, "train_accuracy": accuracy})
        weights = read_safetensors(folder / "model.safetensors", "features")
    network.load_state_dict(weights)
    network.eval().requires_grad_(False).to(dataset.images.device)
    fingerprint = hashlib.sha256((folder / "model.safetensors").read_bytes()).hexdigest()[:12]
    return network, fingerprint


def _train(network: SmallClassifier, dataset: Dataset, recipe: Mapping[str, float]) -> float:
    threads = torch.get_num_threads()
    torch.set_num_threads(int(recipe["threads"]))
    try:
        data, batch, steps = dataset.to("cpu"), int(recipe["batch"]), int(recipe["steps"])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(int(recipe["seed"]))
            for layer in network.modules():
                if isinstance(layer, nn.Conv2d | nn.Linear):
                    layer.reset_parameters()
        optimizer = torch.optim.Adam(network.parameters(), lr=recipe["lr"])
        for step in range(steps):
            rows = sample_indices(len(data), int(recipe["seed"]), step * batch, batch)
            loss = F.cross_entropy(network(data.images[rows]), data.labels[rows], label_smoothing=0.1)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            for group in optimizer.param_groups:
                group["lr"] = recipe["lr"] * (1 - step / steps)
            optimizer.step()
        with torch.no_grad():
            pairs = zip(data.images.split(500), data.labels.split(500), strict=True)
            correct = [int((network(x).argmax(1) == y).sum()) for x, y in pairs]
        return sum(correct) / len(data)
    finally:
        torch.set_num_threads(threads)
