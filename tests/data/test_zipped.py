"""Zips of EDM's data set tool as data sets."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from zipfile import ZipFile

import numpy as np
import pytest
import torch

from tract_ray.config import InputError
from tract_ray.data import dataset_info, load_dataset

from zips import encode, picture, write_zip  # isort: skip (beside this file)

NAMES = [f"{i // 2:05d}/img{i:08d}.png" for i in range(5)]


def small_zip(folder: Path, labels: Any, size: tuple[int, int] = (8, 8)) -> Path:
    return write_zip(folder / "small.zip", {n: encode(picture(i, size)) for i, n in enumerate(NAMES)}, labels)


def test_a_zip_with_labels(tmp_path: Path) -> None:
    """The labels' order in the file does not matter; images are sorted by name."""
    path = small_zip(tmp_path, [[n, k] for n, k in zip(reversed(NAMES), (4, 0, 2, 1, 6), strict=True)])
    name = f"folder:{path}@8"
    data, info = load_dataset(name), dataset_info(name)
    expected = torch.from_numpy(np.stack([picture(i, (8, 8)) for i in range(5)])).permute(0, 3, 1, 2)
    assert torch.equal(data.images, expected)
    assert data.labels.tolist() == [6, 1, 2, 0, 4]
    assert (data.name, data.num_classes, data.flip) == (name, 7, True)
    assert (info.shape, info.num_classes) == (data.shape, data.num_classes)


@pytest.mark.parametrize("labels", [None, "none", []])
def test_a_zip_without_labels(tmp_path: Path, labels: Any) -> None:
    name = f"folder:{small_zip(tmp_path, labels)}@8"
    data = load_dataset(name)
    assert (data.labels.tolist(), data.num_classes, dataset_info(name).num_classes) == ([0] * 5, 1, 1)


def test_images_of_another_size_are_cropped_and_reduced(tmp_path: Path) -> None:
    data = load_dataset(f"folder:{small_zip(tmp_path, None, (12, 8))}@4")
    central = picture(3, (12, 8))[:, 2:10].astype(float)
    expected = central.reshape(4, 2, 4, 2, 3).mean((1, 3))
    assert np.abs(data.images[3].permute(1, 2, 0).numpy() - expected).max() <= 1


def test_many_images_from_several_threads_stay_in_order(tmp_path: Path) -> None:
    images = {f"img{i:05d}.png": encode(np.full((2, 2, 3), i % 251, dtype=np.uint8)) for i in range(1500)}
    data = load_dataset(f"folder:{write_zip(tmp_path / 'many.zip', images)}@2")
    assert data.images[:, 0, 0, 0].tolist() == [i % 251 for i in range(1500)]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        ([[NAMES[0], 1]], "has no label for 00000/img00000001.png"),
        ([[n, -1] for n in NAMES], "only class numbers from 0"),
        ([[n, [0.5, 0.5]] for n in NAMES], "only class numbers from 0"),
        ([[n, 1.0] for n in NAMES], "only class numbers from 0"),
        (7, "must be pairs"),
        ([1, 2], "must be pairs"),
        ([[["x"], 1]], "must be pairs"),
    ],
)
def test_labels_that_make_no_sense(tmp_path: Path, labels: Any, message: str) -> None:
    with pytest.raises(InputError, match=f"^dataset: .*{message}"):
        load_dataset(f"folder:{small_zip(tmp_path, labels)}@8")


@pytest.mark.parametrize("content", [b"[1", b"[1]", b"\xff"])
def test_damaged_labels(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "bad.zip"
    with ZipFile(path, "w") as archive:
        archive.writestr("a.png", encode(picture(0, (8, 8))))
        archive.writestr("dataset.json", content)
    with pytest.raises(InputError, match=r"^dataset: dataset\.json in .*bad\.zip is damaged"):
        dataset_info(f"folder:{path}@8")


def test_zips_that_are_none(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"^dataset: .*missing\.zip does not exist$"):
        load_dataset(f"folder:{tmp_path}/missing.zip@8")
    (tmp_path / "text.zip").write_text("hello")
    with pytest.raises(InputError, match=r"text\.zip is not a readable zip file"):
        load_dataset(f"folder:{tmp_path}/text.zip@8")
    with pytest.raises(InputError, match="holds no image"):
        load_dataset(f"folder:{write_zip(tmp_path / 'empty.zip', {'notes.txt': b'x'})}@8")


@pytest.mark.parametrize("damage", ["truncated", "text", "checksum"])
def test_a_damaged_picture_is_named_with_its_zip(tmp_path: Path, damage: str) -> None:
    good = encode(picture(0, (16, 16)))
    bad = {"truncated": good[: len(good) // 2], "text": b"hello"}.get(damage, good)
    path = write_zip(tmp_path / "bad.zip", {"a.png": good, "b.png": bad})
    if damage == "checksum":  # the zip's own
        raw = bytearray(path.read_bytes())
        raw[raw.rindex(good) + len(good) // 2] ^= 0xFF
        path.write_bytes(raw)
    with pytest.raises(InputError) as caught:
        load_dataset(f"folder:{path}@8")
    assert str(caught.value) == (
        f"dataset: b.png in {path} is not a readable image; remove or replace it, or leave it out with --skip-damaged"
    )


def test_a_folder_may_be_called_like_a_zip(tmp_path: Path) -> None:
    folder = tmp_path / "photos.zip"
    folder.mkdir()
    (folder / "a.png").write_bytes(encode(picture(0, (8, 8))))
    assert len(load_dataset(f"folder:{folder}@8")) == 1
