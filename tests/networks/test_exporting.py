"""Exported students draw the pixels that `sample_ddim` draws."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tract_ray.config import InputError
from tract_ray.diffusion import CosineVP, Denoiser, KarrasVE, build_schedule, predictions, sample_ancestral, sample_ddim
from tract_ray.diffusion.step_noise import step_noise
from tract_ray.networks import build_network
from tract_ray.networks.exporting import Sampler, export_network
from tract_ray.networks.exporting_diffusers import inexpressible
from tract_ray.networks.importing import import_teacher

torch.set_num_threads(1)

TINY_UNET = {"multipliers": (1,), "attention": (8,)}
# Diffusers needs as many groups in every norm: 32 from 128 channels on.
GROUPED = {"channels": 128, "embedding": 96, "multipliers": (1, 2), "blocks": 1, "attention": (4,), "head_width": 64}


def student(
    name: str, schedule: str, prediction: str, *, num_classes: int = 0, options: dict[str, Any] | None = None
) -> Denoiser:
    network = build_network(
        name,
        (1, 8, 8),
        num_classes=num_classes,
        out_multiplier=predictions[prediction].channels,
        options=options,
        seed=0,
    ).eval()
    with torch.random.fork_rng(), torch.no_grad():
        torch.manual_seed(1)
        for weight in network.parameters():  # fresh networks end in a layer of zeros
            weight += 0.03 * torch.randn_like(weight)
    return Denoiser(network, build_schedule(schedule), prediction)


def noise(count: int) -> torch.Tensor:
    return torch.randn(count, 1, 8, 8, generator=torch.Generator().manual_seed(2))


CASES = [
    ("mlp_8x8", "vp_cosine", "x0", {"width": 32, "blocks": 1}),
    ("mlp_8x8", "vp_cosine", "eps", {"width": 32, "blocks": 1}),
    ("unet_8x8", "vp_cosine", "both", TINY_UNET),
    ("edm_8x8", "ve_karras", "edm", {"multipliers": (1,)}),
]


@pytest.mark.parametrize(("name", "schedule", "prediction", "options"), CASES)
@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("ancestral", [False, True])
def test_the_sampler_of_constants_is_sample_ddim(
    name: str, schedule: str, prediction: str, options: dict[str, Any], steps: int, ancestral: bool
) -> None:
    denoiser = student(name, schedule, prediction, options=options)
    nodes = denoiser.schedule.sampling_time(torch.arange(steps + 1) / steps)
    added = [step_noise(noise(4), node) for node in range(steps, 1, -1)]
    with torch.inference_mode():
        sampler = Sampler(denoiser, nodes, clip=True, ancestral=ancestral)
        images = sampler(noise(4), step_noise=torch.stack(added, 1) if ancestral and added else None)
    sample = sample_ancestral if ancestral else sample_ddim
    expected = sample(denoiser, noise(4), steps, times=nodes)
    torch.testing.assert_close(images, expected.float(), atol=1e-6, rtol=1e-5)


def diffusers_images(folder: Path, count: int, steps: int, labels: torch.Tensor | None) -> torch.Tensor:
    """As the folder's own card says, from the tests' noise; in [0, 1] as the pipeline's images are."""
    library = pytest.importorskip("diffusers")
    unet = library.UNet2DModel.from_pretrained(folder, subfolder="unet")
    scheduler = library.DDIMScheduler.from_pretrained(folder, subfolder="scheduler")
    scheduler.set_timesteps(steps)
    x = noise(count)
    with torch.inference_mode():
        for t in scheduler.timesteps:
            out = unet(x, t, class_labels=labels).sample
            x = scheduler.step(out, t, x, use_clipped_model_output=True).prev_sample
    return unit(x)


def unit(x: torch.Tensor) -> torch.Tensor:
    return (x / 2 + 0.5).clamp(0, 1)


def clean_nodes(steps: int) -> torch.Tensor:
    """The sampler's nodes with the end moved to where sigma is exactly 0, which is where diffusers ends."""
    nodes = CosineVP().nodes(steps)
    angle = math.atan(math.exp(-10))
    nodes[0] = -angle / (math.pi / 2 - 2 * angle)
    return nodes


@pytest.mark.parametrize(
    ("prediction", "steps", "num_classes", "change"),
    [("x0", 1, 0, {}), ("v", 3, 0, {"head_width": 0, "attention": (8, 4)}), ("v", 1, 3, {"attention": ()})],
)
def test_diffusers_draws_the_same_pixels(
    tmp_path: Path, prediction: str, steps: int, num_classes: int, change: dict[str, Any]
) -> None:
    pytest.importorskip("diffusers")
    options = {**GROUPED, **change}
    denoiser = student("unet_cifar10", "vp_cosine", prediction, options=options, num_classes=num_classes)
    export_network(denoiser, (1, 8, 8), tmp_path / "student", "diffusers", steps=steps, num_classes=num_classes)
    labels = torch.tensor([0, 2, 1, 1]) if num_classes else None
    images = diffusers_images(tmp_path / "student", 4, steps, labels)
    expected = unit(sample_ddim(denoiser, noise(4), steps, times=clean_nodes(steps), labels=labels))
    assert (images - expected).abs().max() < 2e-5
    # The sampler's own last node keeps sigma_0 = 4.5e-5 of the noise, which single precision cannot.
    sampled = unit(sample_ddim(denoiser, noise(4), steps, labels=labels))
    assert (images - sampled).abs().max() < 1e-4
    assert expected.std() > 0.05


def test_the_folder_loads_as_a_stock_pipeline(tmp_path: Path) -> None:
    library = pytest.importorskip("diffusers")
    denoiser = student("unet_cifar10", "vp_cosine", "x0", options=GROUPED)
    export_network(denoiser, (1, 8, 8), tmp_path / "student", "diffusers", steps=2)
    pipeline = library.DDIMPipeline.from_pretrained(tmp_path / "student")
    pipeline.set_progress_bar_config(disable=True)
    generator = torch.Generator().manual_seed(2)
    images = pipeline(4, generator, num_inference_steps=2, use_clipped_model_output=True, output_type="np").images
    expected = unit(sample_ddim(denoiser, noise(4), 2, times=clean_nodes(2))).permute(0, 2, 3, 1)
    np.testing.assert_allclose(images, expected.numpy(), atol=2e-5)


class Wrapped(nn.Module):
    """What DDP does to a network: it lies under `module`."""

    def __init__(self, module: nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.module(*inputs)
        return out


def test_safetensors_are_read_back(tmp_path: Path) -> None:
    options = {"width": 32, "blocks": 1}
    denoiser = student("mlp_8x8", "vp_cosine", "v", num_classes=3, options=options)
    wrapped = denoiser.view_of(Wrapped(denoiser.network).train())
    path = tmp_path / "deep" / "student.safetensors"
    export_network(wrapped, (1, 8, 8), path, "safetensors", num_classes=3, network="mlp_8x8", options=options)
    assert wrapped.network.training
    imported = import_teacher(path)
    assert (imported.network, imported.options, imported.shape) == ("mlp_8x8", options, (1, 8, 8))
    assert (imported.schedule, imported.prediction, imported.num_classes) == ("vp_cosine", "v", 3)
    labels = torch.tensor([0, 1, 2])
    torch.testing.assert_close(
        sample_ddim(imported.denoiser(), noise(3), 2, labels=labels), sample_ddim(denoiser, noise(3), 2, labels=labels)
    )


@pytest.mark.parametrize(
    ("denoiser", "reason"),
    [
        (lambda: student("mlp_8x8", "vp_cosine", "v"), "cannot be a MLP"),
        (lambda: student("edm_8x8", "ve_karras", "edm"), "cannot be a SongUNet"),
        (lambda: student("unet_8x8", "vp_cosine", "v"), "normalises every layer"),
        (lambda: student("unet_cifar10", "vp_cosine", "eps", options=GROUPED), "prediction eps"),
        (lambda: student("unet_cifar10", "vp_cosine", "both", options=GROUPED), "prediction both"),
        (lambda: Denoiser(student("unet_8x8", "vp_cosine", "v").network, KarrasVE(), "v"), "ve_karras"),
    ],
)
def test_what_diffusers_cannot_say_by_itself(denoiser: Any, reason: str) -> None:
    assert reason in inexpressible(denoiser(), "ddim")


def test_wrong_arguments_are_refused(tmp_path: Path) -> None:
    denoiser = student("mlp_8x8", "vp_cosine", "v", options={"width": 32, "blocks": 1})
    with pytest.raises(InputError, match="did you mean 'onnx'"):
        export_network(denoiser, (1, 8, 8), tmp_path / "x", "onx")
    with pytest.raises(InputError, match="steps"):
        export_network(denoiser, (1, 8, 8), tmp_path / "x", "onnx", steps=0)
    conditional = student("edm_8x8", "ve_karras", "edm", num_classes=3)
    with pytest.raises(InputError, match="the network has 3 classes, not 0"):
        export_network(conditional, (1, 8, 8), tmp_path / "x", "onnx")
    with pytest.raises(InputError, match="2 steps have 3 times"):
        export_network(denoiser, (1, 8, 8), tmp_path / "x", "onnx", steps=2, times=CosineVP().nodes(3))
