"""What import-teacher and export refuse, in one line each."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch
from commands import refusal, run
from safetensors.torch import save_file
from small_models import model, weights_of


def test_sources_that_are_no_teacher(tmp_path: Path) -> None:
    def said(source: Path, *extra: object) -> str:
        return refusal("import-teacher", source, "--out", tmp_path / "out", *extra)

    assert said(tmp_path / "missing.pkl") == f"teacher: no file or folder {tmp_path / 'missing.pkl'}"
    (tmp_path / "notes.txt").write_text("nothing")
    assert "neither an EDM pickle" in said(tmp_path / "notes.txt")
    assert "no config.json of a diffusers UNet2DModel" in said(tmp_path)
    (tmp_path / "x.pkl").write_bytes(b"\x80\x04nonsense")
    assert "x.pkl cannot be read" in said(tmp_path / "x.pkl")
    plain = tmp_path / "plain.safetensors"
    save_file({"weight": torch.zeros(1)}, plain)
    assert "does not say which network" in said(plain)
    save_file({"weight": torch.zeros(1)}, plain, {"tract_ray": json.dumps({"network": "mlp_8x8"})})
    assert "damaged or of an unknown kind (KeyError: 'options')" in said(plain)
    assert not (tmp_path / "out").exists()


def test_what_contradicts_the_file(tmp_path: Path, teacher_file: Path) -> None:
    def said(*extra: object) -> str:
        return refusal("import-teacher", teacher_file, "--out", tmp_path / "out", *extra)

    assert said("--image-size", 16).startswith("image-size: ")
    assert said("--image-size", 0) == "image-size: must be positive, got 0"
    assert said("--prediction", "v").endswith("predicts edm, not v")
    assert said("--prediction", "vv").startswith("prediction: unknown 'vv'; did you mean 'v'?")
    assert said("--dataset", "cifar10").startswith("dataset: cifar10 has images (3, 32, 32)")
    assert said("--dataset", "digit").startswith("dataset: unknown 'digit'")
    other = weights_of(model("mlp_8x8", "v", 3), tmp_path / "other.safetensors")
    assert refusal("import-teacher", other, "--out", tmp_path / "out", "--dataset", "digits") == (
        "dataset: digits has 10 classes, the teacher 3"
    )
    assert not (tmp_path / "out").exists()


def test_another_number_of_classes_is_found_before_training(tmp_path: Path) -> None:
    teacher = model("mlp_8x8", "v", 3).save(tmp_path / "teacher")
    where = ["--storage", tmp_path, "--out", tmp_path / "run", "--device", "cpu"]
    assert refusal("distill", "--teacher", teacher, *where) == "teacher: has 3 classes, but digits has 10"


def test_another_number_of_classes_is_not_scored(tmp_path: Path) -> None:
    """Classes that the data lack would never be drawn, in silence."""
    teacher = model("mlp_8x8", "v", 3).save(tmp_path / "teacher")
    said = refusal("evaluate", teacher, "--storage", tmp_path, "--device", "cpu")
    assert said == "checkpoint: has 3 classes, but digits has 10"
    assert refusal("evaluate", teacher, "--dataset", "digits16", "--storage", tmp_path, "--device", "cpu").startswith(
        "checkpoint: makes images of shape (1, 8, 8), but digits16 has (1, 16, 16)"
    )


def test_a_teacher_that_does_not_say_its_data(tmp_path: Path) -> None:
    teacher = model("unet_cifar10", "x0")
    teacher.dataset = ""
    folder = teacher.save(tmp_path / "teacher")
    line = refusal("distill", "--teacher", folder, "--dataset", "digits16", "--storage", tmp_path, "--device", "cpu")
    assert line == (
        "dataset: the teacher does not say what it was trained on, and makes images of 1x8x8, not digits16's 1x16x16; "
        "name its data with --dataset (folder:PATH@8 for images on disk)"
    )


def test_only_a_model_folder_is_replaced(tmp_path: Path, teacher_file: Path) -> None:
    photos = tmp_path / "photos"
    photos.mkdir()
    run("import-teacher", teacher_file, "--out", photos)  # an empty one is free
    run("import-teacher", teacher_file, "--out", photos)
    (photos / "holiday.jpg").write_bytes(b"precious")
    assert refusal("import-teacher", teacher_file, "--out", photos).startswith(f"out: {photos} exists and is not")
    assert refusal("import-teacher", teacher_file, "--out", teacher_file).startswith("out: ")
    assert (photos / "holiday.jpg").read_bytes() == b"precious"


def test_exports_that_cannot_be(tmp_path: Path) -> None:
    teacher = model("mlp_8x8", "v").save(tmp_path / "teacher")
    student = model("mlp_8x8", "v", times=[0.0, 1.0]).save(tmp_path / "student")

    def said(source: Path, format: str, *extra: object, out: Path = tmp_path / "out") -> str:
        return refusal("export", source, "--format", format, "--out", out, *extra)

    assert said(tmp_path / "missing", "onnx").startswith("checkpoint: ")
    assert said(student, "onx").startswith("format: unknown 'onx'; did you mean 'onnx'?")
    assert said(student, "onnx", "--steps", 4) == "steps: this student was distilled for 1 step(s), not 4"
    assert said(teacher, "onnx", "--steps", 0) == "steps: must be at least 1, got 0"
    assert said(teacher, "onnx").endswith("name it with --steps")
    assert said(student, "onnx", out=tmp_path).startswith("out: ")
    assert said(student, "diffusers", out=student / "config.json").startswith("out: ")
    ode = model("edm_8x8", "edm")
    ode.sampler = "heun"
    ode.save(tmp_path / "ode")
    assert said(tmp_path / "ode", "onnx", "--steps", 2).startswith("sampler: onnx takes first-order steps, not heun's")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("format", ["onnx", "diffusers"])
def test_a_missing_package_for_an_export(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, format: str) -> None:
    monkeypatch.setitem(sys.modules, format, None)
    student = model("unet_cifar10", "x0", times=[0.0, 1.0]).save(tmp_path / "student")
    assert refusal("export", student, "--format", format, "--out", tmp_path / "out") == (
        f"format: {format} needs {format}: pip install 'tract-ray[export]'"
    )


def test_a_missing_package_for_an_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "msgpack", None)
    (tmp_path / "checkpoint_0").write_bytes(b"\x82flax")
    assert refusal("import-teacher", tmp_path / "checkpoint_0", "--out", tmp_path / "out") == (
        "teacher: flax checkpoints need msgpack: pip install 'tract-ray[import]'"
    )
