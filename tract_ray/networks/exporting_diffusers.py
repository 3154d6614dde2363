"""Our U-Net as diffusers' `UNet2DModel`, weight by weight, with a DDIM scheduler of the student's own steps.

The noise level reaches `UNet2DModel` through a table with one row per timestep (its "learned" time embedding), so that
a timestep means exactly the logsnr the student was trained at. Timestep 0 is the clean end; every `_BETWEEN`-th one
is a node of the sampler.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any, cast

import torch
from torch import Tensor, nn

from tract_ray.diffusion import CosineVP, Denoiser
from tract_ray.networks.diffusers_unet import import_diffusers_library
from tract_ray.networks.layers import noise_level, sinusoidal_embedding
from tract_ray.networks.unet import AttentionBlock, ResidualBlock, UNet

# Diffusers multiplies up 1 - beta in single precision. One step from gamma = 1 to 2e-9 would be beta = 1 and gamma 0;
# four smaller ones keep gamma to 1e-5 of itself.
_BETWEEN = 4
PREDICTIONS = {"x0": "sample", "v": "v_prediction"}
_RESIDUAL = {
    "norm1": "norm1",
    "conv1": "conv1",
    "film": "time_emb_proj",
    "norm2": "norm2",
    "conv2": "conv2",
    "skip": "conv_shortcut",
}
_ATTENTION = {"norm": "group_norm", "q": "to_q", "k": "to_k", "v": "to_v", "out": "to_out.0"}
_OUTER = {
    "embed.0": "time_embedding.linear_1",
    "embed.2": "time_embedding.linear_2",
    "conv_in": "conv_in",
    "norm_out": "conv_norm_out",
    "conv_out": "conv_out",
}
_UNCONDITIONAL = """import torch
from diffusers import DDIMPipeline

pipeline = DDIMPipeline.from_pretrained(folder)
images = pipeline(batch_size=16, num_inference_steps={steps}, use_clipped_model_output=True).images"""
_CONDITIONAL = """import torch
from diffusers import DDIMScheduler, UNet2DModel

unet = UNet2DModel.from_pretrained(folder, subfolder="unet")
scheduler = DDIMScheduler.from_pretrained(folder, subfolder="scheduler")
scheduler.set_timesteps({steps})
x = torch.randn(16, unet.config.in_channels, unet.config.sample_size, unet.config.sample_size)
labels = torch.arange(16) % unet.config.num_class_embeds
with torch.inference_mode():
    for t in scheduler.timesteps:
        out = unet(x, t, class_labels=labels).sample
        x = scheduler.step(out, t, x, use_clipped_model_output=True).prev_sample"""


def export_diffusers(denoiser: Denoiser, shape: tuple[int, int, int], folder: Path, nodes: Tensor, clip: bool) -> None:
    """Write the folder of a student that is not `inexpressible`."""
    network = cast(UNet, denoiser.module)
    library = import_diffusers_library("format: diffusers", "export")
    config, pairs = _configuration(network)
    gamma = _signal_powers(denoiser.schedule.alpha(nodes) ** 2)
    unet = library.UNet2DModel(sample_size=shape[1], num_train_timesteps=len(gamma), **config)
    logsnr = torch.log(gamma / (1 - gamma))
    table = sinusoidal_embedding(noise_level(logsnr.float()), network.channels)
    weights = {"time_proj.weight": table, **dict(_weights(network, pairs))}
    if network.embed_class is not None:
        dense = cast(nn.Linear, network.embed_class.dense)
        weights["class_embedding.weight"] = dense.weight.T + dense.bias
    unet.load_state_dict(weights)
    betas = 1 - gamma / torch.cat([torch.ones(1, dtype=torch.float64), gamma[:-1]])
    scheduler = library.DDIMScheduler(
        num_train_timesteps=len(gamma),
        trained_betas=betas.tolist(),
        clip_sample=clip,
        prediction_type=PREDICTIONS[denoiser.prediction],
        # With one timestep more than nodes need, "leading" and this offset visit the last node first, timestep 0 last.
        timestep_spacing="leading",
        steps_offset=_BETWEEN,
        set_alpha_to_one=False,
    )
    library.DDIMPipeline(unet=unet, scheduler=scheduler).save_pretrained(folder)


def sampling_code(steps: int, conditional: bool) -> str:
    """Python that samples from the `folder`."""
    return (_CONDITIONAL if conditional else _UNCONDITIONAL).format(steps=steps)


def inexpressible(denoiser: Denoiser, sampler: str) -> str:
    """Why diffusers' own classes could not draw the same pixels, "" where they can."""
    network = denoiser.module
    if not isinstance(network, UNet):
        return f"its UNet2DModel cannot be a {type(network).__name__}"
    if not isinstance(denoiser.schedule, CosineVP):
        return f"its DDIM scheduler has no {denoiser.schedule.name} process"
    if sampler != "ddim":
        return f"its DDIM scheduler takes no {sampler} steps"
    if denoiser.prediction not in PREDICTIONS:  # eps divides by alpha = 5e-5 in single precision
        return f"its DDIM scheduler loses the prediction {denoiser.prediction}"
    groups = {layer.num_groups for layer in network.modules() if isinstance(layer, nn.GroupNorm)}
    if len(groups) > 1:
        return f"it normalises every layer in as many groups, here they are {sorted(groups)}"
    first = cast(ResidualBlock, cast(nn.ModuleList, network.down[0])[0])
    if cast(nn.Conv2d, first.conv1).out_channels != network.channels:
        return "it starts at the width of its first level"
    return ""


def _signal_powers(gamma: Tensor) -> Tensor:
    """Signal power of every timestep: the nodes `(steps + 1,)` and `_BETWEEN - 1` geometric ones in between."""
    places = torch.arange((len(gamma) - 1) * _BETWEEN + 1)
    before = (places // _BETWEEN).clamp(max=len(gamma) - 2)
    part = (places - before * _BETWEEN).double() / _BETWEEN
    return gamma[before] ** (1 - part) * gamma[before + 1] ** part


Pairs = list[tuple[str, str, dict[str, str]]]


def _configuration(network: UNet) -> tuple[dict[str, Any], Pairs]:
    """`UNet2DModel`'s arguments, and where each of our blocks goes: our prefix, theirs, and the names below them."""
    groups = {layer.num_groups for layer in network.modules() if isinstance(layer, nn.GroupNorm)}
    widths: list[int] = []
    attends: list[bool] = []
    pairs: Pairs = []
    level = block = 0
    for place, stage in enumerate(cast(list[nn.ModuleList], network.down)):
        residual = cast(ResidualBlock, stage[0])
        if residual.resample:
            pairs.append((f"down.{place}.0", f"down_blocks.{level}.downsamplers.0", _RESIDUAL))
            level, block = level + 1, 0
            continue
        if not block:
            widths.append(cast(nn.Conv2d, residual.conv1).out_channels)
            attends.append(len(stage) > 1)
        pairs += _stage(f"down.{place}", f"down_blocks.{level}", block, stage)
        block += 1
    blocks, level, block = block, 0, 0
    for place, stage in enumerate(cast(list[nn.ModuleList], network.up)):
        if cast(ResidualBlock, stage[0]).resample:
            pairs.append((f"up.{place}.0", f"up_blocks.{level}.upsamplers.0", _RESIDUAL))
            level, block = level + 1, 0
            continue
        pairs += _stage(f"up.{place}", f"up_blocks.{level}", block, stage)
        block += 1
    pairs += [
        ("middle.0", "mid_block.resnets.0", _RESIDUAL),
        ("middle.1", "mid_block.attentions.0", _ATTENTION),
        ("middle.2", "mid_block.resnets.1", _RESIDUAL),
        ("", "", _OUTER),
    ]
    middle = cast(AttentionBlock, network.middle[1])
    config = {
        "in_channels": cast(nn.Conv2d, network.conv_in).in_channels,
        "out_channels": cast(nn.Conv2d, network.conv_out).out_channels,
        "time_embedding_type": "learned",
        "time_embedding_dim": cast(nn.Linear, network.embed[0]).out_features,
        "down_block_types": tuple("AttnDownBlock2D" if attend else "ResnetDownsampleBlock2D" for attend in attends),
        "up_block_types": tuple("AttnUpBlock2D" if attend else "ResnetUpsampleBlock2D" for attend in reversed(attends)),
        "block_out_channels": tuple(widths),
        "layers_per_block": blocks,
        "downsample_type": "resnet",
        "upsample_type": "resnet",
        "attention_head_dim": widths[-1] // middle.heads if middle.heads > 1 else None,
        "norm_num_groups": groups.pop(),
        "attn_norm_num_groups": middle.norm.num_groups,
        "norm_eps": network.norm_out.eps,
        "resnet_time_scale_shift": "scale_shift",
        "num_class_embeds": network.embed_class.num_classes if network.embed_class is not None else None,
    }
    return config, pairs


def _stage(ours: str, theirs: str, block: int, stage: nn.ModuleList) -> Pairs:
    names: Pairs = [(f"{ours}.0", f"{theirs}.resnets.{block}", _RESIDUAL)]
    return names + ([(f"{ours}.1", f"{theirs}.attentions.{block}", _ATTENTION)] if len(stage) > 1 else [])


def _weights(network: UNet, pairs: Pairs) -> Iterator[tuple[str, Tensor]]:
    state = network.state_dict()
    for ours, theirs, inner in pairs:
        for a, b in inner.items():
            for leaf in ("weight", "bias"):
                value = state.get(".".join(filter(None, (ours, a, leaf))))
                if value is not None:
                    # Attention's 1x1 convolutions are dense layers in diffusers.
                    value = value[:, :, 0, 0] if inner is _ATTENTION and value.ndim == 4 else value
                    yield ".".join(filter(None, (theirs, b, leaf))), value
