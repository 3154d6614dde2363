"""A row of several seeds, from real runs to the study, the row and the student that is published; without a cluster."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from optuna.trial import TrialState
from runs import tiny_run

from tract_ray.analysis.rows import finished, read_rows, student_of
from tract_ray.data import load_dataset
from tract_ray.evaluation import Evaluator
from tract_ray.files import read_json
from tract_ray.search.jobs import JobQueue
from tract_ray.search.space import Space
from tract_ray.search.study import Search, open_study
from tract_ray.search.trial_name import trial_name
from tract_ray.sweep.publish import best_student
from tract_ray.training import Paths, load_model, run_distillation
from tract_ray.training.stage_store import StageStore

SPACE = Space(lambda trial: {"method.lr": trial.suggest_float("lr", 1e-3, 1e-2)}, ({"lr": 1e-3}, {"lr": 1e-2}))


def test_all_of_a_row_is_of_one_average(paths: Paths, tmp_path: Path) -> None:
    """Chosen in the mean on one set of noise, measured on the other, and published from the first seed."""
    run = tiny_run().replace_method(mu_i_bank=(0.5, 0.9, 0.0))
    search = Search(trials=2, repeats=2, pruner="none")
    study = open_study(tmp_path / "study.db", "seeds", SPACE, search)
    queue = JobQueue(study, SPACE, run, search, StageStore(paths))
    while job := queue.take("run"):
        result = run_distillation(job.run, paths, tmp_path / job.name)
        queue.keep_cost(job, result.report())
        del queue.live["run"]
        queue.end(job, TrialState.COMPLETE, result.report())
    rows = read_rows(study, tmp_path)
    assert [trial.value for trial in study.trials] == [row.selection for row in rows]
    for row in rows:
        own = [read_json(tmp_path / trial_name(row.number, k) / "result.json", "result") for k in range(2)]
        means = {mu: sum(seed["distances"][mu] for seed in own) / 2 for mu in own[0]["distances"]}
        best = min(means, key=means.__getitem__)
        assert (row.mu_i, row.selection) == (float(best), pytest.approx(means[best]))
        assert row.seeds == tuple(seed["reported"][best] for seed in own)
        assert row.distance == pytest.approx(sum(row.seeds) / 2)
        assert row.distance != pytest.approx(row.selection, rel=1e-4)
    assert finished(rows)[0].selection == min(row.selection or 0.0 for row in rows)

    # Another average than the first seed's own: made from its last stage, worth what the row says of that seed.
    row = rows[0]
    other = next(mu for mu in row.distances if mu != load_model(tmp_path / row.name / "student").about["mu_i"])
    fresh = read_json(tmp_path / row.name / "result.json", "result")["reported"][repr(other)]
    asked = replace(row, mu_i=other, seeds=(fresh, fresh))
    assert student_of(asked, tmp_path) is None
    student = load_model(best_student(asked, run, tmp_path, paths))
    assert (student.about["mu_i"], student.about["distance"]) == (other, fresh)
    evaluator = Evaluator(load_dataset("digits"), "classifier", paths.cache)
    assert evaluator.distance(lambda noise, _: student.sample(noise), 80) == pytest.approx(fresh, rel=1e-5)
    assert student_of(asked, tmp_path) == best_student(asked, run, tmp_path, paths)
