"""The label of "no class" in a diffusers network, and dropout that does not know how many workers there are."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from tract_ray.diffusion import NO_CLASS
from tract_ray.networks import build_network
from tract_ray.networks.layers import Dropout, replace_dropout, share_dropout

SMALL = {
    "block_out_channels": (4, 8),
    "down_block_types": ("DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 4,
}


def test_no_class_adds_nothing_to_a_diffusers_network() -> None:
    pytest.importorskip("diffusers")
    network = build_network("diffusers_unet", (1, 8, 8), num_classes=3, options={"unet": SMALL}, seed=0)
    x, logsnr = torch.randn(2, 1, 8, 8), torch.zeros(2)
    table = network.get_parameter("model.class_embedding.weight")
    out = network(x, logsnr, torch.tensor([NO_CLASS, 2]))
    (gradient,) = torch.autograd.grad(out.square().sum(), [table], retain_graph=True)
    assert [bool(row.any()) for row in gradient] == [False, False, True]
    with torch.no_grad():
        table[0] = 0.0  # a class of zeros is no class
        same = network(x, logsnr, torch.tensor([0, 2]))
    torch.testing.assert_close(out, same)
    assert not torch.allclose(out[0], network(x, logsnr, torch.tensor([1, 2]))[0])


def masks(rank: int, world: int) -> torch.Tensor:
    """What two layers leave of eight samples of ones, of which this worker has its part."""
    network = nn.Sequential(Dropout(0.3), Dropout(0.5)).train()
    share_dropout(network, rank, world)
    torch.manual_seed(1)
    out: torch.Tensor = network(torch.ones(8 // world, 1000))
    return out


def test_a_sample_meets_the_same_mask_on_any_number_of_workers() -> None:
    whole = masks(0, 1)
    for world in (2, 4):
        assert torch.equal(torch.cat([masks(rank, world) for rank in range(world)]), whole)
    assert float((whole > 0).float().mean()) == pytest.approx(0.35, abs=0.02)
    assert float(whole.max()) == pytest.approx(1 / 0.35)


def test_dropout_is_torchs_own_on_one_worker() -> None:
    x = torch.randn(4, 6, 5, 5)
    torch.manual_seed(0)
    expected = nn.Dropout(0.2)(x)
    torch.manual_seed(0)
    network = nn.Sequential(nn.Dropout(0.2))
    replace_dropout(network)
    assert isinstance(network[0], Dropout)
    assert torch.equal(network(x), expected)
    assert torch.equal(network.eval()(x), x)
