"""Every preset: its exact size, its input and output."""

from __future__ import annotations

import pytest
import torch

from tract_ray.config import InputError
from tract_ray.diffusion import predictions
from tract_ray.networks import build_network, count_parameters, presets

torch.set_num_threads(1)

# Trainable parameters, with the preset's classes and prediction. U-Nets and EDM: as counted on the authors' code.
COUNTS = {
    "mlp_8x8": 661_056,
    "mlp_8x8_small": 247_504,
    "unet_8x8": 58_521,
    "unet_16x16": 145_585,
    "unet_cifar10": 60_004_099,
    "unet_cifar10_small": 19_419_011,
    "unet_imagenet64": 295_905_222,
    "edm_8x8": 188_769,
    "edm_cifar10_ddpmpp": 55_733_891,
    "edm_cifar10_ncsnpp": 56_397_827,
    "edm_imagenet64_adm": 295_899_267,
}
CLASS_CONDITIONAL = {"edm_cifar10_ddpmpp": 55_735_299, "edm_cifar10_ncsnpp": 56_400_643}
SMALL = ["mlp_8x8", "mlp_8x8_small", "unet_8x8", "unet_16x16", "edm_8x8"]


def built(name: str, num_classes: int | None = None) -> torch.nn.Module:
    preset = presets[name]
    return build_network(
        name,
        num_classes=preset.num_classes if num_classes is None else num_classes,
        out_multiplier=predictions[preset.prediction].channels,
        seed=0,
    )


def test_every_preset_has_a_count() -> None:
    assert {name for name, preset in presets.items() if not preset.requires} == set(COUNTS)


@pytest.mark.parametrize("name", COUNTS)
def test_parameter_count(name: str) -> None:
    with torch.device("meta"):
        assert count_parameters(built(name)) == COUNTS[name]


@pytest.mark.parametrize("name", CLASS_CONDITIONAL)
def test_parameter_count_with_ten_classes(name: str) -> None:
    with torch.device("meta"):
        assert count_parameters(built(name, num_classes=10)) == CLASS_CONDITIONAL[name]


def test_the_diffusers_preset_is_the_ddpm_of_cifar10() -> None:
    pytest.importorskip("diffusers")
    assert presets["diffusers_unet"].requires == "diffusers"
    with torch.device("meta"):
        assert count_parameters(built("diffusers_unet")) == 35_746_307


@pytest.mark.parametrize("name", SMALL)
@pytest.mark.parametrize("num_classes", [0, 10])
def test_forward(name: str, num_classes: int) -> None:
    preset = presets[name]
    network = built(name, num_classes)
    x = torch.randn(3, *preset.shape)
    labels = torch.tensor([0, 9, -1]) if num_classes else None
    out = network(x, torch.tensor([-20.0, 0.0, 20.0]), labels)
    assert out.shape == (3, preset.shape[0] * predictions[preset.prediction].channels, *preset.shape[1:])
    assert torch.isfinite(out).all()


@pytest.mark.parametrize("name", SMALL)
def test_the_seed_decides_the_weights(name: str) -> None:
    first, again = built(name).state_dict(), built(name).state_dict()
    assert all(torch.equal(first[key], again[key]) for key in first)


def test_another_image_shape_adapts_the_network() -> None:
    network = build_network("edm_8x8", (3, 16, 16), options={"blocks": 2})
    assert network(torch.zeros(1, 3, 16, 16), torch.zeros(1)).shape == (1, 3, 16, 16)


def test_unknown_options_are_refused() -> None:
    with pytest.raises(InputError, match="did you mean 'encoder_type'"):
        build_network("edm_8x8", options={"encoder_typ": "residual"})
