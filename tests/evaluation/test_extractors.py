"""Every registered extractor keeps the protocol."""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
import torch

from tract_ray.config import InputError
from tract_ray.data import Dataset, load_dataset
from tract_ray.evaluation import LABELS, build_extractor, check_extractor
from tract_ray.evaluation.extractors import FeatureExtractor, extractors, register
from tract_ray.evaluation.extractors.classifier import classifier_label
from tract_ray.evaluation.extractors.inception import INCEPTION_VARIABLE
from tract_ray.evaluation.extractors.inception_pytorch import PYTORCH_VARIABLE
from tract_ray.evaluation.metrics.frechet import FrechetDistance

pytestmark = [
    pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning"),
    pytest.mark.usefixtures("short_classifier", "inception", "pytorch_inception"),
]


@pytest.fixture
def digits() -> Dataset:
    """Forty of them: grey, and with as many classes as the classifier needs."""
    whole = load_dataset("digits")
    return Dataset("digits", whole.images[:40], whole.labels[:40], 10)


@pytest.mark.parametrize("kind", extractors)
def test_the_contract(kind: str, digits: Dataset, tmp_path: Path) -> None:
    check_extractor(kind)
    extractor = build_extractor(kind, digits, tmp_path)
    features = extractor.all(digits.images[:5], batch=2)
    assert features.ndim == 2
    assert len(features) == 5
    assert features.dtype == np.float64
    assert np.isfinite(features).all()
    scale = np.abs(features).max()
    assert np.ptp(features, axis=0).max() > 1e-3 * scale > 0  # it tells images apart
    assert np.abs(extractor(digits.images[:5]) - features).max() < 1e-5 * scale  # batches change nothing
    again = build_extractor(kind, digits, tmp_path)
    assert np.array_equal(again.all(digits.images[:5], batch=2), features)
    assert (again.label, again.fingerprint) == (extractor.label, extractor.fingerprint)
    assert re.fullmatch(r"[\w.-]+", extractor.label)  # what MLflow allows in a metric's name
    assert extractor.fingerprint
    assert extractor.samples >= 2
    assert extractor.labels in LABELS


def test_labels_tell_extractors_apart(digits: Dataset, tmp_path: Path) -> None:
    built = [build_extractor(kind, digits, tmp_path) for kind in extractors]
    assert len({extractor.label for extractor in built}) == len({e.fingerprint + e.label for e in built}) == len(built)


@pytest.mark.parametrize(
    ("kind", "variable"),
    [
        ("inception_clean", INCEPTION_VARIABLE),
        ("inception_legacy_tensorflow", INCEPTION_VARIABLE),
        ("inception_legacy_pytorch", PYTORCH_VARIABLE),
    ],
)
def test_what_it_lacks_is_said_before_it_is_built(kind: str, variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "/nowhere")
    with pytest.raises(InputError, match=rf"^features: .* name the file in {variable}, or use"):
        check_extractor(kind)


def test_an_unfinished_extractor_is_refused() -> None:
    class Half(FeatureExtractor):
        kind = "half"

        def __call__(self, images: torch.Tensor) -> np.ndarray:  # type: ignore[type-arg]
            return np.zeros((len(images), 2))

    with pytest.raises(TypeError, match="Half leaves parts of the protocol out"):
        register(Half)
    assert "half" not in extractors


@pytest.mark.parametrize(
    ("dataset", "label"),
    [
        ("digits", "digits"),
        ("digits16", "digits16"),
        ("cifar10", "classifier_cifar10"),
        ("folder:data/cifar10@16", "classifier_cifar10_16"),
        ("folder:my photos.zip@32", "classifier_my_photos_32"),
    ],
)
def test_no_classifier_s_distance_is_taken_for_inception_s(dataset: str, label: str) -> None:
    assert classifier_label(dataset) == label


def test_random_features_see_what_is_wrong_with_images(tmp_path: Path) -> None:
    """Farther from the data than one half of it from the other, and the farther, the worse; without any weights."""
    whole = load_dataset("digits")
    extractor, measure = build_extractor("random", whole, tmp_path), FrechetDistance()
    half, other = whole.images[::2], whole.images[1::2]
    reference = measure.reference(extractor.all(other))
    noise = torch.randn(half.shape, generator=torch.Generator().manual_seed(0))

    def distance(images: torch.Tensor) -> float:
        return measure.distance(extractor.all(images), reference)

    noisy = [distance((half + level * noise).round().clamp(0, 255).to(torch.uint8)) for level in (0, 16, 48)]
    assert noisy[0] < noisy[1] < noisy[2]
    assert noisy[2] > 3 * noisy[0]
    for wrong in (half.flip(-1), 255 - half, half.roll(1, dims=-1)):
        assert distance(wrong) > 5 * noisy[0]
