"""What cannot be is said before anything runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from commands import call_script, refusal
from PIL import Image

ROOT = Path(__file__).parents[2]


@pytest.fixture
def unlabelled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    monkeypatch.setenv("TRACT_RAY_INCEPTION", str(tmp_path / "nowhere"))
    for i in range(3):
        Image.new("RGB", (8, 8), (i, i, i)).save(tmp_path / f"{i}.png")
    return f"folder:{tmp_path}@8"


def test_pictures_without_classes_need_features(tmp_path: Path, unlabelled: str) -> None:
    where = ["--dataset", unlabelled, "--network", "unet_8x8", "--storage", tmp_path / "runs", "--device", "cpu"]
    line = refusal("distill", *where, "--features", "classifier")
    assert line.startswith(f"features: {unlabelled} has no classes")
    for dry in ([], ["--dry-run"]):
        line = refusal("distill", *where, *dry)
        assert line.startswith("features: ")
        assert (
            "use --features random, which needs neither weights nor classes, or sort the images into a folder" in line
        )


def test_a_dry_run_refuses_it_too(tmp_path: Path, unlabelled: str) -> None:
    pytest.importorskip("optuna")
    options = ["--dataset", unlabelled, "--network", "unet_8x8", "--storage", tmp_path / "runs", "--dry-run"]
    called = call_script(ROOT / "sweeps" / "mu_search.py", *options)
    assert called.status == 2
    (line,) = called.err.splitlines()
    assert "sort the images into a folder for each class" in line
