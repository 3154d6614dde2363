"""Models in from elsewhere and out again, on the command line."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from commands import refusal, run
from small_models import SIZES, model, noise, weights_of

from tract_ray.config import InputError, to_dict
from tract_ray.distillation import TractConfig
from tract_ray.evaluation import classifier
from tract_ray.training import RunConfig, load_model


@pytest.mark.parametrize(
    ("name", "prediction", "num_classes", "sampler", "steps"),
    [("unet_8x8", "both", 3, "ddim", 1024), ("mlp_8x8", "v", 0, "ddim", 1024), ("edm_8x8", "edm", 10, "heun", 18)],
)
def test_a_teacher_becomes_a_model_folder(
    tmp_path: Path, name: str, prediction: str, num_classes: int, sampler: str, steps: int
) -> None:
    """It is sampled as its process asks for: an EDM network with EDM's sampler."""
    source = model(name, prediction, num_classes)
    file = weights_of(source, tmp_path / "teacher.safetensors")
    said = json.loads(run("import-teacher", file, "--out", tmp_path / "teacher", "--json"))
    found = load_model(tmp_path / "teacher")
    assert said["teacher"] == str(tmp_path / "teacher")
    assert said["parameters"] == sum(p.numel() for p in source.denoiser.module.parameters())
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert found.about == said["about"] == {"source": "teacher.safetensors", "sha256": digest}
    assert (found.sampler, found.steps, found.times, found.num_classes) == (sampler, steps, None, num_classes)
    assert (found.denoiser.prediction, found.denoiser.schedule) == (prediction, source.denoiser.schedule)
    labels = torch.arange(4) % num_classes if num_classes else None
    source.sampler = sampler
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
    assert said.splitlines()[-1] == (
        f"distil it with: tract-ray distill --teacher {tmp_path / 'teacher'} --dataset digits|folder:PATH@8"
    )
    assert (tmp_path / "teacher.png").stat().st_size > 0
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

    monkeypatch.setattr("tract_ray.api.runs.check_run", note)  # the first that sees the whole run
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
    for command in ([], ["--dry-run"]):
        wrong = [
            "--teacher",
            tmp_path / "again",
            "--time-schedule",
            "1024,32,1",
            "--storage",
            tmp_path / "runs",
            *command,
        ]
        assert refusal("distill", *wrong).startswith("teacher: is a student of 2 step(s) and can teach a schedule")


@pytest.mark.parametrize(
    ("prediction", "num_classes", "times", "steps", "sampler"),
    [
        ("v", 3, None, 1, "ddim"),
        pytest.param("v", 0, [0.0, 0.3, 1.0], None, "ddim", marks=pytest.mark.slow),
        pytest.param("edm", 0, [0.002, 80.0], None, "ancestral", marks=pytest.mark.slow),
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


def test_a_sampler_is_chosen_by_name(tmp_path: Path) -> None:
    """Its steps and its network calls are both said; a student takes first-order steps only."""
    teacher, out = model("edm_8x8", "edm").save(tmp_path / "teacher"), tmp_path / "grid.png"
    where = ["--count", 2, "--out", out, "--device", "cpu"]

    def said(*options: object) -> str:
        return run("sample", teacher, *where, *options).removeprefix(f"{out}: 2 images, ").strip()

    assert said("--sampler", "heun", "--steps", 3) == "3 heun step(s), 5 network call(s) each"
    heun = out.read_bytes()
    assert said("--sampler", "euler", "--steps", 3) == "3 euler step(s), 3 network call(s) each"
    assert out.read_bytes() != heun
    said("--sampler", "heun", "--steps", 3, "--sampler-set", "s_churn=40")
    assert out.read_bytes() != heun
    assert refusal("sample", teacher, *where, "--sampler", "huen").startswith("sampler: unknown 'huen'; did you mean")
    wrong = refusal("sample", teacher, *where, "--sampler-set", "s_churn=1")
    assert wrong == "sampler options: ddim has none, got s_churn"
    wrong = refusal("sample", teacher, *where, "--sampler", "heun", "--sampler-set", "s_churn=-1")
    assert wrong == "s_churn: must be a number that is not negative, got -1"
    student = model("mlp_8x8", "v", times=[0.0, 0.3, 1.0]).save(tmp_path / "student")
    wrong = refusal("sample", student, *where, "--sampler", "heun")
    assert wrong == "sampler: a student of 2 step(s) takes no heun steps; use ddim"
