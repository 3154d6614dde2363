"""`tract-ray reconstruct`, after a run that the command line trained."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from commands import refusal, run

from tract_ray.cli import reconstruct as cli_reconstruct
from tract_ray.distillation import AverageFolder
from tract_ray.training import load_model


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory, short_classifier: None) -> Path:
    """A run of two phases of 20 steps that scored one average, mu 0.8, and stored those of four steps."""
    folder = tmp_path_factory.mktemp("run")
    lengths = ["--teacher-samples", 320, "--samples", 640, "--batch", 16, "--evaluation-samples", 60]
    where = ["--storage", folder / "runs", "--out", folder / "run", "--device", "cpu", "--json"]
    small = ["--network", "mlp_8x8", "--time-schedule", "8,2,1", "--mu-i", 0.8, "--set", "mu_i_snapshots=4"]
    run("distill", *small, *lengths, *where)
    return folder / "run"


def test_the_trained_average_is_made_again(finished: Path, tmp_path: Path) -> None:
    said = json.loads(run("reconstruct", finished, "--mu-i", 0.8, "--out", tmp_path / "new", "--json"))
    assert said["student"] == str(tmp_path / "new")
    assert 0 < said["predicted_error"] < 0.01
    made, trained = load_model(tmp_path / "new"), load_model(finished / "student")
    assert (made.steps, made.times, made.dataset) == (trained.steps, trained.times, "digits")
    assert made.about["mu_i"] == 0.8
    assert made.about["reconstructed"]["predicted_error"] == said["predicted_error"]
    assert "distance" not in made.about  # it is no longer the distance of these weights
    assert made.about["config"] == trained.about["config"]
    last, _ = AverageFolder(finished / "averages").reconstruct(0.0)
    for name, tensor in trained.denoiser.module.state_dict().items():
        moved = float((tensor - last[name]).norm())
        assert float((made.denoiser.module.state_dict()[name] - tensor).norm()) <= 0.01 * moved + 1e-6
    noise = torch.randn(8, 1, 8, 8, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(made.sample(noise), trained.sample(noise), atol=1e-4, rtol=0)


def test_what_it_says(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = run("reconstruct", finished, "--mu-i", 0, "--out", tmp_path / "new")
    assert "mu_i 0: its profile differs by 0.00%" in text
    assert "note" not in text
    monkeypatch.setattr(cli_reconstruct, "POOR", 1e-3)  # a phase of 20 steps has no mu that is far from all stored
    assert "do not reach" in run("reconstruct", finished, "--mu-i", 0.2, "--out", tmp_path / "new")


def test_what_it_refuses(finished: Path, tmp_path: Path) -> None:
    def said(source: Path, mu_i: float = 0.5, out: Path = tmp_path / "new") -> str:
        return refusal("reconstruct", source, "--mu-i", mu_i, "--out", out)

    assert said(tmp_path / "none").startswith(f"run: {tmp_path / 'none' / 'student'} is not a model folder")
    for mu_i in (1.0, -0.5):
        assert said(finished, mu_i) == f"mu_i: must be in [0, 1), got {mu_i}"
    assert said(finished, out=finished / "student").endswith("is the run's own student; choose another")
    assert said(finished, out=finished).startswith("out: ")
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "student").symlink_to(finished / "student")
    assert "train with mu_i_snapshots=4" in said(tmp_path / "old")
    assert not (tmp_path / "new").exists()
