"""Data, and the weights of both Inceptions, for the tests of extractors."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from inception_files import write_pytorch, write_tensorflow

from tract_ray.data import Dataset
from tract_ray.evaluation.extractors.inception import INCEPTION_VARIABLE
from tract_ray.evaluation.extractors.inception_pytorch import PYTORCH_VARIABLE


@pytest.fixture
def inception(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = write_tensorflow(tmp_path)
    monkeypatch.setenv(INCEPTION_VARIABLE, str(file))
    return file


@pytest.fixture(scope="session")
def pytorch_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """95 MB, written once."""
    return write_pytorch(tmp_path_factory.mktemp("inception"))


@pytest.fixture
def pytorch_inception(pytorch_file: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv(PYTORCH_VARIABLE, str(pytorch_file))
    return pytorch_file


@pytest.fixture
def data() -> Dataset:
    """Five images of noise; the first is of one grey."""
    images = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (5, 3, 32, 32), dtype=np.uint8))
    images[0] = 192
    return Dataset("noise", images, torch.arange(5), num_classes=5)
