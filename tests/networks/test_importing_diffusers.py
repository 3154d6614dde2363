"""Diffusers folders become the same network as the library's."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from imported import randomised
from safetensors.torch import load_file, save_file

from tract_ray.config import InputError
from tract_ray.networks.diffusers_unet import nearest_timestep
from tract_ray.networks.importing import import_teacher

TINY_UNET2D = {
    "sample_size": 8,
    "in_channels": 1,
    "out_channels": 1,
    "block_out_channels": (8, 16),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 4,
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
}


@pytest.mark.parametrize("pipeline", [True, False])
@pytest.mark.parametrize("num_classes", [0, 3])
def test_a_diffusers_folder_becomes_the_same_network(tmp_path: Path, pipeline: bool, num_classes: int) -> None:
    library = pytest.importorskip("diffusers")
    model = randomised(library.UNet2DModel(**TINY_UNET2D, num_class_embeds=num_classes or None))
    scheduler = library.DDPMScheduler(num_train_timesteps=100, beta_schedule="squaredcos_cap_v2")
    if pipeline:
        library.DDPMPipeline(unet=model, scheduler=scheduler).save_pretrained(tmp_path)
    else:
        model.save_pretrained(tmp_path)
        scheduler.save_pretrained(tmp_path)
    teacher = import_teacher(tmp_path)
    assert (teacher.network, teacher.shape, teacher.num_classes) == ("diffusers_unet", (1, 8, 8), num_classes)
    assert (teacher.schedule, teacher.prediction) == ("vp_cosine", "eps")
    json.dumps(teacher.options)  # a configuration is plain data
    timestep = torch.tensor([70, 3])
    gamma = scheduler.alphas_cumprod[timestep].double()
    x, labels = torch.randn(2, 1, 8, 8), torch.tensor([2, 0]) if num_classes else None
    with torch.inference_mode():
        expected = model(x, timestep, class_labels=labels).sample
        found = teacher.build()(x, torch.log(gamma / (1 - gamma)), labels)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=1e-4)


def test_timesteps_are_where_the_table_has_the_logsnr() -> None:
    table = torch.tensor([9.0, 5.0, 3.0, -6.0], dtype=torch.float64)
    found = nearest_timestep(table, torch.tensor([20.0, 9.0, 7.0, 3.0, 0.0, -6.0, -20.0]))
    torch.testing.assert_close(found, torch.tensor([0, 0, 0.5, 2, 2 + 1 / 3, 3, 3], dtype=torch.float64))


def test_diffusers_folders_that_lack_something_are_refused(tmp_path: Path) -> None:
    library = pytest.importorskip("diffusers")
    with pytest.raises(InputError, match=r"no config\.json"):
        import_teacher(tmp_path)
    library.UNet2DModel(**TINY_UNET2D).save_pretrained(tmp_path)
    with pytest.raises(InputError, match="scheduler_config"):
        import_teacher(tmp_path)
    library.DDPMScheduler().save_pretrained(tmp_path)
    file = tmp_path / "diffusion_pytorch_model.safetensors"
    weights = load_file(file)
    weights.pop("conv_in.bias")
    save_file(weights, file)
    with pytest.raises(InputError, match=r"model\.conv_in\.bias \[8\] of diffusers_unet is missing"):
        import_teacher(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**config, "sample_size": None}))
    with pytest.raises(InputError, match="does not say its sample_size; give image_size"):
        import_teacher(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({**config, "_class_name": "UNet2DConditionModel"}))
    with pytest.raises(InputError, match="did you mean 'UNet2DModel'"):
        import_teacher(tmp_path)
