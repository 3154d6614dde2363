"""Moment matching keeps the best evaluation, through interruptions, and its students know their sampler."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from runs import tiny_run

from tract_ray.distillation import methods
from tract_ray.training import EvaluationConfig, Paths, RunConfig, load_model, run_distillation
from tract_ray.training.loop import CHECKPOINT


def generator_run() -> RunConfig:
    config = methods["moment_matching"].config_type(samples=24 * 16, batch=16, lr=3e-2, sampling_steps=2)  # type: ignore[call-arg]
    return replace(tiny_run(), method=config, evaluation=EvaluationConfig(samples=60, per_phase=4))


def scores(folder: Path) -> list[float]:
    lines = [json.loads(line) for line in (folder / "record.jsonl").read_text().splitlines()]
    return [line["metrics"]["fid_digits"] for line in lines if "fid_digits" in line.get("metrics", {})]


def test_the_best_evaluation_is_the_result(paths: Paths, tmp_path: Path) -> None:
    result = run_distillation(generator_run(), paths, tmp_path)
    assert len(scores(tmp_path)) == 4
    student, best = load_model(result.student), load_model(tmp_path / "best")
    assert best.about["distance"] == min(scores(tmp_path)) == result.distances[result.mu_i]
    assert student.about["distance"] == result.distance != best.about["distance"]  # of fresh noise
    assert (student.sampler, student.steps) == ("ancestral", 2)
    noise = torch.randn(3, 1, 8, 8)
    assert torch.equal(student.sample(noise), best.sample(noise))


def test_an_interruption_keeps_the_best(paths: Paths, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = run_distillation(generator_run(), paths, tmp_path / "whole")

    def broken(report: dict[str, float]) -> None:
        if report["samples"] == 12 * 16:
            raise RuntimeError("killed")

    with pytest.raises(RuntimeError, match="killed"):
        run_distillation(generator_run(), paths, tmp_path / "parts", report=broken)
    assert (tmp_path / "parts" / CHECKPOINT).is_file()
    again = run_distillation(generator_run(), paths, tmp_path / "parts")
    assert (again.distance, again.mu_i) == (whole.distance, whole.mu_i)
    assert scores(tmp_path / "parts") == scores(tmp_path / "whole")
