"""A diffusers `UNet2DModel` behind our call: `network(x, logsnr, labels)`. Needs the optional package diffusers."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from typing import Any, cast

import torch
from torch import Tensor, nn

from tract_ray.config import InputError, require
from tract_ray.networks.layers import given, replace_dropout

# The DDPM of Ho et al. 2020 for CIFAR-10, as diffusers describes it.
DDPM_CIFAR10: dict[str, Any] = {
    "block_out_channels": (128, 256, 256, 256),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D", "DownBlock2D", "DownBlock2D"),
    "up_block_types": ("UpBlock2D", "UpBlock2D", "AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 2,
    "attention_head_dim": None,
    "downsample_padding": 0,
    "flip_sin_to_cos": False,
    "freq_shift": 1,
    "norm_eps": 1e-6,
}


_LOWEST_POWER = 2e-9  # of the signal: the cosine schedule's; a scheduler of zero terminal SNR has none


def import_diffusers_library(purpose: str, extra: str = "import") -> Any:
    """The module `diffusers`, or an `InputError` that says how to install it."""
    try:
        return importlib.import_module("diffusers")
    except ImportError:
        raise InputError(f"{purpose} needs diffusers: pip install 'tract-ray[{extra}]'") from None


def nearest_timestep(table: Tensor, logsnr: Tensor) -> Tensor:
    """The (fractional) index at which the decreasing `table` `(N,)` has the values `logsnr` `(B,)`.

    Linear between neighbours; outside the table, its nearest end.
    """
    low, high = table[-1], table[0]
    wanted = logsnr.to(table).clamp(low, high)
    # Counting is what `searchsorted` does, in words that ONNX has.
    after = (table > wanted[:, None]).sum(1).clamp(1, len(table) - 1)
    above, below = table[after - 1], table[after]
    return after - 1 + (above - wanted) / (above - below)


class ClassTable(nn.Embedding):
    """The rows of a `UNet2DModel`'s class embedding. A negative label is "no class" and adds nothing."""

    def forward(self, labels: Tensor) -> Tensor:
        return super().forward(labels.clamp(min=0)) * (labels >= 0).to(self.weight.dtype)[:, None]


class DiffusersUNet(nn.Module):
    """`network(x, logsnr, labels)`: `(B, in_channels, H, W)` -> `(B, out_channels, H, W)`.

    `unet` is a `UNet2DModel` configuration, `scheduler` that of one of diffusers' schedulers. One with a `sigma_max` is
    of a VE process (score-SDE): the model is told the noise level, sees pixels from 0 to 1 and answers with their
    score, which is turned into the noise that we predict. Any other is of a VP process: its betas say which discrete
    timestep has which logsnr. Between timesteps the model is asked at fractional ones, beyond them at the last:
    a 1000-step linear DDPM ends near logsnr -10, the cosine schedule at -20.
    """

    logsnrs: Tensor

    def __init__(
        self,
        *,
        image_size: int,
        in_channels: int,
        out_channels: int,
        num_classes: int = 0,
        unet: Mapping[str, Any],
        scheduler: Mapping[str, Any],
    ) -> None:
        super().__init__()
        library = import_diffusers_library("network: diffusers_unet")
        data = {"sample_size": image_size, "in_channels": in_channels, "out_channels": out_channels}
        classes = {"num_class_embeds": num_classes or None}
        self.num_classes = num_classes
        self.model = library.UNet2DModel.from_config({**unet, **data, **classes})
        replace_dropout(self.model)
        if isinstance(self.model.class_embedding, nn.Embedding):
            self.model.class_embedding = ClassTable.from_pretrained(self.model.class_embedding.weight, freeze=False)
        # A table of embeddings has no entries between its timesteps.
        self.discrete = self.model.config.time_embedding_type == "learned"
        self.lowest = float(scheduler.get("sigma_min", 0)) if "sigma_max" in scheduler else None
        if self.lowest is None:
            noise = library.DDPMScheduler.from_config(dict(scheduler))
            gamma = noise.alphas_cumprod.double().clamp(min=_LOWEST_POWER)
            require(len(gamma) > 1, "network", "the diffusers scheduler needs at least two timesteps")
            self.register_buffer("logsnrs", torch.log(gamma / (1 - gamma)), persistent=False)

    def forward(self, x: Tensor, logsnr: Tensor, labels: Tensor | None = None) -> Tensor:
        if self.lowest is not None:
            # Pixels from 0 to 1 have half the noise of ours from -1 to 1; the score is -noise / sigma.
            sigma = (0.5 * torch.exp(-0.5 * logsnr)).clamp(min=self.lowest)
            return -sigma[:, None, None, None] * self._ask((x + 1) / 2, sigma, labels)
        timestep = nearest_timestep(self.logsnrs, logsnr)
        return self._ask(x, timestep.round().long() if self.discrete else timestep.to(x.dtype), labels)

    def _ask(self, x: Tensor, timestep: Tensor, labels: Tensor | None) -> Tensor:
        if self.num_classes:
            return cast(Tensor, self.model(x, timestep, class_labels=given(labels)).sample)
        return cast(Tensor, self.model(x, timestep).sample)
