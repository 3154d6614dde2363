"""What a folder of somebody's pictures comes to: any format, any mode, and everything that is left out is counted."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tract_ray.config import InputError
from tract_ray.data import dataset_info, load_dataset
from tract_ray.data.on_disk import Pictures


def colours(name: str) -> list[list[int]]:
    """The first pixel of each image."""
    return load_dataset(name).images[:, :, 0, 0].tolist()


@pytest.mark.parametrize("ending", ["tiff", "tif", "gif", "webp", "ppm", "tga", "png", "jpg", "jp2", "ico"])
def test_whatever_pillow_reads(tmp_path: Path, ending: str) -> None:
    Image.new("RGB", (16, 16), (250, 130, 10)).save(tmp_path / f"a.{ending}")
    (pixel,) = colours(f"folder:{tmp_path}@8")
    assert np.abs(np.array(pixel) - (250, 130, 10)).max() <= 8  # jpg and gif are not exact


def test_colours_of_every_mode(tmp_path: Path) -> None:
    Image.new("L", (4, 4), 77).save(tmp_path / "a.png")
    Image.new("1", (4, 4), 1).save(tmp_path / "b.png")
    Image.new("P", (4, 4), 0).save(tmp_path / "c.gif")
    Image.fromarray(np.full((4, 4), 0x8080, dtype=np.uint16)).save(tmp_path / "d.png")
    Image.new("CMYK", (4, 4), (0, 0, 0, 255)).save(tmp_path / "e.tiff")
    assert colours(f"folder:{tmp_path}@2") == [[77] * 3, [255] * 3, [0] * 3, [128] * 3, [0] * 3]


@pytest.mark.parametrize(("option", "shines"), [("", 255), (",background=grey", 128), (",background=black", 0)])
def test_transparent_pixels_show_the_background(tmp_path: Path, option: str, shines: int) -> None:
    """Not the colours that lie hidden under them."""
    Image.new("RGBA", (4, 4), (10, 20, 30, 0)).save(tmp_path / "a.png")
    Image.new("RGBA", (4, 4), (10, 20, 30, 255)).save(tmp_path / "b.png")
    Image.new("LA", (4, 4), (10, 0)).save(tmp_path / "c.png")
    Image.new("RGB", (4, 4), (10, 20, 30)).save(tmp_path / "d.png", transparency=(10, 20, 30))
    Image.new("RGBA", (4, 4), (0, 0, 0, 51)).save(tmp_path / "e.png")  # a fifth of black
    blend = round(shines * 0.8)
    expected = [[shines] * 3, [10, 20, 30], [shines] * 3, [shines] * 3, [blend] * 3]
    assert np.abs(np.array(colours(f"folder:{tmp_path}@2{option}")) - expected).max() <= 1


def test_pictures_stand_upright(tmp_path: Path) -> None:
    image = Image.new("RGB", (4, 4), (0, 0, 0))
    image.paste((255, 255, 255), (0, 0, 4, 2))  # the upper half
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by a quarter, clockwise: the upper half is then the right one
    image.save(tmp_path / "a.png", exif=exif)
    assert load_dataset(f"folder:{tmp_path}@2").images[0, 0].tolist() == [[0, 255], [0, 255]]


def test_what_is_no_picture_is_counted(tmp_path: Path) -> None:
    Image.new("RGB", (4, 4)).save(tmp_path / "a.png")
    (tmp_path / "notes.txt").write_text("hello")
    (tmp_path / "noending").write_text("hello")
    (tmp_path / ".DS_Store").write_text("hello")
    os.mkfifo(tmp_path / "pipe.png")
    (tmp_path / "gone.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "again").symlink_to(tmp_path)
    data = load_dataset(f"folder:{tmp_path}@4")
    assert len(data) == 1
    assert dict(data.skipped) == {
        "not an image (.txt)": 1,
        "not an image (no ending)": 1,
        "hidden": 1,
        "not a file": 2,
        "a link back to its folder": 1,
    }


def test_damaged_pictures_are_left_out_when_told(tmp_path: Path) -> None:
    for i in range(4):
        (tmp_path / f"class{i % 2}").mkdir(exist_ok=True)
        Image.new("RGB", (4, 4), (i, i, i)).save(tmp_path / f"class{i % 2}" / f"{i}.png")
    (tmp_path / "class0" / "0.png").write_bytes(b"hello")
    name = f"folder:{tmp_path}@4"
    with pytest.raises(InputError, match=r"class0/0\.png is not a readable image.*--skip-damaged$"):
        load_dataset(name)
    data = load_dataset(f"{name},skip-damaged")
    assert (data.labels.tolist(), data.images[:, 0, 0, 0].tolist()) == ([0, 1, 1], [2, 1, 3])
    assert dict(data.skipped) == {"damaged": 1}
    for file in tmp_path.rglob("*.png"):
        file.write_bytes(b"hello")
    with pytest.raises(InputError, match=r"every image of .* is damaged"):
        load_dataset(f"{name},skip-damaged")


def test_images_beside_class_folders_have_no_class(tmp_path: Path) -> None:
    (tmp_path / "cats").mkdir()
    Image.new("RGB", (4, 4)).save(tmp_path / "cats" / "a.png")
    Image.new("RGB", (4, 4)).save(tmp_path / "b.png")
    with pytest.raises(InputError, match="add ,unlabelled to the name"):
        load_dataset(f"folder:{tmp_path}@4")
    assert (len(load_dataset(f"folder:{tmp_path}@4,unlabelled")), dataset_info(f"folder:{tmp_path}@4").num_classes) == (
        2,
        1,
    )


def test_a_folder_without_images_is_no_class(tmp_path: Path) -> None:
    for name in ("cats", "dogs"):
        (tmp_path / name).mkdir()
        Image.new("RGB", (4, 4)).save(tmp_path / name / "a.png")
    (tmp_path / "notes").mkdir()
    (tmp_path / "notes" / "a.txt").write_text("hello")
    name = f"folder:{tmp_path}@4"
    assert dataset_info(name).num_classes == load_dataset(name).num_classes == 2


def test_options_of_a_name() -> None:
    found = Pictures.parse("folder:a@b@32,skip-damaged,background=black,no-flip")
    assert (found.path, found.size, found.flip) == (Path("a@b"), 32, False)
    assert (found.skip_damaged, found.unlabelled, found.background) == (True, False, "black")
    for name, message in {
        "folder:a@32,skip-damage": "unknown 'skip-damage'; did you mean 'skip-damaged'",
        "folder:a@32,background=pink": "background: unknown 'pink'",
        "folder:a@32,background": "only background=… takes a value",
        "folder:a@32,unlabelled=1": "only background=… takes a value",
    }.items():
        with pytest.raises(InputError, match=message):
            Pictures.parse(name)
