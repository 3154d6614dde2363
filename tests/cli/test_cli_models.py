"""Models in from elsewhere and out again, on the command line."""

from __future__ import annotations

import hashlib
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import refusal, run
from safetensors.torch import save_file

from tract_ray.config import InputError, to_dict
from tract_ray.diffusion import Denoiser, build_schedule
from tract_ray.distillation import TractConfig
from tract_ray.evaluation import classifier
from tract_ray.networks.exporting import export_network
from tract_ray.training import Model, NetworkConfig, RunConfig, load_model
from tract_ray.training.run_config import build_for

SIZES: dict[str, dict[str, Any]] = {
    "mlp_8x8": {"width": 16, "blocks": 1, "embedding": 16},
    "unet_8x8": {"multipliers": (1,), "attention": (8,)},
    "edm_8x8": {"multipliers": (1,), "attention": (4,)},
    # Diffusers needs as many groups in every norm: 32 from 128 channels on.
    "unet_cifar10": {"channels": 128, "embedding": 32, "multipliers": (1,), "blocks": 1, "attention": ()},
}


def model(name: str, prediction: str, num_classes: int = 0, times: list[float] | None = None) -> Model:
    config = NetworkConfig(name=name, options=SIZES[name])
    network = build_for(config, (1, 8, 8), prediction, num_classes, seed=0)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        for weight in network.parameters():  # fresh networks end in a layer of zeros
            weight += 0.03 * torch.randn_like(weight)
    schedule = build_schedule("ve_karras" if prediction == "edm" else "vp_cosine")
    denoiser = Denoiser(network.eval().requires_grad_(False), schedule, prediction)
    steps = len(times) - 1 if times else 1024
    return Model(denoiser, config, (1, 8, 8), steps, num_classes, times, dataset="digits")


def noise(count: int) -> torch.Tensor:
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(2))


@pytest.fixture
def teacher_file(tmp_path: Path) -> Path:
    """An EDM network for the digits' ten classes."""
    return weights_of(model("edm_8x8", "edm", 10), tmp_path / "edm.safetensors")


def weights_of(source: Model, path: Path) -> Path:
    network = source.network
    return export_network(
        source.denoiser,
        source.shape,
        path,
        "safetensors",
        num_classes=source.num_classes,
        network=network.name,
        options=network.options,
    )


@pytest.mark.parametrize(
    ("name", "prediction", "num_classes", "steps"),
    [("unet_8x8", "both", 3, 1024), ("mlp_8x8", "v", 0, 1024), ("edm_8x8", "edm", 10, 40)],
)
def test_a_teacher_becomes_a_model_folder(
    tmp_path: Path, name: str, prediction: str, num_classes: int, steps: int
) -> None:
    source = model(name, prediction, num_classes)
    file = weights_of(source, tmp_path / "teacher.safetensors")
    said = json.loads(run("import-teacher", file, "--out", tmp_path / "teacher", "--json"))
    found = load_model(tmp_path / "teacher")
    assert said["teacher"] == str(tmp_path / "teacher")
    assert said["parameters"] == sum(p.numel() for p in source.denoiser.module.parameters())
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert found.about == said["about"] == {"source": "teacher.safetensors", "sha256": digest}
    assert (found.steps, found.times, found.num_classes) == (steps, None, num_classes)
    assert (found.denoiser.prediction, found.denoiser.schedule) == (prediction, source.denoiser.schedule)
    labels = torch.arange(4) % num_classes if num_classes else None
    assert torch.equal(found.sample(noise(4), labels, 2), source.sample(noise(4), labels, 2))


@pytest.mark.parametrize("num_classes", [0, 3])
def test_a_diffusers_folder(tmp_path: Path, num_classes: int) -> None:
    library = pytest.importorskip("diffusers")
    unet = library.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8, 16),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=4,
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        num_class_embeds=num_classes or None,
    )
    library.DDPMPipeline(unet=unet, scheduler=library.DDPMScheduler()).save_pretrained(tmp_path / "ddpm")
    said = run("import-teacher", tmp_path / "ddpm", "--out", tmp_path / "teacher")
    assert "diffusers_unet" in said
    assert "1x8x8" in said
    found = load_model(tmp_path / "teacher")
    weights = tmp_path / "ddpm" / "unet" / "diffusion_pytorch_model.safetensors"
    assert found.about == {"source": "ddpm", "sha256": hashlib.sha256(weights.read_bytes()).hexdigest()}
    x, timestep, labels = noise(2), torch.tensor([700, 20]), torch.tensor([2, 0]) if num_classes else None
    network = found.denoiser.module
    with torch.inference_mode():
        out = network(x, network.logsnrs[timestep], labels)
        torch.testing.assert_close(out, unet.eval()(x, timestep, class_labels=labels).sample, atol=1e-4, rtol=1e-4)
    assert found.sample(x, labels, 2).isfinite().all()


def test_an_imported_teacher_samples_and_distils(
    tmp_path: Path, teacher_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(classifier.RECIPE, "steps", 20)
    teacher, student = tmp_path / "teacher", tmp_path / "run"
    run("import-teacher", teacher_file, "--out", teacher, "--dataset", "digits")
    run("sample", teacher, "--steps", 8, "--count", 4, "--out", tmp_path / "grid.png", "--device", "cpu")
    assert (tmp_path / "grid.png").stat().st_size > 0
    distil = ["distill", "--teacher", teacher, "--time-schedule", "4,1", "--samples", 64, "--batch", 16, "--json"]
    scored = ["--evaluation-samples", 60, "--rung-samples", 20]
    run(*distil, *scored, "--out", student, "--storage", tmp_path / "runs", "--device", "cpu")
    found = load_model(student / "student")
    assert found.about["config"]["evaluation"]["rung_samples"] == 20
    assert (found.steps, found.num_classes, found.denoiser.prediction) == (1, 10, "edm")
    assert found.network.options == to_dict(SIZES["edm_8x8"])


def test_the_recipe_is_for_the_teachers_data(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = model("mlp_8x8", "v")
    source.dataset = "cifar10"
    source.save(tmp_path / "teacher")
    configs = []

    def note(config: RunConfig, *_: Any, **__: Any) -> None:
        configs.append(config)
        raise InputError("enough")

    monkeypatch.setattr("tract_ray.cli.command.run_distillation", note)
    assert refusal("distill", "--teacher", tmp_path / "teacher", "--device", "cpu") == "enough"
    assert configs[0].teacher.dataset == "cifar10"
    assert configs[0].method == TractConfig()


def test_a_setting_is_not_left_out_silently() -> None:
    assert refusal("distill", "--set", "mu_i=null") == "set: 'mu_i=null' would be left out; give a value"


@pytest.mark.parametrize("sampler", ["ddim", "ancestral"])
def test_a_student_comes_back_with_its_own_sampler(tmp_path: Path, sampler: str) -> None:
    source = model("mlp_8x8", "x0", times=[0.0, 0.3, 1.0])
    source.sampler = sampler
    source.save(tmp_path / "student")
    run("export", tmp_path / "student", "--format", "safetensors", "--out", tmp_path / "student.safetensors")
    run("import-teacher", tmp_path / "student.safetensors", "--out", tmp_path / "again")
    found = load_model(tmp_path / "again")
    assert (found.steps, found.times, found.sampler) == (2, [0.0, 0.3, 1.0], sampler)
    assert torch.equal(found.sample(noise(3)), source.sample(noise(3)))
    assert refusal("sample", tmp_path / "again", "--steps", 3).startswith("steps: this student was distilled for 2")


@pytest.mark.parametrize(
    ("prediction", "num_classes", "times", "steps", "sampler"),
    [
        ("v", 0, [0.0, 0.3, 1.0], None, "ddim"),
        ("v", 3, None, 1, "ddim"),
        ("edm", 0, [0.002, 80.0], None, "ancestral"),
    ],
)
def test_onnx_runtime_samples_the_export(
    tmp_path: Path,
    prediction: str,
    num_classes: int,
    times: list[float] | None,
    steps: int | None,
    sampler: str,
) -> None:
    pytest.importorskip("onnxscript")
    runtime = pytest.importorskip("onnxruntime")
    source = model("mlp_8x8", prediction, num_classes, times)
    source.sampler = sampler
    source.save(tmp_path / "model")
    extra = ["--steps", steps] if steps else []
    run("export", tmp_path / "model", "--format", "onnx", "--out", tmp_path / "model.onnx", *extra)
    session = runtime.InferenceSession(str(tmp_path / "model.onnx"), providers=["CPUExecutionProvider"])
    labels = torch.arange(3) if num_classes else None
    inputs = {"noise": noise(3).numpy()} | ({"labels": labels.numpy()} if labels is not None else {})
    (images,) = session.run(["images"], inputs)
    np.testing.assert_allclose(images, source.sample(noise(3), labels, steps).numpy(), atol=1e-4)


def test_diffusers_samples_the_export(tmp_path: Path) -> None:
    library = pytest.importorskip("diffusers")
    source = model("unet_cifar10", "x0", times=[0.0, 1.0])
    source.save(tmp_path / "student")
    run("export", tmp_path / "student", "--format", "diffusers", "--out", tmp_path / "folder")
    pipeline = library.DDIMPipeline.from_pretrained(tmp_path / "folder")
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(2)
    images = pipeline(2, generator, num_inference_steps=1, use_clipped_model_output=True, output_type="np").images
    expected = (source.sample(noise(2)) / 2 + 0.5).clamp(0, 1).permute(0, 2, 3, 1)
    np.testing.assert_allclose(images, expected.numpy(), atol=1e-4)


# --- what is refused -----------------------------------------------------------------------------------------------


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
    assert "cannot express a MLP" in said(student, "diffusers")
    noisy = model("mlp_8x8", "v", times=[0.0, 0.5, 1.0])
    noisy.sampler = "ancestral"
    assert "this student's 2 add noise" in said(noisy.save(tmp_path / "noisy"), "onnx")
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
