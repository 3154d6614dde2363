"""Flax checkpoints become the same network as the authors'."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flax_unet import FLAX, FlaxUNet, write_flax
from imported import model_folder

from tract_ray.config import InputError
from tract_ray.networks import NetworkPreset, UNet, presets
from tract_ray.networks.importing import import_teacher


@pytest.fixture(scope="module")
def flax_tree() -> dict[str, Any]:
    reference = FlaxUNet()
    reference(torch.zeros(1, 8, 8, 3), torch.zeros(1), torch.zeros(1, dtype=torch.int64), 6)
    return reference.tree


@pytest.mark.parametrize(("old_norms", "chunked"), [(False, ""), (True, "down_1.block_0/conv1/kernel")])
def test_a_flax_checkpoint_becomes_the_same_network(
    tmp_path: Path, flax_tree: dict[str, Any], old_norms: bool, chunked: str
) -> None:
    path = write_flax(tmp_path / "checkpoint_0", flax_tree, old_norms=old_norms, chunked=chunked)
    teacher = import_teacher(path, image_size=8, prediction="both")
    assert (teacher.shape, teacher.num_classes) == ((3, 8, 8), 3)
    assert (teacher.schedule, teacher.prediction) == ("vp_cosine", "both")
    x, logsnr, labels = torch.randn(2, 3, 8, 8), torch.tensor([3.0, -4.0]), torch.tensor([2, 0])
    expected = FlaxUNet(flax_tree)(x.permute(0, 2, 3, 1), logsnr, labels, 6).permute(0, 3, 1, 2)
    with torch.inference_mode():
        found = teacher.build()(x, logsnr, labels)
        folder = model_folder(path, tmp_path / "folder", "--image-size", "8", "--prediction", "both")
        again = folder.denoiser.module(x, logsnr, labels)
    assert expected.std() > 0.1
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)
    assert torch.equal(again, found)
    assert (folder.steps, folder.num_classes, folder.denoiser.prediction) == (1024, 3, "both")


def test_the_architecture_of_a_preset_needs_no_further_word(
    tmp_path: Path, flax_tree: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(presets, "published", NetworkPreset(UNet, (3, 8, 8), FLAX, prediction="both"))
    teacher = import_teacher(write_flax(tmp_path / "checkpoint_0", flax_tree))
    assert (teacher.network, teacher.options, teacher.prediction) == ("published", {}, "both")
    assert teacher.shape == (3, 8, 8)


def test_flax_weights_that_do_not_fit_are_named(tmp_path: Path, flax_tree: dict[str, Any]) -> None:
    def changed(name: str, value: Any) -> Path:
        return write_flax(tmp_path / "checkpoint_0", {**flax_tree, name: value})

    with pytest.raises(InputError, match="no place for the flax weight stray/kernel"):
        import_teacher(changed("stray", {"kernel": np.zeros(3)}), image_size=8, prediction="both")
    partial = {k: v for k, v in flax_tree["up_1.block_0"].items() if k != "conv1"}
    with pytest.raises(InputError, match=r"weight up\.0\.0\.conv1\.weight .* is missing"):
        import_teacher(changed("up_1.block_0", partial), image_size=8, prediction="both")
    with pytest.raises(InputError, match=r"conv_out\.weight has shape"):
        import_teacher(changed("stray", {}), image_size=8, prediction="v")
    with pytest.raises(InputError, match="give image_size and prediction"):
        import_teacher(changed("stray", {}))
    with pytest.raises(InputError, match="conv_in/kernel is missing"):
        import_teacher(changed("conv_in", {}))
