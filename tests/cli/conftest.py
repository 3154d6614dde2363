"""What several files of the command line's tests start from."""

from __future__ import annotations

from pathlib import Path

import pytest
from small_models import model, weights_of


@pytest.fixture
def teacher_file(tmp_path: Path) -> Path:
    """An EDM network for the digits' ten classes."""
    return weights_of(model("edm_8x8", "edm", 10), tmp_path / "edm.safetensors")
