"""Model folders: what is saved is what is loaded, and whatever is wrong with one is a line that names it."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from runs import tiny_run
from safetensors.torch import load_file, save_file

from tract_ray.config import InputError
from tract_ray.diffusion import Denoiser, KarrasVE
from tract_ray.files import read_json, write_json
from tract_ray.networks import build_network
from tract_ray.training import Model, NetworkConfig, Paths, load_model, run_distillation
from tract_ray.training.teacher import teacher_folder


@pytest.fixture
def folder(paths: Paths, tmp_path: Path) -> Path:
    """A teacher's folder, to be damaged."""
    return Path(shutil.copytree(teacher_folder(tiny_run().teacher, paths), tmp_path / "model"))


def test_round_trip(tmp_path: Path) -> None:
    """An EDM network with classes and options, and a sampler's own times."""
    network = build_network("edm_8x8", num_classes=3, options={"channels": 8, "multipliers": (1, 2)}, seed=1)
    times = [0.0, 0.5, 80.0]
    model = Model(
        denoiser=Denoiser(network.eval(), KarrasVE(), "edm"),
        network=NetworkConfig(name="edm_8x8", options={"channels": 8, "multipliers": (1, 2)}),
        shape=(1, 8, 8),
        steps=2,
        num_classes=3,
        times=times,
        dataset="digits",
        about={"mu_i": 0.5},
    )
    loaded = load_model(model.save(tmp_path / "new" / "model"))
    noise, labels = torch.randn(4, 1, 8, 8), torch.tensor([0, 1, 2, -1])
    assert torch.equal(loaded.sample(noise, labels), model.sample(noise, labels))
    assert torch.equal(loaded.sample(noise, labels, steps=3), model.sample(noise, labels, steps=3))
    assert not torch.equal(loaded.sample(noise, labels), loaded.sample(noise, labels, steps=3))
    assert (loaded.shape, loaded.steps, loaded.num_classes, loaded.times) == ((1, 8, 8), 2, 3, times)
    assert (loaded.dataset, loaded.about, loaded.denoiser.schedule) == ("digits", {"mu_i": 0.5}, KarrasVE())
    assert not loaded.denoiser.module.training
    assert sorted(file.name for file in (tmp_path / "new" / "model").iterdir()) == ["config.json", "model.safetensors"]


def test_a_students_folder_samples_what_the_run_scored(paths: Paths, tmp_path: Path) -> None:
    result = run_distillation(tiny_run(), paths, tmp_path)
    student = load_model(result.student)
    assert student.steps == 1
    assert student.times == [0.0, 1.0]
    assert student.about["distance"] == result.distance
    assert result.parameters == sum(p.numel() for p in student.denoiser.module.parameters())


def test_saving_replaces_a_folder(folder: Path) -> None:
    model = load_model(folder)
    model.dataset = "other"
    model.save(folder)
    assert load_model(folder).dataset == "other"
    assert [p.name for p in folder.parent.iterdir()] == ["model"]


def test_a_failed_save_leaves_the_old_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model, before = load_model(folder), (folder / "model.safetensors").read_bytes()

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tract_ray.training.model.write_safetensors", full)
    with pytest.raises(OSError, match="No space left"):
        model.save(folder)
    assert (folder / "model.safetensors").read_bytes() == before
    assert [p.name for p in folder.parent.iterdir()] == ["model"]


def edit(**changes: object) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        file = folder / "config.json"
        write_json(file, {**read_json(file, "model"), **changes})

    return damage


def drop(key: str) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        file = folder / "config.json"
        write_json(file, {k: v for k, v in read_json(file, "model").items() if k != key})

    return damage


def rewrite(name: str, change: Callable[[bytes], bytes]) -> Callable[[Path], None]:
    return lambda folder: (folder / name).write_bytes(change((folder / name).read_bytes())) and None


def tensors(change: Callable[[dict[str, torch.Tensor]], object]) -> Callable[[Path], None]:
    def damage(folder: Path) -> None:
        own = load_file(folder / "model.safetensors")
        change(own)
        save_file(own, folder / "model.safetensors")

    return damage


DAMAGES: dict[str, tuple[Callable[[Path], object], str]] = {
    "no folder": (shutil.rmtree, "is not a model folder"),
    "no weights": (lambda f: (f / "model.safetensors").unlink(), "model.safetensors does not exist"),
    "no description": (lambda f: (f / "config.json").unlink(), "config.json does not exist"),
    "truncated weights": (rewrite("model.safetensors", lambda b: b[:-50]), "model.safetensors is damaged"),
    "empty weights": (rewrite("model.safetensors", lambda b: b""), "model.safetensors is damaged"),
    "a pickle for weights": (rewrite("model.safetensors", lambda b: b"\x80\x02}q\x00."), "is damaged"),
    "truncated description": (rewrite("config.json", lambda b: b[: len(b) // 2]), "config.json is damaged"),
    "binary description": (rewrite("config.json", lambda b: b"\xff\xfe\x00"), "config.json is damaged"),
    "a list for a description": (rewrite("config.json", lambda b: b"[1]"), "it holds no JSON object"),
    "another format": (edit(format=99), "format: 99; this version reads 1"),
    "no format": (drop("format"), "format is missing"),
    "no network": (drop("network"), "network is missing"),
    "no steps": (drop("steps"), "steps is missing"),
    "an unknown network": (edit(network={"name": "unet_9x9"}), "unknown 'unet_9x9'"),
    "an unknown schedule": (edit(schedule="vp_linear"), "unknown 'vp_linear'"),
    "an unknown prediction": (edit(prediction="u"), "unknown 'u'"),
    "half a shape": (edit(shape=[1, 8]), "shape: (1, 8) is not that of an image"),
    "a shape of words": (edit(shape="large"), "shape: expected a list, got 'large'"),
    "steps in words": (edit(steps="one"), "steps: expected a whole number, got 'one'"),
    "half a step": (edit(steps=0.5), "steps: expected a whole number, got 0.5"),
    "a negative step": (edit(steps=-1), "steps: must be from 1 to"),
    "times that fall": (edit(steps=2, times=[0, 1, 0.5]), "times: are not 3 rising ones"),
    "times that are too few": (edit(steps=2, times=[0, 1]), "times: are not 3 rising ones"),
    "a setting that nobody knows": (edit(colour="red"), "unknown 'colour'"),
    "another number": (rewrite("config.json", lambda b: b.replace(b"1024", b"1025")), "is not what was written"),
    "flipped bits": (
        rewrite("model.safetensors", lambda b: b[:-64] + bytes(x ^ 1 for x in b[-64:])),
        "is not what was",
    ),
    "another network's weights": (
        edit(network={"name": "unet_8x8"}),
        "not those of unet_8x8 (they differ in ",
    ),
    "weights of another size": (edit(network={"name": "mlp_8x8"}), "not those of mlp_8x8 (they differ in "),
    "a missing tensor": (tensors(lambda t: t.popitem()), "not those of mlp_8x8 (they differ in "),
    "a tensor too many": (tensors(lambda t: t.update(x=torch.zeros(1))), "(they differ in x)"),
}


@pytest.mark.parametrize(("damage", "message"), DAMAGES.values(), ids=DAMAGES)
def test_damages(folder: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(folder)
    with pytest.raises(InputError) as caught:
        load_model(folder, "teacher")
    assert str(caught.value).startswith("teacher: ")
    assert message in str(caught.value)
    assert str(folder) in str(caught.value)
    assert "\n" not in str(caught.value)
