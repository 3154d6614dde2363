"""The classifier behind `fid_digits`: the same weights wherever it is trained, trained once."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import pytest
import torch

from tract_ray.config import InputError
from tract_ray.data import Dataset, load_dataset
from tract_ray.evaluation import classifier
from tract_ray.evaluation.extractors.classifier import trained_classifier


@pytest.fixture
def short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(classifier.RECIPE, "steps", 30)


def test_training_twice_gives_the_same_weights(tmp_path: Path, short: None) -> None:
    """Whatever the process drew before, and however many threads it uses."""
    data = load_dataset("digits")
    torch.manual_seed(1)
    _, first = trained_classifier(data, tmp_path / "a")
    torch.manual_seed(2)
    threads = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        _, second = trained_classifier(data, tmp_path / "b")
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(threads)
    assert first == second
    assert len(first) == 12


def test_the_second_call_finds_the_first_one_s(tmp_path: Path, short: None, monkeypatch: pytest.MonkeyPatch) -> None:
    data = load_dataset("digits")
    network, fingerprint = trained_classifier(data, tmp_path)
    monkeypatch.setattr(classifier, "_train", lambda *_: pytest.fail("trained again"))
    again, same = trained_classifier(data, tmp_path)
    assert same == fingerprint
    assert all(torch.equal(v, again.state_dict()[k]) for k, v in network.state_dict().items())
    assert not again.training
    assert not any(p.requires_grad for p in again.parameters())


def test_the_first_of_two_at_once_stays(tmp_path: Path, short: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another process may be reading it at that moment."""
    data, train = load_dataset("digits"), classifier._train

    def overtaken(network: classifier.SmallClassifier, dataset: Dataset, recipe: Mapping[str, float]) -> float:
        monkeypatch.setattr(classifier, "_train", train)
        trained_classifier(dataset, tmp_path)
        inodes.extend(file.stat().st_ino for file in tmp_path.rglob("model.safetensors"))
        return train(network, dataset, recipe)

    inodes: list[int] = []
    monkeypatch.setattr(classifier, "_train", overtaken)
    trained_classifier(data, tmp_path)
    assert [file.stat().st_ino for file in tmp_path.rglob("model.safetensors")] == inodes
    assert len(list((tmp_path / "classifiers").iterdir())) == 1  # and nothing is left behind


def test_other_images_or_another_recipe_are_another_classifier(
    tmp_path: Path, short: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = load_dataset("digits")
    trained_classifier(data, tmp_path)
    trained_classifier(Dataset("digits", 255 - data.images, data.labels, 10), tmp_path)
    monkeypatch.setitem(classifier.RECIPE, "steps", 31)
    trained_classifier(data, tmp_path)
    assert len(list((tmp_path / "classifiers").iterdir())) == 3


def test_a_damaged_cache_is_made_again(tmp_path: Path, short: None) -> None:
    before, *_ = trained_classifier(load_dataset("digits"), tmp_path)
    (file,) = tmp_path.rglob("model.safetensors")
    file.write_bytes(file.read_bytes()[:1000])
    again, *_ = trained_classifier(load_dataset("digits"), tmp_path)
    assert all(torch.equal(a, b) for a, b in zip(before.parameters(), again.parameters(), strict=True))


def test_images_without_classes(tmp_path: Path) -> None:
    data = Dataset("folder:x@8", torch.zeros(4, 3, 8, 8, dtype=torch.uint8), torch.zeros(4, dtype=torch.int64), 1)
    with pytest.raises(InputError, match=r"^features: folder:x@8 has no labels"):
        trained_classifier(data, tmp_path)


def test_many_images_are_learned_from_for_longer(tmp_path: Path, short: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(classifier, "MANY", 1796)
    trained_classifier(load_dataset("digits"), tmp_path)
    (file,) = tmp_path.rglob("config.json")
    assert json.loads(file.read_text())["recipe"]["steps"] == 150
