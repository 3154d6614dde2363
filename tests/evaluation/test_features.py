"""Inception through a stand-in with the published file's interface; nothing is downloaded."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from cleanfid.resize import make_resizer
from torch import Tensor, nn

from tract_ray.config import InputError
from tract_ray.data import Dataset, load_dataset
from tract_ray.evaluation import build_extractor
from tract_ray.evaluation.features import INCEPTION_FILE, classifier_metric

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")  # the published file is a TorchScript


class Layers(nn.Module):
    """`(B, 3, 299, 299)` in [-1, 1] -> 2048 features: means of the channels, then of 8x8 tiles of the first."""

    def forward(self, x: Tensor) -> Tensor:
        tiles = F.adaptive_avg_pool2d(x[:, :1], 8).flatten(1)
        return torch.cat([x.mean([2, 3]), tiles, torch.zeros(x.shape[0], 2048 - 67)], 1)[:, :, None, None]


class StandIn(nn.Module):
    """What `inception-2015-12-05.pt` offers: `layers`, and a forward that resizes by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = Layers()

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor:
        large = F.interpolate(x, size=[299, 299], mode="nearest")
        out = self.layers((large - 128) / 128)
        out[:, -1] = 1  # so that a test sees who resized
        return out if return_features else out.mean()


@pytest.fixture
def inception(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / INCEPTION_FILE
    torch.jit.script(StandIn()).save(str(file))
    monkeypatch.setenv("TRACT_RAY_INCEPTION", str(file))
    return file


@pytest.fixture
def data() -> Dataset:
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (5, 3, 32, 32), dtype=np.uint8))
    images[0] = 192
    return Dataset("noise", images, torch.arange(5), num_classes=5)


@pytest.mark.parametrize("mode", ["clean", "legacy"])
def test_a_uniform_image_keeps_its_level(inception: Path, data: Dataset, mode: str, tmp_path: Path) -> None:
    extractor = build_extractor(f"inception_{mode}", data, tmp_path)
    features = extractor(data.images)
    assert features.shape == (5, 2048)
    assert features.dtype == np.float64
    assert features[:, -1].tolist() == [1.0 if mode == "legacy" else 0.0] * 5
    assert features[0, :67] == pytest.approx((192 - 128) / 128, abs=1e-6)
    assert extractor.metric == f"fid_inception_{mode}"
    assert extractor.fingerprint == f"{INCEPTION_FILE}:{inception.stat().st_size}"


def test_clean_resizes_as_clean_fid_does(inception: Path, data: Dataset, tmp_path: Path) -> None:
    resize = make_resizer("PIL", False, "bicubic", (299, 299))
    large = np.stack([resize(image.permute(1, 2, 0).numpy()) for image in data.images])
    expected = (large.astype(np.float64).mean(axis=(1, 2)) - 128) / 128
    clean = build_extractor("inception_clean", data, tmp_path)(data.images)
    assert np.abs(clean[:, :3] - expected).max() < 1e-5
    legacy = build_extractor("inception_legacy", data, tmp_path)(data.images)
    assert np.abs(clean - legacy)[1:].max() > 1e-3


def test_features_do_not_depend_on_the_batches(inception: Path, data: Dataset, tmp_path: Path) -> None:
    extractor = build_extractor("inception_clean", data, tmp_path)
    assert np.abs(extractor.all(data.images, batch=2) - extractor(data.images)).max() < 1e-6


def test_grey_images_are_shown_in_three_channels(inception: Path, tmp_path: Path) -> None:
    digits = load_dataset("digits")
    features = build_extractor("inception_legacy", digits, tmp_path)(digits.images[:4])
    assert np.abs(features[:, :3] - features[:, :1]).max() < 1e-6


@pytest.mark.parametrize("name", ["missing.pt", "other-name.pt"])
def test_missing_weights(name: str, inception: Path, data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    inception.rename(inception.with_name("other-name.pt"))
    monkeypatch.setenv("TRACT_RAY_INCEPTION", str(inception.with_name(name)))
    with pytest.raises(InputError) as caught:
        build_extractor("inception_clean", data, inception.parent)
    message = str(caught.value)
    assert message.startswith("features: Inception's weights are not on this machine; fetch https://")
    assert "TRACT_RAY_INCEPTION" in message
    assert "--features classifier" in message
    assert "\n" not in message


def test_damaged_weights(inception: Path, data: Dataset) -> None:
    """An interrupted download is not trusted."""
    inception.write_bytes(inception.read_bytes()[:500])
    with pytest.raises(InputError) as caught:
        build_extractor("inception_clean", data, inception.parent)
    assert str(caught.value).startswith(f"features: {inception} is damaged")
    assert "\n" not in str(caught.value)


def test_unknown_extractor(data: Dataset, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^features: unknown 'inception'; did you mean 'inception_"):
        build_extractor("inception", data, tmp_path)


@pytest.mark.parametrize(
    ("dataset", "metric"),
    [
        ("digits", "fid_digits"),
        ("digits16", "fid_digits16"),
        ("cifar10", "fid_classifier_cifar10"),
        ("folder:data/cifar10@16", "fid_classifier_cifar10_16"),
        ("folder:my photos.zip@32", "fid_classifier_my_photos_32"),
    ],
)
def test_no_classifier_s_distance_is_taken_for_inception_s(dataset: str, metric: str) -> None:
    assert classifier_metric(dataset) == metric
