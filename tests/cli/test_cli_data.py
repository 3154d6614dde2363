"""`tract-ray datasets PATH` says what is there before anything is trained on it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from commands import refusal, run
from PIL import Image

from tract_ray.data import dataset_fingerprint


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    folder = tmp_path / "photos"
    folder.mkdir()
    for i in range(5):
        Image.new("RGB", (20 + i // 4, 16), (i, i, i)).save(folder / f"{i}.{'tiff' if i % 2 else 'png'}")
    (folder / "notes.txt").write_text("hello")
    (folder / "bad.png").write_bytes(b"hello")
    return folder


def test_a_look_at_a_folder(photos: Path) -> None:
    lines = run("datasets", photos).splitlines()
    assert lines == [
        f"folder:{photos}@16: 5 images, no classes",
        f"a look at their headers alone; for all of it, its fingerprint too: datasets folder:{photos}@16",
        "sizes: 20x16 (4), 21x16 (1)",
        "skipped 1: not an image (.txt) (notes.txt)",
        "skipped 1: damaged (bad.png)",
    ]


def test_all_of_a_folder(photos: Path) -> None:
    assert refusal("datasets", f"{photos}@8").startswith(f"dataset: {photos / 'bad.png'} is not a readable image")
    lines = run("datasets", f"{photos}@8", "--skip-damaged").splitlines()
    name = f"folder:{photos}@8,skip-damaged"
    assert lines[:2] == [
        f"{name}: 5 images, no classes",
        f"as 3x8x8, fingerprint {dataset_fingerprint(name)}",
    ]
    assert "skipped 1: damaged (bad.png)" in lines
    found = json.loads(run("datasets", name, "--json"))
    assert found["skipped"] == {"not an image (.txt)": 1, "damaged": 1}
    assert found["sizes"] == {"20x16": 4, "21x16": 1}


def test_a_data_set_by_name() -> None:
    assert run("datasets", "digits").splitlines() == [
        "digits: 1,797 images, 10 classes",
        f"as 1x8x8, fingerprint {dataset_fingerprint('digits')}",
        "sizes: 8x8 (1,797)",
    ]
    assert refusal("datasets", "digit").startswith("dataset: unknown 'digit'; did you mean 'digits'?")
    assert refusal("datasets", "digits", "--skip-damaged").startswith("skip-damaged: is for images on disk")
