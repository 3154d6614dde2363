"""The contract of leaving: for every network, ONNX, `torch.export` and diffusers draw the student's own images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tract_ray.diffusion import Denoiser, build_schedule, predictions, samplers
from tract_ray.diffusion.step_noise import step_noise
from tract_ray.networks import build_network, presets
from tract_ray.networks.exporting import export_network

torch.set_num_threads(1)

BLOCKS = {"down_block_types": ("DownBlock2D",), "up_block_types": ("AttnUpBlock2D",), "layers_per_block": 1}
DDPM = {"block_out_channels": (8,), "norm_num_groups": 4, "attention_head_dim": 4, **BLOCKS}
KINDS: dict[str, tuple[str, str, str, dict[str, Any]]] = {
    "perceptron": ("mlp_8x8", "vp_cosine", "eps", {"width": 16, "blocks": 1}),
    "unet": ("unet_8x8", "vp_cosine", "v", {"multipliers": (1,), "attention": ()}),
    "ddpm++": ("edm_8x8", "ve_karras", "edm", {"multipliers": (1,), "attention": ()}),
    "ncsn++": (
        "edm_cifar10_ncsnpp",
        "ve_karras",
        "edm",
        {"channels": 8, "multipliers": (1, 1), "blocks": 1, "attention": ()},
    ),
    "adm": (
        "edm_imagenet64_adm",
        "ve_karras",
        "edm",
        {"channels": 16, "multipliers": (1,), "blocks": 1, "attention": (8,), "head_width": 8},
    ),
    "diffusers": ("diffusers_unet", "vp_cosine", "eps", {"unet": DDPM, "scheduler": {}}),
}
QUICK = [("perceptron", 3, 2, "ancestral"), ("diffusers", 0, 1, "ddim")]
ALL = [(kind, classes, 2, "ddim") for kind in KINDS for classes in (0, 3)]
CASES = [*QUICK, *(pytest.param(*case, marks=pytest.mark.slow) for case in ALL)]


def test_every_network_is_here() -> None:
    assert {presets[name].build for name, *_ in KINDS.values()} == {preset.build for preset in presets.values()}


@pytest.mark.parametrize(("kind", "classes", "steps", "sampler"), CASES)
def test_a_student_leaves(tmp_path: Path, kind: str, classes: int, steps: int, sampler: str) -> None:
    runtime = pytest.importorskip("onnxruntime")
    pytest.importorskip("onnxscript")
    library = pytest.importorskip("diffusers")
    name, schedule, prediction, options = KINDS[kind]
    channels = predictions[prediction].channels
    network = build_network(name, (1, 8, 8), num_classes=classes, out_multiplier=channels, options=options, seed=0)
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        for weight in network.parameters():  # fresh networks end in a layer of zeros
            weight += 0.03 * torch.randn_like(weight)
    student = Denoiser(network.eval(), build_schedule(schedule), prediction)
    noise = torch.randn(5, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    inputs = {"noise": noise}
    if classes:
        inputs["labels"] = torch.arange(5) % classes
    if sampler == "ancestral":
        inputs["step_noise"] = torch.stack([step_noise(noise, step) for step in range(steps, 1, -1)], 1)
    expected = samplers[sampler](student, noise, steps, labels=inputs.get("labels")).numpy()
    assert expected.std() > 0.05

    def leave(format: str, out: str) -> str:
        told = {"steps": steps, "sampler": sampler, "num_classes": classes, "about": {"dataset": "digits"}}
        return str(export_network(student, (1, 8, 8), tmp_path / out, format, **told))  # type: ignore[arg-type]

    session = runtime.InferenceSession(leave("onnx", "student.onnx"), providers=["CPUExecutionProvider"])
    assert session.get_modelmeta().custom_metadata_map["dataset"] == "digits"
    for count in (1, 5):  # any batch size, not the exporter's own
        (images,) = session.run(["images"], {key: value[:count].numpy() for key, value in inputs.items()})
        np.testing.assert_allclose(images, expected[:count], atol=1e-4)

    graph = torch.export.load(leave("torch_export", "student.pt2")).module()
    with torch.no_grad():
        others = {key: value for key, value in inputs.items() if key != "noise"}
        np.testing.assert_allclose(graph(noise, **others).numpy(), expected, atol=1e-4)

    folder = leave("diffusers", "folder")
    pipeline = library.DiffusionPipeline.from_pretrained(folder, custom_pipeline=folder, trust_remote_code=True)
    drawn = pipeline(noise=noise, labels=inputs.get("labels"), output_type="pt").images
    np.testing.assert_allclose(drawn.numpy(), expected, atol=1e-4)
