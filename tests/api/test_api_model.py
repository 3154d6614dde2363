"""A model in a person's hands: samples, pictures, labels, and what it says of itself."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import tract_ray as tr
from tract_ray import training
from tract_ray.api.machine import worker_on
from tract_ray.diffusion import CosineVP, Denoiser
from tract_ray.evaluation import fixed_noise
from tract_ray.networks import build_network
from tract_ray.training import NetworkConfig

pytestmark = pytest.mark.usefixtures("short_classifier")
SHORT = {"network": "mlp_8x8_small", "samples": 512, "teacher_samples": 1280, "evaluation_samples": 100}


def model(num_classes: int = 0, times: list[float] | None = None) -> tr.Model:
    """A network as it was initialised."""
    network = build_network("mlp_8x8_small", (1, 8, 8), num_classes=num_classes, seed=0).eval().requires_grad_(False)
    inner = training.Model(
        Denoiser(network, CosineVP(), "v"), NetworkConfig(name="mlp_8x8_small"), (1, 8, 8), 2, num_classes, times
    )
    return tr.Model(inner, worker_on("cpu"))


def test_samples_are_those_of_the_seeds_noise() -> None:
    """In whatever batches they are made."""
    own = model()
    images = own.sample(300, seed=7, steps=3)
    torch.testing.assert_close(images, own.network.sample(fixed_noise(7, 0, 300, (1, 8, 8)), None, 3))
    assert not torch.equal(own.sample(4, seed=8, steps=3), images[:4])


def test_labels_are_one_for_all_one_for_each_or_all_in_turn() -> None:
    own = model(num_classes=3)
    torch.testing.assert_close(own.sample(5), own.sample(5, labels=[0, 1, 2, 0, 1]))
    torch.testing.assert_close(own.sample(2, labels=2), own.sample(2, labels=torch.tensor([2, 2])))


@pytest.mark.parametrize(
    ("classes", "how", "message"),
    [
        (0, {"labels": 0}, "label: this model is not class-conditional"),
        (3, {"labels": 3}, r"label: must be in 0\.\.2, got 3"),
        (3, {"labels": [0]}, r"labels: one for each of 2 images, got \(1,\)"),
        (0, {"steps": 0}, "steps: must be at least 1"),
        (0, {"count": 0}, "count: must be"),
        (0, {"columns": 0}, "columns: must be"),
    ],
)
def test_what_it_cannot_be_asked(classes: int, how: dict[str, Any], message: str) -> None:
    with pytest.raises(tr.InputError, match=f"^{message}"):
        model(classes).grid(**{"count": 2, **how})


def test_a_notebook_shows_sixteen_samples() -> None:
    with Image.open(BytesIO(model()._repr_png_())) as picture:
        assert picture.size == (8 * 66 + 2, 2 * 66 + 2)


def test_a_student_of_few_steps_is_asked_for_no_others() -> None:
    with pytest.raises(tr.InputError, match="steps: this student was distilled for 2"):
        model(times=[0.0, 0.5, 1.0]).sample(1, steps=3)


def test_a_distillation_is_found_again_and_kept(tmp_path: Path) -> None:
    """The folder of a run is its settings'; a saved student is the student, with what was measured of it."""
    how: dict[str, Any] = {**SHORT, "storage": tmp_path, "progress": False, "device": "cpu", "mu_i_bank": (0, 0.9)}
    teacher = tr.train_teacher("digits", network="mlp_8x8_small", samples=1280, storage=tmp_path, progress=False)
    del how["network"], how["teacher_samples"]
    student = tr.distill("digits", teacher=teacher, time_schedule=(8, 4, 1), **how)
    again = tr.distill("digits", teacher=teacher.folder, time_schedule="8,4,1", **how)
    assert student.result is not None
    assert again.result == student.result
    assert (again.folder, student.distance) == (student.folder, student.result.distance)
    assert {0.0, 0.9} < set(student.distances)
    kept = tr.load_model(student.save(tmp_path / "kept"), device="cpu")
    assert torch.equal(kept.sample(3, seed=1), student.sample(3, seed=1))
    assert (kept.distance, kept.mu_i, kept.metric) == (student.distance, student.mu_i, "fid_digits")
    assert repr(kept) == f"Model(mlp_8x8_small, 247,504 parameters, 1x8x8, 1 step(s), fid_digits {kept.distance:.4g})"
    score = tr.evaluate(student, samples=100, storage=tmp_path)
    assert score["distance"] == pytest.approx(student.distance, rel=1e-6)


def test_settings_are_checked_by_name() -> None:
    with pytest.raises(tr.InputError, match="method setting: unknown 'mu_t'; did you mean 'mu_s'"):
        tr.distill("digits", mu_t=0.5)


def test_a_model_of_unknown_data_asks_for_some(tmp_path: Path) -> None:
    with pytest.raises(tr.InputError, match="dataset: this model does not say what it was trained on"):
        tr.evaluate(model().save(tmp_path / "model"))


def test_a_relative_path_is_the_typed_one_wherever_it_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run keeps the teacher's absolute path: its workers run elsewhere."""
    monkeypatch.chdir(tmp_path)
    teacher = tr.train_teacher("digits", network="mlp_8x8_small", samples=1280, storage="runs", progress=False)
    teacher.save("own")
    student = tr.distill(teacher="own", time_schedule=(8, 1), samples=64, evaluation_samples=60, progress=False)
    assert student.network.about["config"]["teacher"]["path"] == str(tmp_path / "own")
    assert student.network.about["teacher"] == str(tmp_path / "own")
