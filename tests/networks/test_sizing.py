"""Students that are smaller than their teachers, whatever the teacher's network and its own options are."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from tract_ray.networks import build_network, count_parameters, presets
from tract_ray.networks.sizing import attends, depth, resized, third

# A teacher of another size than its preset's; options as they are read from a file.
OWN = {"channels": 64, "embedding": 128, "multipliers": [1, 2], "blocks": 2, "attention": [16]}
WIDE = [name for name, preset in presets.items() if preset.shape[-1] <= 32 and preset.requires in ("", "diffusers")]


def parameters(name: str, options: dict[str, Any]) -> int:
    plain = {key: tuple(value) if isinstance(value, list) else value for key, value in options.items()}
    with torch.device("meta"):
        return count_parameters(build_network(name, presets[name].shape, options=plain))


def test_the_whole_is_the_teacher_itself() -> None:
    assert resized("unet_cifar10", OWN, width=1, blocks=2, attention=True) == OWN
    assert parameters("unet_cifar10", OWN) == 4_170_755


def test_what_is_not_asked_for_stays_the_teachers_own() -> None:
    half = resized("unet_cifar10", OWN, width=0.5, blocks=1, attention=False)
    assert half == {**OWN, "channels": 32, "blocks": 1, "attention": []}
    assert (depth("unet_cifar10", OWN), attends("unet_cifar10", OWN)) == (2, True)
    assert not attends("unet_cifar10", half)


def test_the_papers_third() -> None:
    """60.0M to 19.4M: the network that TRACT distils into."""
    small = third("unet_cifar10", {}, (3, 32, 32))
    assert small == {"channels": 128}
    assert parameters("unet_cifar10", small) == parameters("unet_cifar10_small", {}) == 19_419_011


@pytest.mark.parametrize(("name", "own"), [("unet_cifar10", OWN), ("mlp_8x8", {}), ("diffusers_unet", {})])
def test_a_third_of_any_teacher(name: str, own: dict[str, Any]) -> None:
    if name == "diffusers_unet":
        pytest.importorskip("diffusers")
    share = parameters(name, third(name, own, presets[name].shape)) / parameters(name, own)
    assert share == pytest.approx(1 / 3, abs=0.06)


@pytest.mark.parametrize("name", WIDE)
@pytest.mark.parametrize("width", [0.75, 0.375, 0.25])
def test_every_size_can_be_built(name: str, width: float) -> None:
    if presets[name].requires:
        pytest.importorskip(presets[name].requires)
    small = resized(name, {}, width=width, blocks=1, attention=False)
    assert parameters(name, small) < parameters(name, {})
    assert not attends(name, small)
    assert depth(name, small) == 1
