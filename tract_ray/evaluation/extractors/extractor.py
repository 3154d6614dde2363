"""What an extractor must answer, and which ones there are.

A new extractor is one file here: a class decorated with `@register`, imported in this package's `__init__`. Everything
else finds it by its `kind`: configurations, the command line, the contract test, the name of the distance.
"""

from __future__ import annotations

import inspect
from abc import ABC, abstractmethod
from pathlib import Path
from typing import ClassVar, TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tract_ray.config import choose
from tract_ray.data import Dataset


class FeatureExtractor(ABC):
    """uint8 images `(B, C, H, W)` -> features `(B, D)`.

    `label` names it in the name of a distance, because distances of two extractors differ; `fingerprint` is the content
    that determines its features. `samples` and `labels` are what its distances are measured on unless a configuration
    says otherwise: how many images, and whether a conditional network's labels are `balanced` or drawn at `random`.
    `note` is what a person must know of its distances, where they are not what one expects.
    """

    kind: ClassVar[str]
    samples: ClassVar[int] = 4000
    labels: ClassVar[str] = "balanced"
    note: ClassVar[str] = ""
    label: str
    fingerprint: str

    @classmethod
    @abstractmethod
    def build(cls, dataset: Dataset, cache: Path, device: torch.device) -> FeatureExtractor:
        """The extractor for images of `dataset`; `cache` is where it may keep what it had to compute."""

    @classmethod
    def check(cls) -> None:
        """Raise the `InputError` that `build` would for want of something on this machine, at no cost."""
        return

    @abstractmethod
    def __call__(self, images: Tensor) -> NDArray[np.float64]:
        """Features of one batch, on the CPU; of an image they do not depend on the others."""

    def all(self, images: Tensor, batch: int = 500) -> NDArray[np.float64]:
        """Features `(N, D)` of any number of images."""
        return np.concatenate([self(part) for part in images.split(batch)])


extractors: dict[str, type[FeatureExtractor]] = {}
OTHER_NAMES = {"inception_legacy": "inception_legacy_tensorflow"}
E = TypeVar("E", bound=type[FeatureExtractor])


def register(extractor: E) -> E:
    """Class decorator: make `extractor` known by its `kind`."""
    if inspect.isabstract(extractor):
        raise TypeError(f"{extractor.__name__} leaves parts of the protocol out")
    extractors[extractor.kind] = extractor
    return extractor


def extractor_kind(name: str) -> str:
    """The `kind` that `name` means; an `InputError` where it means none."""
    return choose("features", OTHER_NAMES.get(name, name), extractors)


def check_extractor(name: str) -> None:
    """Raise `InputError` where `build_extractor` would for want of the extractor's weights."""
    extractors[extractor_kind(name)].check()


def build_extractor(name: str, dataset: Dataset, cache: Path, device: torch.device | str = "cpu") -> FeatureExtractor:
    """The extractor `name` for images of `dataset`; `cache` holds trained classifiers."""
    return extractors[extractor_kind(name)].build(dataset, cache, torch.device(device))
