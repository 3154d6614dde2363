"""Diffusers folders of every process: DDPM, v-prediction, score-SDE VE; and what is not one of them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch

from tract_ray.config import InputError
from tract_ray.networks.importing import import_teacher, locate

library = pytest.importorskip("diffusers")
torch.set_num_threads(1)


def folder_of(tmp_path: Path, scheduler: Any, **options: Any) -> tuple[Path, Any]:
    torch.manual_seed(0)
    unet = library.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        block_out_channels=(8,),
        layers_per_block=1,
        norm_num_groups=4,
        attention_head_dim=4,
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        **options,
    ).eval()
    unet.save_pretrained(tmp_path / "unet")
    scheduler.save_pretrained(tmp_path / "scheduler")
    return tmp_path, unet


@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction", "sample"])
@pytest.mark.parametrize("classes", [None, 3])
def test_a_vp_teacher_s_x0_is_its_scheduler_s(tmp_path: Path, prediction: str, classes: int | None) -> None:
    scheduler = library.DDIMScheduler(prediction_type=prediction, clip_sample=False)
    folder, unet = folder_of(tmp_path, scheduler, num_class_embeds=classes)
    teacher, timestep = import_teacher(folder), 400
    denoiser = teacher.denoiser()
    labels = torch.tensor([0, 2, 1]) if classes else None
    x = torch.randn(3, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    scheduler.set_timesteps(1000)
    with torch.inference_mode():
        expected = scheduler.step(unet(x, timestep, class_labels=labels).sample, timestep, x).pred_original_sample
        t = time_of(denoiser.schedule, float(scheduler.alphas_cumprod[timestep]))
        torch.testing.assert_close(denoiser(x, t, labels), expected, atol=1e-4, rtol=1e-4)


def time_of(schedule: Any, gamma: float) -> torch.Tensor:
    """Where the cosine schedule has the signal power `gamma`: its angle's cosine is the root of that."""
    ends = schedule._angle(torch.tensor([0.0, 1.0]))
    angle = torch.acos(torch.tensor(gamma, dtype=torch.float64).sqrt())
    time: torch.Tensor = (angle - ends[0]) / (ends[1] - ends[0])
    return time


def test_a_ve_teacher_s_x0_is_tweedie_s(tmp_path: Path) -> None:
    """x0 = x + sigma^2 score (Song et al. 2021), with pixels from 0 to 1."""
    scheduler = library.ScoreSdeVeScheduler(sigma_min=0.01, sigma_max=50.0)
    folder, unet = folder_of(tmp_path, scheduler, time_embedding_type="fourier")
    teacher = import_teacher(folder)
    assert (teacher.schedule, teacher.prediction) == ("ve_karras", "eps")
    denoiser = teacher.denoiser()
    for sigma in (20.0, 0.7, 0.02):
        pixels = torch.rand(2, 1, 8, 8, generator=torch.Generator().manual_seed(2))
        x = pixels + sigma * torch.randn(2, 1, 8, 8, generator=torch.Generator().manual_seed(3))
        with torch.inference_mode():
            score = unet(x, torch.full((2,), sigma)).sample
            ours = denoiser((2 * x - 1).double(), torch.tensor(2 * sigma, dtype=torch.float64))
        torch.testing.assert_close(ours, (2 * (x + sigma**2 * score) - 1).double(), atol=1e-3 * (1 + sigma), rtol=1e-4)


def test_a_scheduler_that_ends_without_signal(tmp_path: Path) -> None:
    scheduler = library.DDIMScheduler(rescale_betas_zero_snr=True, prediction_type="v_prediction")
    teacher = import_teacher(folder_of(tmp_path, scheduler)[0])
    x = torch.randn(2, 1, 8, 8)
    assert teacher.denoiser()(x, torch.tensor(1.0)).isfinite().all()


def test_another_process_is_refused(tmp_path: Path) -> None:
    folder, _ = folder_of(tmp_path, library.FlowMatchEulerDiscreteScheduler())
    with pytest.raises(InputError, match="was trained for FlowMatchEulerDiscreteScheduler"):
        import_teacher(folder)


def test_a_name_of_the_hub_without_a_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def away(*_: Any, **__: Any) -> None:
        raise ConnectionError("no route to host\nand more")

    monkeypatch.setattr("huggingface_hub.snapshot_download", away)
    with pytest.raises(InputError, match="did not hand it out") as caught:
        locate("google/ddpm-cifar10-32")
    assert "\n" not in str(caught.value)
    for name in ("somewhere/teacher.pkl", "missing", "https://host/file"):
        with pytest.raises(InputError, match="no file or folder"):
            locate(name)


def test_a_name_of_the_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    asked = []
    monkeypatch.setattr(
        "huggingface_hub.snapshot_download", lambda name, **how: asked.append((name, how)) or str(tmp_path)
    )
    assert locate("google/ddpm-cifar10-32") == tmp_path
    assert asked == [("google/ddpm-cifar10-32", {"allow_patterns": ["*.json", "*.safetensors"]})]  # nothing pickled
