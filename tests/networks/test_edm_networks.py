"""EDM's networks against numbers of the authors' code, closed forms and published tensor shapes."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from tract_ray.config import InputError
from tract_ray.diffusion import KarrasVE
from tract_ray.networks import build_network
from tract_ray.networks.edm import DhariwalUNet, SongUNet, noise_input
from tract_ray.networks.edm_layers import BlockStyle, EDMBlock, Init, ResampleConv

torch.set_num_threads(1)

TINY = {"image_size": 8, "in_channels": 1, "out_channels": 1, "multipliers": (1, 2), "blocks": 1, "attention": (4,)}
NCSNPP = {
    "embedding_type": "fourier",
    "encoder_type": "residual",
    "noise_multiplier": 2,
    "resample_filter": (1, 3, 3, 1),
}
INIT = Init("xavier")


def fill(network: nn.Module) -> None:
    """Weights that are a formula of their sorted position, so that other code can be given the same ones."""
    with torch.no_grad():
        for index, (_, weight) in enumerate(sorted(network.named_parameters())):
            ramp = torch.arange(weight.numel(), dtype=torch.float64)
            weight.copy_((0.1 * torch.sin(0.37 * ramp + index)).reshape(weight.shape))
        frequencies = dict(network.named_buffers()).get("map_noise.freqs")
        if frequencies is not None:
            frequencies.copy_(torch.linspace(-2, 2, len(frequencies)))


# Six outputs and the mean magnitude, computed once with the authors' networks on the same weights.
REFERENCE = {
    "ddpmpp": ([-0.006666, 0.030332, -0.037639, -0.018842, -0.008624, -0.044806], 0.016462525),
    "ncsnpp": ([-0.042409, 0.012936, -0.022947, -0.040335, 0.009478, -0.020418], 0.015059471),
    "adm": ([-0.07869, 0.084861, 0.186982, -0.082125, 0.080299, 0.189314], 0.091537234),
}


@pytest.mark.parametrize("variant", REFERENCE)
def test_outputs_are_those_of_the_authors_code(variant: str) -> None:
    network: nn.Module
    if variant == "adm":
        network = DhariwalUNet(**TINY, channels=64, num_classes=3)
    else:
        network = SongUNet(**TINY, channels=16, num_classes=3, **(NCSNPP if variant == "ncsnpp" else {}))
    fill(network)
    x = torch.linspace(-1, 1, 128).reshape(2, 1, 8, 8)
    out = network.eval()(x, torch.tensor([3.0, -4.0]), torch.tensor([2, -1])).detach().flatten().double()
    values, magnitude = REFERENCE[variant]
    torch.testing.assert_close(out[[0, 27, 63, 64, 91, 127]], torch.tensor(values).double(), atol=3e-6, rtol=0)
    assert out.abs().mean().item() == pytest.approx(magnitude, abs=1e-7)


def test_names_and_shapes_are_the_published_ones() -> None:
    with torch.device("meta"):
        song = build_network("edm_cifar10_ncsnpp", num_classes=10).state_dict()
        adm = build_network("edm_imagenet64_adm", num_classes=1000).state_dict()
    for name, shape in {
        "map_noise.freqs": (128,),
        "map_label.weight": (256, 10),
        "map_augment.weight": (256, 9),
        "map_layer0.weight": (512, 256),
        "enc.32x32_conv.weight": (128, 3, 3, 3),
        "enc.16x16_down.conv0.resample_filter": (1, 1, 4, 4),
        "enc.16x16_aux_residual.weight": (256, 3, 3, 3),
        "enc.8x8_aux_residual.weight": (256, 256, 3, 3),
        "enc.16x16_block3.qkv.weight": (768, 256, 1, 1),
        "dec.8x8_in0.proj.bias": (256,),
        "dec.32x32_block0.skip.weight": (256, 512, 1, 1),
        "dec.32x32_aux_norm.weight": (256,),
        "dec.32x32_aux_conv.weight": (3, 256, 3, 3),
    }.items():
        assert tuple(song[name].shape) == shape, name
    for name, shape in {
        "map_label.weight": (768, 1000),
        "enc.32x32_down.skip.resample_filter": (1, 1, 2, 2),
        "dec.64x64_block3.affine.weight": (384, 768),
        "out_norm.bias": (192,),
        "out_conv.weight": (3, 192, 3, 3),
    }.items():
        assert tuple(adm[name].shape) == shape, name
    assert "enc.32x32_down.skip.weight" not in adm
    assert "map_label.bias" not in adm


def test_the_time_input_is_a_quarter_of_ln_sigma() -> None:
    sigma = torch.tensor([0.002, 0.5, 80.0], dtype=torch.float64)
    torch.testing.assert_close(noise_input(KarrasVE().logsnr(sigma)), torch.log(sigma) / 4)


def test_resampling_with_two_taps_is_nearest_and_mean() -> None:
    x = torch.randn(2, 3, 6, 6)
    torch.testing.assert_close(ResampleConv(3, 3, 0, INIT, resample="down")(x), F.avg_pool2d(x, 2))
    torch.testing.assert_close(ResampleConv(3, 3, 0, INIT, resample="up")(x), F.interpolate(x, scale_factor=2.0))


@pytest.mark.parametrize("resample", ["up", "down"])
def test_resampling_with_four_taps_keeps_linear_images_linear(resample: str) -> None:
    x = torch.arange(12.0).expand(1, 1, 12, 12)
    out = ResampleConv(1, 1, 0, INIT, resample=resample, taps=(1, 3, 3, 1))(x)[0, 0]
    inner = out[4:-4, 4:-4] if resample == "up" else out[1:-1, 1:-1]
    torch.testing.assert_close(inner.diff(dim=1), torch.full_like(inner[:, 1:], 0.5 if resample == "up" else 2.0))


def test_a_class_shifts_the_embedding_by_its_scaled_column() -> None:
    network = SongUNet(**TINY, channels=16, num_classes=3)
    fill(network)
    x, logsnr = torch.randn(2, 1, 8, 8), torch.zeros(2)
    with_class = network(x, logsnr, torch.tensor([1, 1]))
    assert network.map_label is not None
    with torch.no_grad():
        network.map_label.bias += math.sqrt(3) * network.map_label.weight[:, 1]
    torch.testing.assert_close(network(x, logsnr, torch.tensor([-1, -1])), with_class)


@pytest.mark.parametrize("heads", [1, 4])
def test_attention_is_the_softmax_of_interleaved_q_k_v(heads: int) -> None:
    style = BlockStyle(8, INIT, INIT, INIT, adaptive=True, eps=1e-5, head_width=16 // heads)
    block = EDMBlock(16, 16, style, attention=True)
    x = torch.randn(2, 16, 3, 3)
    parts = block.qkv(block.norm2(x)).reshape(2 * heads, 16 // heads, 3, 9)
    q, k, v = parts[:, :, 0], parts[:, :, 1], parts[:, :, 2]
    weights = torch.softmax(q.transpose(1, 2) @ k / math.sqrt(16 / heads), dim=-1)
    expected = block.proj((v @ weights.transpose(1, 2)).reshape(x.shape))
    torch.testing.assert_close(block._attended(x), expected, atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("variant", REFERENCE)
def test_every_weight_gets_a_gradient(variant: str) -> None:
    network: nn.Module
    if variant == "adm":
        network = DhariwalUNet(**TINY, channels=16, head_width=8, num_classes=3, dropout=0.1)
    else:
        network = SongUNet(**TINY, channels=16, num_classes=3, augment_dim=9, **(NCSNPP if variant == "ncsnpp" else {}))
    fill(network)
    network(torch.randn(2, 1, 8, 8), torch.randn(2), torch.tensor([0, 1])).square().sum().backward()
    gradients = {name: weight.grad for name, weight in network.named_parameters()}
    still = {name for name, gradient in gradients.items() if gradient is not None and not gradient.any()}
    assert still == ({"map_augment.weight"} if variant != "adm" else set())  # labels of images that were not augmented
    assert all(gradient is not None for gradient in gradients.values())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"image_size": 9}, "not a multiple of 2"),
        ({"channels": 6}, "multiple of 4"),
        ({"encoder_type": "residal"}, "did you mean 'residual'"),
        ({"embedding_type": "sinus"}, "embedding_type"),
    ],
)
def test_settings_that_no_network_has_are_refused(options: dict[str, object], message: str) -> None:
    with pytest.raises(InputError, match=message):
        SongUNet(**{**TINY, "channels": 16, **options})  # type: ignore[arg-type]


def test_a_conditional_network_asks_for_labels() -> None:
    with pytest.raises(InputError, match="labels"):
        SongUNet(**TINY, channels=16, num_classes=3)(torch.zeros(1, 1, 8, 8), torch.zeros(1))
