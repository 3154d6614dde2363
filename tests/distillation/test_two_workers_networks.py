"""Part of the contract: two workers (gloo, DDP) train every network with every method to the networks of one worker."""

from __future__ import annotations

from importlib.util import find_spec
from itertools import product
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
from safetensors.torch import load_file, save_file
from small_methods import perturbed, schedule_of, small_config
from torch import Tensor

from tract_ray.data import Dataset, load_dataset
from tract_ray.diffusion import Denoiser, predictions
from tract_ray.distillation import methods
from tract_ray.networks import build_network, presets
from tract_ray.training import Worker, train

UNET = {"channels": 4, "multipliers": (1, 2), "blocks": 1, "attention": (4,)}
DIFFUSERS = {
    "block_out_channels": (4, 8),
    "down_block_types": ("DownBlock2D", "AttnDownBlock2D"),
    "up_block_types": ("AttnUpBlock2D", "UpBlock2D"),
    "layers_per_block": 1,
    "norm_num_groups": 4,
    "attention_head_dim": 4,
    "dropout": 0.1,
}
ALIKE = {"mlp_8x8_small", "unet_16x16", "unet_cifar10_small"}  # scaled down, they are another preset
PRESETS = [name for name, preset in presets.items() if name not in ALIKE and find_spec(preset.requires or "torch")]
STEPS = {"moment_matching": 4, "tract": 2, "tract_edm": 2, "progressive": 2}  # at least a step for each network, phase


def scaled_down(preset: str) -> dict[str, Any]:
    """Options that make the network small and leave its kind alone, augmentation weights included."""
    known = presets[preset].options
    small = {"width": 8, "embedding": 8, "head_width": 4, "dropout": 0.1, **UNET, "unet": DIFFUSERS}
    return {name: value for name, value in small.items() if name in known}


def trained(preset: str, kind: str, digits: Dataset, folder: Path, worker: Worker) -> dict[str, Tensor]:
    """All weights of a few steps in float64: what differs beyond rounding shows."""
    prediction = presets[preset].prediction
    network = build_network(
        preset,
        digits.shape,
        num_classes=10,
        out_multiplier=predictions[prediction].channels,
        options=scaled_down(preset),
        seed=0,
    ).double()
    teacher = Denoiser(perturbed(network, 0.1, 1).eval().requires_grad_(False), schedule_of(kind), prediction)
    weighting = {"schedule": schedule_of(kind).name, "prediction": prediction} if kind == "denoising" else {}
    config = small_config(kind, STEPS.get(kind, 1), 4, **weighting)
    method = methods[kind](config, teacher, perturbed(network, 0.1, 2))
    train(method, digits, seed=1, key="", folder=folder, worker=worker)
    named = method.modules().items()
    return {f"{name}.{k}": v.clone() for name, module in named for k, v in module.state_dict().items()}


def work(rank: int, folder: Path) -> None:
    """Each process trains half of the cases alone, then both train every case together."""
    torch.set_num_threads(1)
    digits, cases = load_dataset("digits"), list(product(PRESETS, sorted(methods)))
    for preset, kind in cases[rank::2]:
        alone = trained(preset, kind, digits, folder / f"{preset}-{kind}-one", Worker())
        save_file(alone, folder / f"{preset}-{kind}-alone")
    dist.init_process_group("gloo", init_method=f"file://{folder}/meeting", rank=rank, world_size=2)
    try:
        for preset, kind in cases:
            both = trained(preset, kind, digits, folder / f"{preset}-{kind}-two", Worker(rank, 2))
            save_file(both, folder / f"{preset}-{kind}-{rank}")
    finally:
        dist.destroy_process_group()


@pytest.fixture(scope="module")
def two(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One pair of processes for all: starting them takes longer than training."""
    folder: Path = tmp_path_factory.mktemp("two")
    mp.spawn(work, (folder,), nprocs=2)
    return folder


@pytest.mark.parametrize("preset", PRESETS)
def test_two_workers_agree_with_one(preset: str, kind: str, two: Path) -> None:
    first, second, alone = (load_file(two / f"{preset}-{kind}-{who}") for who in (0, 1, "alone"))
    assert alone.keys() == first.keys() == second.keys()
    for name, weight in alone.items():
        assert torch.equal(first[name], second[name]), name
        torch.testing.assert_close(first[name], weight, atol=1e-7, rtol=0, msg=name)
