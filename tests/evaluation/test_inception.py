"""NVIDIA's Inception through a stand-in with the published file's interface; nothing is downloaded."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import numpy as np
import pytest
from cleanfid.resize import make_resizer

from tract_ray.config import InputError
from tract_ray.data import Dataset, load_dataset
from tract_ray.evaluation import build_extractor
from tract_ray.evaluation.extractors.inception import INCEPTION_FILE

pytestmark = pytest.mark.filterwarnings("ignore:.torch.jit:FutureWarning")  # the published file is a TorchScript


@pytest.mark.parametrize("mode", ["clean", "legacy_tensorflow"])
def test_a_uniform_image_keeps_its_level(inception: Path, data: Dataset, mode: str, tmp_path: Path) -> None:
    extractor = build_extractor(f"inception_{mode}", data, tmp_path)
    features = extractor(data.images)
    assert features.shape == (5, 2048)
    assert features.dtype == np.float64
    assert features[:, -1].tolist() == [1.0 if mode == "legacy_tensorflow" else 0.0] * 5
    assert features[0, :67] == pytest.approx((192 - 128) / 128, abs=1e-6)
    assert extractor.label == f"inception_{mode}"
    assert extractor.fingerprint == f"{INCEPTION_FILE}:{sha256(inception.read_bytes()).hexdigest()[:12]}"


def test_clean_resizes_as_clean_fid_does(inception: Path, data: Dataset, tmp_path: Path) -> None:
    resize = make_resizer("PIL", False, "bicubic", (299, 299))
    large = np.stack([resize(image.permute(1, 2, 0).numpy()) for image in data.images])
    expected = (large.astype(np.float64).mean(axis=(1, 2)) - 128) / 128
    clean = build_extractor("inception_clean", data, tmp_path)(data.images)
    assert np.abs(clean[:, :3] - expected).max() < 1e-5
    legacy = build_extractor("inception_legacy_tensorflow", data, tmp_path)(data.images)
    assert np.abs(clean - legacy)[1:].max() > 1e-3


def test_features_do_not_depend_on_the_batches(inception: Path, data: Dataset, tmp_path: Path) -> None:
    extractor = build_extractor("inception_clean", data, tmp_path)
    assert np.abs(extractor.all(data.images, batch=2) - extractor(data.images)).max() < 1e-6


def test_grey_images_are_shown_in_three_channels(inception: Path, tmp_path: Path) -> None:
    digits = load_dataset("digits")
    features = build_extractor("inception_legacy_tensorflow", digits, tmp_path)(digits.images[:4])
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


def test_the_name_without_a_port_is_edms(inception: Path, data: Dataset, tmp_path: Path) -> None:
    assert build_extractor("inception_legacy", data, tmp_path).label == "inception_legacy_tensorflow"
