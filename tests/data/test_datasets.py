"""Data sets: what they hold, and one-line errors where they are not to be had."""

from __future__ import annotations

import hashlib
import pickle
import zlib
from pathlib import Path
from urllib.error import URLError

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torchvision.datasets import CIFAR10

from tract_ray.config import InputError
from tract_ray.data import Dataset, dataset_info, datasets, load_dataset
from tract_ray.data.cifar10 import load_cifar10
from tract_ray.data.dataset import to_float, to_uint8


@pytest.mark.parametrize(("name", "side"), [("digits", 8), ("digits16", 16)])
def test_digits(name: str, side: int) -> None:
    data = load_dataset(name)
    assert data.images.shape == (1797, 1, side, side)
    assert data.images.dtype == torch.uint8
    assert (data.images.min().item(), data.images.max().item()) == (0, 255)
    assert torch.bincount(data.labels).tolist() == [178, 182, 177, 183, 181, 182, 181, 179, 174, 180]
    assert (data.num_classes, data.flip) == (10, False)


def test_digits_are_scikit_learn_s() -> None:
    levels = load_dataset("digits").images[:, 0].double().numpy() / 255 * 16
    assert np.abs(levels - load_digits().images).max() < 0.04  # half of a 256th of the range


def test_digits16_are_the_digits_enlarged_bilinearly() -> None:
    """A new pixel lies a quarter of the way from an old one to the next, in both directions."""
    old = load_digits().images * (255 / 16)
    across = 0.75 * old[:, :, :-1] + 0.25 * old[:, :, 1:]
    expected = 0.75 * across[:, :-1] + 0.25 * across[:, 1:]
    assert np.abs(load_dataset("digits16").images[:, 0, 1:-1:2, 1:-1:2].numpy() - expected).max() <= 0.51


@pytest.mark.parametrize("name", ["digits", "digits16"])
def test_the_registry_tells_the_truth(name: str) -> None:
    info, data = datasets[name], load_dataset(name)
    assert (info.shape, info.size, info.num_classes) == (data.shape, len(data), data.num_classes)


def test_pixels_survive_the_round_trip() -> None:
    levels = torch.arange(256, dtype=torch.uint8)
    assert torch.equal(to_uint8(to_float(levels)), levels)
    assert (to_float(levels).min().item(), to_float(levels).max().item()) == (-1, 1)
    assert to_uint8(torch.tensor([-1.2, 1.3])).tolist() == [0, 255]


def test_a_batch_is_mirrored_where_told() -> None:
    images = torch.arange(12, dtype=torch.uint8).reshape(2, 1, 2, 3)
    data = Dataset("x", images, torch.tensor([5, 6]), num_classes=7)
    batch, labels = data.batch(torch.tensor([1, 0]), torch.tensor([True, False]))
    assert labels.tolist() == [6, 5]
    assert to_uint8(batch).tolist() == [[[[8, 7, 6], [11, 10, 9]]], [[[0, 1, 2], [3, 4, 5]]]]


def test_an_unknown_name_is_answered_with_the_nearest() -> None:
    with pytest.raises(InputError) as caught:
        dataset_info("digit16")
    assert str(caught.value) == (
        f"dataset: unknown 'digit16'; did you mean 'digits16'? (choose from {', '.join(sorted(datasets))}), "
        "or folder:PATH@SIZE for images on disk"
    )


# --- image folders ------------------------------------------------------------------------------------------------


def picture(path: Path, colour: tuple[int, int, int], size: tuple[int, int] = (12, 8)) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size, colour).save(path)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two classes; one picture in grey, one in another format."""
    picture(tmp_path / "cats" / "a.png", (255, 0, 0))
    picture(tmp_path / "cats" / "deep" / "b.bmp", (0, 255, 0), (6, 9))
    (tmp_path / "dogs").mkdir()
    Image.new("L", (4, 4), 77).save(tmp_path / "dogs" / "c.PNG")
    (tmp_path / "dogs" / "notes.txt").write_text("not a picture")
    return tmp_path


def test_folder(photos: Path) -> None:
    data = load_dataset(f"folder:{photos}@4")
    assert data.images.shape == (3, 3, 4, 4)
    assert data.images[:, :, 0, 0].tolist() == [[255, 0, 0], [0, 255, 0], [77, 77, 77]]
    assert data.labels.tolist() == [0, 0, 1]
    assert (data.num_classes, data.flip) == (2, True)
    info = dataset_info(f"folder:{photos}@4")
    assert (info.shape, info.num_classes) == (data.shape, data.num_classes)


def test_folder_without_classes(tmp_path: Path) -> None:
    picture(tmp_path / "a.png", (1, 2, 3))
    data = load_dataset(f"folder:{tmp_path}@2")
    assert (data.num_classes, data.labels.tolist()) == (1, [0])


def test_pictures_are_cropped_to_the_centre_and_averaged(tmp_path: Path) -> None:
    pixels = np.zeros((4, 8, 3), dtype=np.uint8)
    pixels[:, 2:6] = [[[10], [30], [50], [70]]]  # the central square's columns
    pixels[:, :2] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    assert load_dataset(f"folder:{tmp_path}@2").images[0, 0].tolist() == [[20, 60], [20, 60]]


@pytest.mark.parametrize("damage", ["truncated", "checksum", "empty", "text", "huge"])
def test_a_damaged_picture_is_named(tmp_path: Path, damage: str) -> None:
    picture(tmp_path / "a.png", (1, 2, 3))
    bad = tmp_path / "b.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)).save(bad)
    content = bytearray(bad.read_bytes())
    if damage == "truncated":
        content = content[: len(content) // 2]
    elif damage == "checksum":
        content[len(content) // 2] ^= 0xFF
    elif damage == "huge":  # the header promises 65,500 x 65,500 pixels
        content[16:24] = (65_500).to_bytes(4, "big") * 2
        content[29:33] = zlib.crc32(content[12:29]).to_bytes(4, "big")
    bad.write_bytes({"empty": b"", "text": b"hello"}.get(damage, bytes(content)))
    with pytest.raises(InputError) as caught:
        load_dataset(f"folder:{tmp_path}@8")
    assert (
        str(caught.value)
        == f"dataset: {bad} is not a readable image; remove or replace it, or leave it out with --skip-damaged"
    )


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("folder:/nowhere/at/all@32", "dataset: /nowhere/at/all is not a folder"),
        ("folder:photos", "dataset: 'folder:photos' is not folder:PATH@SIZE"),
        ("folder:@32", "dataset: 'folder:@32' is not folder:PATH@SIZE"),
        ("folder:photos@0", "dataset: 'folder:photos@0' is not folder:PATH@SIZE"),
        ("folder:photos@big", "dataset: 'folder:photos@big' is not folder:PATH@SIZE"),
    ],
)
def test_folder_names(name: str, message: str) -> None:
    with pytest.raises(InputError) as caught:
        load_dataset(name)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)


def test_an_empty_folder(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="holds no image"):
        load_dataset(f"folder:{tmp_path}@8")


# --- CIFAR-10 -----------------------------------------------------------------------------------------------------


@pytest.fixture
def cifar_on_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, np.ndarray]:
    """The layout of CIFAR-10's archive with 4 images a file, and torchvision's checksums to match."""
    folder = tmp_path / "cifar-10-batches-py"
    folder.mkdir()
    pixels = np.random.default_rng(0).integers(0, 256, (24, 3072), dtype=np.uint8)

    def write(name: str, content: dict[str, object]) -> str:
        (folder / name).write_bytes(pickle.dumps(content))
        return hashlib.md5((folder / name).read_bytes()).hexdigest()

    def batch(number: int) -> dict[str, object]:
        return {"data": pixels[4 * number : 4 * number + 4], "labels": [(number + k) % 10 for k in range(4)]}

    names = [f"data_batch_{k}" for k in range(1, 6)]
    monkeypatch.setattr(CIFAR10, "train_list", [[name, write(name, batch(k))] for k, name in enumerate(names)])
    monkeypatch.setattr(CIFAR10, "test_list", [["test_batch", write("test_batch", batch(5))]])
    labels = {"label_names": [f"class {k}" for k in range(10)]}
    monkeypatch.setattr(CIFAR10, "meta", {**CIFAR10.meta, "md5": write("batches.meta", labels)})
    return tmp_path, pixels


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The addresses that torchvision asked for, none of which answered."""
    asked: list[str] = []

    def refuse(url: str, *args: object, **kwargs: object) -> None:
        asked.append(url)
        raise URLError("no route to host")

    monkeypatch.setattr("torchvision.datasets.cifar.download_and_extract_archive", refuse)
    return asked


def test_cifar10_from_disk(cifar_on_disk: tuple[Path, np.ndarray], no_network: list[str]) -> None:
    root, pixels = cifar_on_disk
    data = load_dataset("cifar10", str(root))
    assert np.array_equal(data.images.numpy(), pixels[:20].reshape(20, 3, 32, 32))  # the training half alone
    assert data.labels.tolist() == [(i // 4 + i % 4) % 10 for i in range(20)]
    assert data.images.is_contiguous()
    assert (data.shape, data.num_classes, data.flip) == ((3, 32, 32), 10, True)
    assert no_network == []


def test_cifar10_missing(tmp_path: Path, no_network: list[str]) -> None:
    with pytest.raises(InputError) as caught:
        load_dataset("cifar10", str(tmp_path / "empty"))
    assert str(caught.value) == (
        f"dataset: cifar10 is not in {tmp_path / 'empty'} and its download failed (URLError); put "
        "cifar-10-python.tar.gz there, name its folder with --data-root, or use folder:PATH@32"
    )
    assert len(no_network) == 1


def test_cifar10_damaged(cifar_on_disk: tuple[Path, np.ndarray], no_network: list[str]) -> None:
    """A file whose checksum is wrong is never unpickled."""
    root, _ = cifar_on_disk
    (root / "cifar-10-batches-py" / "data_batch_3").write_bytes(b"cos\nsystem\n(S'false'\ntR.")
    with pytest.raises(InputError, match="its download failed"):
        load_cifar10(root)
