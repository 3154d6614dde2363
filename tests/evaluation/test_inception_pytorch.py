"""pytorch-fid's Inception against clean-fid's own `legacy_pytorch`, with random weights; and files that are not it."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from cleanfid import features as cleanfid_features
from cleanfid import inception_pytorch
from cleanfid.resize import build_resizer

from tract_ray.config import InputError
from tract_ray.data import Dataset
from tract_ray.evaluation import build_extractor, check_extractor
from tract_ray.evaluation.extractors.inception_pytorch import PYTORCH_FILE, PYTORCH_VARIABLE


@pytest.mark.filterwarnings("ignore::UserWarning")  # its torchvision is an older one
def test_features_are_clean_fids(
    pytorch_inception: Path, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its resizing, network and scaling, each image alone; it is handed the weights that it would fetch."""
    weights = torch.load(pytorch_inception, weights_only=True)
    monkeypatch.setattr(inception_pytorch, "load_state_dict_from_url", lambda *_, **__: weights)
    model = cleanfid_features.build_feature_extractor("legacy_pytorch", torch.device("cpu"), use_dataparallel=False)
    resize = build_resizer("legacy_pytorch")
    images = data.images[:3]
    large = np.stack([resize(image.permute(1, 2, 0).numpy()) for image in images])
    with torch.inference_mode():
        expected = model(torch.from_numpy(large).permute(0, 3, 1, 2)).numpy()
    extractor = build_extractor("inception_legacy_pytorch", data, tmp_path)
    found = extractor(images)
    assert (found.shape, found.dtype) == ((3, 2048), np.float64)
    spread = expected.std(axis=0).mean()
    assert spread > 0.01 * np.abs(expected).mean() > 0  # the images differ in what is compared
    assert np.abs(found - expected).max() < 1e-4 * spread
    assert extractor.label == "inception_legacy_pytorch"
    assert extractor.fingerprint.startswith(f"{pytorch_inception.name}:{pytorch_inception.stem.split('-')[-1]}")


def refusal(file: Path | None, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv(PYTORCH_VARIABLE, str(file))
    with pytest.raises(InputError) as caught:
        check_extractor("inception_legacy_pytorch")
    assert "\n" not in str(caught.value)
    return str(caught.value)


def test_weights_that_are_not_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    message = refusal(tmp_path / "missing.pth", monkeypatch)
    assert message.startswith(
        "features: Inception's weights are not on this machine; fetch https://github.com/mseitzer"
    )
    assert f"{PYTORCH_FILE} and name the file in {PYTORCH_VARIABLE}" in message


def test_a_name_that_does_not_say_the_hash(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "weights.pth").write_bytes(b"")
    assert "should be named like pt_inception-2015-12-05-6726825d.pth" in refusal(tmp_path / "weights.pth", monkeypatch)


def test_an_interrupted_download(pytorch_file: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    part = tmp_path / pytorch_file.name
    part.write_bytes(pytorch_file.read_bytes()[:1000])
    assert refusal(part, monkeypatch).startswith(f"features: {part} is not the file that its name says; fetch https://")


class Touch:
    """Pickles to a call that leaves a file behind."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> Any:
        return Path.touch, (self.file,)


@pytest.mark.parametrize("content", ["other weights", "code"])
def test_what_is_not_an_inception(content: str, data: Dataset, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    marker = tmp_path / "marker"
    file = tmp_path / "file"
    torch.save({"other weights": {"fc.weight": torch.zeros(1)}, "code": Touch(marker)}[content], file)
    file = file.rename(tmp_path / f"pt-{sha256(file.read_bytes()).hexdigest()[:8]}.pth")
    monkeypatch.setenv(PYTORCH_VARIABLE, str(file))
    with pytest.raises(InputError, match=r"^features: .* does not hold Inception's weights \("):
        build_extractor("inception_legacy_pytorch", data, tmp_path)
    assert not marker.exists()
