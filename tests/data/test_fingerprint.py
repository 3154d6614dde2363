"""A data set is its pixels, their order and labels: not its name, and not its place."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tract_ray.data import Dataset, dataset_fingerprint, decoded, load_dataset
from tract_ray.data.fingerprint import content_hash

from zips import encode, picture, write_zip  # isort: skip (beside this file)


def photos(folder: Path, classes: int = 2) -> Path:
    for i in range(6):
        file = folder / f"class {i % classes}" / f"{i}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes(encode(picture(i, (8, 8))))
    return folder


def change_a_pixel(file: Path) -> None:
    pixels = np.array(Image.open(file))
    pixels[3, 3, 0] ^= 1
    file.write_bytes(encode(pixels))


def test_it_is_a_hash_of_what_training_sees() -> None:
    images = torch.arange(24, dtype=torch.uint8).reshape(2, 3, 2, 2)
    data = Dataset("x", images, torch.tensor([1, 0]), num_classes=2)
    pixels = hashlib.sha256(bytes(range(24))).hexdigest()
    assert content_hash(images) == pixels
    about = json.dumps([[2, 3, 2, 2], 2, False, pixels]).encode()
    labels = np.array([1, 0], dtype="<i8").tobytes()
    assert data.fingerprint == hashlib.sha256(about + labels).hexdigest()[:16]


def test_everything_that_training_sees_counts() -> None:
    images = torch.arange(24, dtype=torch.uint8).reshape(2, 3, 2, 2)
    labels = torch.tensor([1, 0])
    same = [Dataset("x", images, labels, 2), Dataset("y", images.clone(), labels.int(), 2)]
    others = [
        Dataset("x", images.flip(0), labels, 2),
        Dataset("x", images, labels.flip(0), 2),
        Dataset("x", images, labels, 3),
        Dataset("x", images, labels, 2, flip=True),
        Dataset("x", images.reshape(2, 3, 1, 4), labels, 2),
    ]
    assert len({data.fingerprint for data in same}) == 1
    assert len({data.fingerprint for data in [*same, *others]}) == 1 + len(others)
    before = same[0].fingerprint
    images[0, 0, 0, 0] += 1
    assert same[0].fingerprint != before  # what was remembered of the old pixels is not believed


def test_a_pixel_of_one_file_changes_it(tmp_path: Path) -> None:
    name = f"folder:{photos(tmp_path)}@8"
    before, old = dataset_fingerprint(name), load_dataset(name)
    change_a_pixel(tmp_path / "class 1" / "3.png")
    assert dataset_fingerprint(name) != before
    assert int((load_dataset(name).images != old.images).sum()) == 1


def test_another_place_and_another_encoding_do_not(tmp_path: Path) -> None:
    here = dataset_fingerprint(f"folder:{photos(tmp_path / 'here')}@8")
    assert dataset_fingerprint(f"folder:{photos(tmp_path / 'there')}@8") == here
    for file in (tmp_path / "there").rglob("*.png"):
        Image.open(file).save(file.with_suffix(".bmp"))
        file.unlink()
    assert dataset_fingerprint(f"folder:{tmp_path / 'there'}@8") == here
    assert dataset_fingerprint(f"folder:{tmp_path / 'here'}@4") != here
    assert dataset_fingerprint(f"folder:{tmp_path / 'here'}@8,unlabelled") != here


def test_a_folder_and_the_zip_made_of_it_are_the_same(tmp_path: Path) -> None:
    folder = photos(tmp_path / "photos")
    files = sorted(folder.rglob("*.png"))
    names = [str(file.relative_to(folder)) for file in files]
    labels = [[name, int(name[6])] for name in names]
    zipped = write_zip(tmp_path / "p.zip", {n: f.read_bytes() for n, f in zip(names, files, strict=True)}, labels)
    assert dataset_fingerprint(f"folder:{zipped}@8") == dataset_fingerprint(f"folder:{folder}@8")


def test_it_is_computed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"folder:{photos(tmp_path)}@8"
    before = dataset_fingerprint(name)
    monkeypatch.setattr(decoded, "decode", lambda *_: pytest.fail("decoded again"))
    load_dataset.__globals__["_loaded"].cache_clear()  # as another process would find it
    assert dataset_fingerprint(name) == before


def test_an_emptied_or_damaged_cache_is_filled_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACT_RAY_DATA_CACHE", str(tmp_path / "cache"))
    name, forget = f"folder:{photos(tmp_path / 'photos')}@8", load_dataset.__globals__["_loaded"].cache_clear
    before = dataset_fingerprint(name)
    (pixels,) = (tmp_path / "cache").glob("*/pixels")
    pixels.write_bytes(pixels.read_bytes()[:-1])
    forget()
    assert dataset_fingerprint(name) == before
    assert load_dataset(name).images.shape == (6, 3, 8, 8)
    for file in (tmp_path / "cache").glob("*.json"):
        file.write_text("{")
    forget()
    assert dataset_fingerprint(name) == before


def test_digits_have_one() -> None:
    assert len({dataset_fingerprint(name) for name in ("digits", "digits16")}) == 2
