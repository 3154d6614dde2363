"""ImageNet-64 by name: the two layouts it is read from, and what is said where they are not complete."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from tract_ray.config import InputError
from tract_ray.data import datasets, load_dataset
from tract_ray.networks import presets

from zips import encode, picture, write_zip  # isort: skip (beside this file)


def class_folders(root: Path, count: int, below: str = "imagenet64/train") -> Path:
    """A grey 64x64 picture for each class, in reverse order of creation; class 3 has two, one wide and a JPEG."""
    for i in reversed(range(count)):
        folder = root / below / f"n{i:08d}"
        folder.mkdir(parents=True)
        (folder / f"n{i:08d}_7.png").write_bytes(encode(np.full((64, 64, 3), i % 256, dtype=np.uint8)))
    wide = np.zeros((128, 200, 3), dtype=np.uint8)
    wide[:, 36:164] = 90
    (root / below / "n00000003" / "n00000003_1.JPEG").write_bytes(encode(wide, "JPEG"))
    return root


def test_an_image_folder(tmp_path: Path) -> None:
    data = load_dataset("imagenet64", str(class_folders(tmp_path, 1000)))
    assert (data.name, data.images.shape, data.images.dtype) == ("imagenet64", (1001, 3, 64, 64), torch.uint8)
    assert data.labels.tolist() == sorted([*range(1000), 3])
    assert (data.num_classes, data.flip) == (1000, True)
    assert data.images[[0, 3, 4, 1000], 0, 5, 5].tolist() == [0, 90, 3, 999 % 256]
    assert (data.images[3].int() - 90).abs().max() <= 8  # JPEG; the black sides are cropped away


def test_the_train_folder_itself(tmp_path: Path) -> None:
    """What `data.zip` of an image folder often unpacks to."""
    assert len(load_dataset("imagenet64", str(class_folders(tmp_path, 1000, "imagenet64")))) == 1001


def test_a_zip_comes_before_a_folder(tmp_path: Path) -> None:
    images = {f"00000/img{i:08d}.png": encode(picture(i, (64, 64))) for i in range(3)}
    write_zip(tmp_path / "imagenet64.zip", images, [[n, k] for n, k in zip(images, (5, 999, 0), strict=True)])
    (tmp_path / "imagenet64").mkdir()
    data = load_dataset("imagenet64", str(tmp_path))
    assert (data.name, data.labels.tolist(), data.num_classes) == ("imagenet64", [5, 999, 0], 1000)
    assert torch.equal(data.images[1], torch.from_numpy(picture(1, (64, 64))).permute(2, 0, 1))


def test_the_registry_knows_it() -> None:
    info = datasets["imagenet64"]
    assert (info.shape, info.num_classes, info.size) == ((3, 64, 64), 1000, 1_281_167)
    assert (presets[info.network].shape, presets[info.network].num_classes) == (info.shape, info.num_classes)


def test_what_is_incomplete_is_said_in_one_line(tmp_path: Path) -> None:
    def refused(match: str) -> None:
        with pytest.raises(InputError, match=f"^dataset: .*{match}") as caught:
            load_dataset("imagenet64", str(tmp_path))
        assert "\n" not in str(caught.value)

    refused("imagenet64 is not in .* --data-root")
    class_folders(tmp_path, 4)
    refused("train has 4 class folders, ImageNet has 1000")
    image = {"a.png": encode(picture(0, (64, 64)))}
    write_zip(tmp_path / "imagenet64.zip", image)
    refused("has no labels")
    write_zip(tmp_path / "imagenet64.zip", image, [["a.png", 1000]])
    refused("labels beyond ImageNet's 1000 classes")


def test_a_class_without_pictures(tmp_path: Path) -> None:
    class_folders(tmp_path, 1000)
    (tmp_path / "imagenet64/train/n00000500/n00000500_7.png").unlink()
    with pytest.raises(InputError, match="pictures of only 999 classes"):
        load_dataset("imagenet64", str(tmp_path))
