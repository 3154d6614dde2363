"""From a folder of one's own images, without classes and without a network, to a scored student."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from commands import run, tract_ray
from PIL import Image

import tract_ray as tr

TINY = "--network mlp_8x8_small --teacher-samples 640 --samples 256 --time-schedule 8,4,1 --device cpu"
SCORED = ["--evaluation-samples", 70, "--features", "random", "--skip-damaged"]


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """200 of them, of all kinds, two of which are damaged; and a file that is no image. Inception is not here."""
    monkeypatch.setenv("TRACT_RAY_INCEPTION", str(tmp_path / "nowhere"))
    folder = tmp_path / "photos"
    folder.mkdir()
    kinds = [("RGB", "png"), ("RGBA", "png"), ("L", "png"), ("RGB", "tiff"), ("RGB", "jpg"), ("L", "bmp")]
    rng = np.random.default_rng(0)
    for i in range(200):
        mode, ending = kinds[i % len(kinds)]
        size = (8 + i % 5, 8 + i % 3)
        pixels = rng.integers(0, 128, (*size[::-1], len(mode)), dtype=np.uint8) + np.uint8(i // 2)
        Image.fromarray(pixels.squeeze()).save(folder / f"{i:03d}.{ending}")
    for name in ("017.png", "111.tiff"):
        next(folder.glob(f"{name[:3]}.*")).unlink()
        (folder / name).write_bytes(b"damaged")
    (folder / "notes.txt").write_text("mine")
    return folder


def distil(*options: object) -> dict[str, Any]:
    """What `tract-ray distill … --json` gives."""
    called = tract_ray("distill", *SCORED, *options, "--json")
    assert called.status == 0, called.err
    found: dict[str, Any] = json.loads(called.out)
    return found


def test_one_command_to_a_scored_student(photos: Path, tmp_path: Path) -> None:
    name, storage = f"folder:{photos}@8", tmp_path / "runs"
    lines = run("distill", "--dataset", name, *TINY.split(), *SCORED, "--storage", storage).splitlines()
    data, learns, trained = lines[:3]
    assert data == f"{name},skip-damaged: 198 images, no classes, as 3x8x8; left out: 1 not an image (.txt), 2 damaged"
    assert learns == "teacher: mlp_8x8_small learns from 640 images"
    assert trained.startswith(f"teacher: trained, kept in {storage / 'cache' / 'teachers'}")
    assert lines[-3].startswith(f"student: {storage / 'distill'}")
    assert lines[-2].startswith("fid_random_photos_8 ")
    assert lines[-1].startswith("note: fid_random_photos_8 compares colours, edges and their places")
    student = tr.load_model(lines[-3].removeprefix("student: "))
    assert student.distance is not None
    assert f"fid_random_photos_8 {student.distance:.3f} at 1 step(s)" in lines[-2]


def test_the_same_from_a_diffusers_folder(photos: Path, tmp_path: Path) -> None:
    library = pytest.importorskip("diffusers")
    unet = library.UNet2DModel(
        sample_size=8,
        block_out_channels=(8,),
        norm_num_groups=4,
        layers_per_block=1,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
    )
    library.DDPMPipeline(unet, library.DDPMScheduler()).save_pretrained(tmp_path / "pipeline")
    name, out = f"folder:{photos}@8,skip-damaged", tmp_path / "teacher"
    said = run("import-teacher", tmp_path / "pipeline", "--out", out, "--dataset", name).splitlines()
    assert said[-1] == f"distil it with: tract-ray distill --teacher {out}"
    options = ["--samples", 128, "--batch", 64, "--time-schedule", "4,1", "--device", "cpu"]
    called = tract_ray("distill", "--teacher", out, *options, *SCORED[:-1], "--storage", tmp_path / "runs")
    assert called.status == 0, called.err
    lines = called.out.splitlines()
    assert lines[0] == f"teacher: found in {out}"
    assert lines[1].startswith(f"{name}: 198 images, no classes, as 3x8x8")
    assert lines[-2].startswith("fid_random_photos_8 ")


def test_what_is_trained_again_and_what_is_not(photos: Path, tmp_path: Path) -> None:
    """The data's content decides: not its place or name, and every pixel of it."""

    def options(folder: Path) -> list[object]:
        return ["--dataset", f"folder:{folder}@8", *TINY.split(), "--storage", tmp_path / "runs"]

    first = distil(*options(photos))
    assert first["trained"] == 256
    elsewhere = Path(shutil.copytree(photos, tmp_path / "deeper" / "of another name"))
    again = distil(*options(elsewhere))
    assert (again["trained"], again["distance"]) == (0, first["distance"])
    assert len(list((tmp_path / "runs" / "cache" / "teachers").glob("[!.]*"))) == 1

    file = elsewhere / "000.png"
    with Image.open(file) as image:
        image.putpixel((4, 4), tuple(255 - value for value in image.getpixel((4, 4))))
        image.save(file)
    changed = distil(*options(elsewhere))
    assert changed["trained"] == 256
    assert changed["distance"] != first["distance"]
    assert len(list((tmp_path / "runs" / "cache" / "teachers").glob("[!.]*"))) == 2
