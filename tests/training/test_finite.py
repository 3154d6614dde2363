"""Divergence ends a run in one line, and nothing of it is kept; a single bad batch may be skipped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from runs import tiny_run

from tract_ray.config import RunFailed
from tract_ray.data.dataset import to_uint8
from tract_ray.distillation import Batch, Tract
from tract_ray.training import Paths, run_distillation, train_teacher
from tract_ray.training.record import read_lines


@pytest.mark.parametrize("lr", [1e9, 1e30])
def test_a_run_that_diverges_ends_and_keeps_nothing(paths: Paths, tmp_path: Path, lr: float) -> None:
    reports = list[float]()
    with pytest.raises(RunFailed, match=r"^(loss is|weights of \w+ are) not finite (at|after) step \d+ \(lr 1e"):
        run_distillation(
            tiny_run().replace_method(lr=lr), paths, tmp_path / "run", report=lambda r: reports.append(r["samples"])
        )
    assert not reports
    assert not (tmp_path / "run" / "result.json").exists()
    assert not list((paths.cache / "stages").glob("*/stage.json"))


def test_no_teacher_is_kept_that_diverged(tmp_path: Path) -> None:
    config = tiny_run().teacher
    with pytest.raises(RunFailed, match="not finite"):
        train_teacher(replace(config, training=replace(config.training, lr=1e30)), Paths(tmp_path, tmp_path / "cache"))
    assert not list(tmp_path.glob("cache/teachers/*/config.json"))


def bad_batch(monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """One batch of the first phase has an infinite loss."""
    real = Tract.loss

    def loss(self: Tract, batch: Batch) -> torch.Tensor:
        value = real(self, batch)
        return value * torch.inf if batch.step == at and self.phase.index == 0 else value

    monkeypatch.setattr(Tract, "loss", loss)


def test_a_bad_batch_is_skipped_and_counted(paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bad_batch(monkeypatch, 7)
    with pytest.raises(RunFailed, match=r"^loss is not finite at step (8|9|10) \(lr 0.001\)$"):
        run_distillation(tiny_run(), paths, tmp_path / "strict", reuse=False)
    result = run_distillation(tiny_run().replace_method(skip_nonfinite=True), paths, tmp_path / "run", reuse=False)
    assert 0 < result.distance < 1e4
    lines = [line for line in read_lines(tmp_path / "run") if "loss" in line.get("metrics", {})]
    assert {line["metrics"]["nonfinite_batches"] for line in lines if line["samples"] < 480} == {0.0, 1.0}


def test_a_skipped_batch_changes_no_weight() -> None:
    """The optimiser's moments and its count of steps stay, too."""
    from tract_ray.distillation import DenoisingConfig
    from tract_ray.training.finite import LossWatch

    weight = torch.nn.Parameter(torch.ones(3))
    optimizer = torch.optim.Adam([weight], lr=0.1, fused=True)
    watch = LossWatch(DenoisingConfig(skip_nonfinite=True), 0.0, 0, torch.device("cpu"))
    for gradient in (1.0, torch.inf, 1.0):
        weight.grad = torch.full((3,), gradient)
        watch.step(torch.tensor(gradient), weight.grad.norm(), optimizer)
        before = weight.detach().clone()
        optimizer.step()
        assert torch.equal(weight.detach(), before) == (gradient == torch.inf)
    state = optimizer.state[weight]
    assert (float(state["step"]), float(state["exp_avg"][0])) == (2.0, pytest.approx(0.19))
    assert watch.so_far() == (2.0, 2)


@pytest.mark.parametrize("value", [torch.nan, torch.inf, -torch.inf])
def test_what_is_no_number_is_no_pixel(value: float) -> None:
    assert to_uint8(torch.tensor([-1.0, 3.0])).tolist() == [0, 255]
    with pytest.raises(RunFailed, match="images are not finite"):
        to_uint8(torch.tensor([0.0, value]))
