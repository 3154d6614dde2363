"""The student of a run at an average that is not its own best."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from tract_ray.evaluation import fixed_noise
from tract_ray.training import Paths, load_model, run_distillation
from tract_ray.training.averages import student_at

from runs import tiny_run  # isort: skip (beside this file)


def test_any_average_of_the_bank(paths: Paths, tmp_path: Path) -> None:
    """At the run's own mu_i it is the student that was saved; at the other one it is another."""
    run = tiny_run()
    result = run_distillation(run, paths, tmp_path / "run")
    own = load_model(tmp_path / "run" / "student")
    noise = fixed_noise(0, 0, 4, own.shape)
    (other,) = (mu for mu in result.distances if mu != result.mu_i)
    same, different = student_at(run, paths, result.mu_i, {}), student_at(run, paths, other, {"distance": 1.5})
    assert same is not None
    assert different is not None
    assert torch.equal(same.sample(noise), own.sample(noise))
    assert not torch.equal(different.sample(noise), own.sample(noise))
    assert (different.about["mu_i"], different.about["distance"]) == (other, 1.5)
    assert json.dumps(different.about["config"]) == json.dumps(own.about["config"])
    assert student_at(run, paths, 0.123, {}) is None
