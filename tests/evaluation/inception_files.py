"""Files with the interfaces of the two published Inceptions, made here; nothing is downloaded."""

from __future__ import annotations

from hashlib import sha256
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tract_ray.evaluation.extractors.inception import INCEPTION_FILE
from tract_ray.evaluation.extractors.inception_pytorch import fid_inception


class Layers(nn.Module):
    """`(B, 3, 299, 299)` in [-1, 1] -> 2048 features: means of the channels, then of 8x8 tiles of the first."""

    def forward(self, x: Tensor) -> Tensor:
        tiles = F.adaptive_avg_pool2d(x[:, :1], 8).flatten(1)
        return torch.cat([x.mean([2, 3]), tiles, torch.zeros(x.shape[0], 2048 - 67)], 1)[:, :, None, None]


class StandIn(nn.Module):
    """What `inception-2015-12-05.pt` offers: `layers`, and a forward that resizes by itself."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = Layers()

    def forward(self, x: Tensor, return_features: bool = False) -> Tensor:
        large = F.interpolate(x, size=[299, 299], mode="nearest")
        out = self.layers((large - 128) / 128)
        out[:, -1] = 1  # so that a test sees who resized
        return out if return_features else out.mean()


def write_tensorflow(folder: Path) -> Path:
    """A stand-in whose features are known in closed form."""
    file = folder / INCEPTION_FILE
    torch.jit.script(StandIn()).save(str(file))
    return file


def write_pytorch(folder: Path) -> Path:
    """The real network with random weights that let every layer matter, under a name that says their hash."""
    network = fid_inception()
    generator = torch.Generator().manual_seed(0)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            fan_in = layer.weight[0].numel()
            layer.weight.data = torch.randn(layer.weight.shape, generator=generator) * (2 / fan_in) ** 0.5
        elif isinstance(layer, nn.BatchNorm2d):
            layer.running_mean = 0.1 * torch.randn(layer.num_features, generator=generator)
            layer.running_var = torch.rand(layer.num_features, generator=generator) + 0.5
    file = folder / "weights.pth"
    torch.save(network.state_dict(), file)
    return file.rename(folder / f"pt_inception-random-{sha256(file.read_bytes()).hexdigest()[:8]}.pth")
