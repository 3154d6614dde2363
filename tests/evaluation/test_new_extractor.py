"""A new extractor and a new metric are one file and one registry line each: here they are, and what finds them."""

from __future__ import annotations

import io
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from brightness import Brightness
from commands import tract_ray
from numpy.typing import NDArray

import tract_ray as tr
from tract_ray.analysis.ledger import Ledger
from tract_ray.analysis.rows import TrialRow
from tract_ray.evaluation.extractors import extractors
from tract_ray.evaluation.extractors import register as register_extractor
from tract_ray.evaluation.metrics import Metric, metrics
from tract_ray.evaluation.metrics import register as register_metric
from tract_ray.sweep.definition import SweepResult
from tract_ray.sweep.report import show_result
from tract_ray.terminal import make_console
from tract_ray.training import EvaluationConfig, Paths, RunConfig, Score, TeacherConfig, run_distillation
from tract_ray.training.recipes import method_recipe
from tract_ray.training.record import read_scores


class MeanGap(Metric):
    """How far apart the means of the features are."""

    kind = "gap"

    def reference(self, real: NDArray[np.float64]) -> NDArray[np.float64]:
        return real.mean(axis=0)

    def distance(self, features: NDArray[np.float64], reference: Any) -> float:
        return float(np.linalg.norm(features.mean(axis=0) - reference))


@pytest.fixture(autouse=True)
def registered() -> Iterator[None]:
    register_extractor(Brightness)
    register_metric(MeanGap)
    yield
    del extractors["brightness"], metrics["gap"]


def test_it_scores_a_student_and_appears_wherever_a_distance_does(tmp_path: Path) -> None:
    common: dict[str, Any] = {"storage": tmp_path, "device": "cpu", "progress": False}
    teacher = tr.train_teacher("digits", network="mlp_8x8_small", samples=256, batch=16, **common)
    short: dict[str, Any] = {"time_schedule": (4, 2, 1), "samples": 64, "batch": 16}
    student = tr.distill(
        teacher=teacher,
        mu_i_bank=(0.5,),
        features="brightness",
        rung_samples=20,
        out=tmp_path / "run",
        **short,
        **common,
    )
    result = student.result
    assert result is not None
    assert result.metric == "fid_brightness"
    assert result.evaluation["samples"] == 60
    scores = read_scores(tmp_path / "run")
    assert {score.metric for _, score in scores} == {"fid_brightness"}
    assert scores[-1][1].distance == result.distance

    stream = io.StringIO()
    row = TrialRow(name="a", status="finished", params={}, changes={}, samples=64, distance=result.distance, mu_i=0.5)
    reference = [Score(result.metric, 32, 60, 1.5)]
    ledger = Ledger(naive=64, trained=64, stopped=0, shared=0, bank=0, device_seconds=1.0)
    show_result(SweepResult("bright", [row], reference, "parent", [], ledger), make_console(stream))
    assert "bright: fid_brightness, smaller is better" in stream.getvalue()
    assert f"{result.distance:.2f}" in stream.getvalue()

    where = ["--storage", tmp_path, "--device", "cpu"]
    called = tract_ray("evaluate", result.student, "--features", "brightness", *where)
    assert called.status == 0, called
    said = json.loads(called.out)
    assert (said["metric"], said["extractor"], said["samples"]) == ("fid_brightness", "1", 60)
    assert said["distance"] == pytest.approx(result.distance, rel=1e-6)

    run = RunConfig(
        teacher=TeacherConfig(path=str(teacher.folder)),
        method=method_recipe("tract", "digits", **short),
        evaluation=EvaluationConfig(features="brightness", metric="gap", rung_samples=20),
    )
    gap = run_distillation(run, Paths.at(tmp_path, None), tmp_path / "gap")
    assert gap.metric == read_scores(tmp_path / "gap")[-1][1].metric == "gap_brightness"
    with pytest.raises(tr.InputError, match=r"^metric: unknown 'gapp'; did you mean 'gap'"):
        replace(run.evaluation, metric="gapp")
