"""Every script of `sweeps/`: what it would do, and two of them for real."""

from __future__ import annotations

import json
import re
import runpy
from dataclasses import replace
from pathlib import Path

import optuna
import pytest
from services import ROOT, MlflowServer, RayCluster
from sweeps_for_tests import call

from tract_ray.distillation import heuristic_mu
from tract_ray.sweep.options import Options
from tract_ray.tracking import MlflowStore
from tract_ray.training.recipes import recipes

SCRIPTS = sorted((ROOT / "sweeps").glob("*.py"))
TINY = ["--teacher-samples", "1280", "--samples", "640", "--batch", "64", "--evaluation-samples", "100"]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.stem)
def test_what_it_would_do(script: Path, tmp_path: Path) -> None:
    """The question it asks, its trainings and its ledger; nothing is written."""
    storage = tmp_path / "runs"
    called = call(*TINY, "--dry-run", "--storage", storage, script=script, cache=tmp_path / "cache")
    assert (called.status, called.err) == (0, "")
    first = called.out.splitlines()[0]
    assert re.fullmatch(rf"{script.stem}: .+\?", first), first
    assert re.search(r"^trainings: \d+ \(\d+ trials x \d+ seeds, teacher to be trained\)$", called.out, re.MULTILINE)
    assert "every row by itself" in called.out
    assert not storage.exists()
    assert not (tmp_path / "cache").exists()


def test_the_ablations_cost_less_than_their_rows(tmp_path: Path) -> None:
    """At most 60% of the naive sum, whatever the length of a trial."""
    script = ROOT / "sweeps" / "paper_ablations.py"
    called = call("--dry-run", "--storage", tmp_path, script=script, cache=tmp_path / "cache")
    share = re.search(r"^ trained +[\d,]+ +(\d+)%", called.out, re.MULTILINE)
    assert share is not None
    assert int(share[1]) <= 60


def test_a_recipes_own_averages_are_the_first_anchor(tmp_path: Path) -> None:
    """Also where the search would not have drawn them; a method without a self-teacher has its residual."""
    plan = runpy.run_path(str(ROOT / "sweeps" / "mu_search.py"))["plan"]
    recipe = recipes["tract-cifar10"]
    file = tmp_path / "mine.json"
    file.write_text(replace(recipe, method=replace(recipe.method, mu_s=0.75, mu_i_residual=3e-3)).to_json())
    for options, mu_s, residual in (
        (Options(recipe=str(file)), 0.75, 3e-3),
        (Options(recipe="tract-cifar10"), 0.5, 1e-3),
        (Options(kind="progressive"), None, 1e-3),
    ):
        space, run = plan(options)
        first, *others = (space.suggest(optuna.trial.FixedTrial(dict(anchor))) for anchor in space.anchors)
        expected = {"method.mu_i_residual": residual} | ({} if mu_s is None else {"method.mu_s": mu_s})
        assert first == expected
        assert first not in others
        averages = [averaged["method.mu_s"] for averaged in others if mu_s is not None]
        assert averages == [mu for mu in (0.5, 0.0, 0.9, 0.99, 0.999) if mu != mu_s and averages]
        steps = {phase.steps for phase in run.method.phases()}
        assert {heuristic_mu(residual, length) for length in steps} <= set(run.method.mu_i_bank)


@pytest.mark.cluster
def test_a_front_of_distance_and_size(
    cluster: RayCluster, mlflow_server: MlflowServer, cache: Path, tmp_path: Path
) -> None:
    """Two objectives, two seeds each: a mean, an interval and a front; the smaller student is smaller."""
    where = ["--storage", tmp_path, "--ray-address", cluster.address, "--mlflow-uri", mlflow_server.uri]
    script = ROOT / "sweeps" / "architecture_search.py"
    arguments = [*TINY, "--time-schedule", "8,4,1", "--trials", "3", "--repeats", "2", "--name", "sizes", *where]
    called = call(*arguments, script=script, cache=cache)
    assert called.status == 0, called
    summary = json.loads((tmp_path / "sweeps" / "sizes" / "summary.json").read_text())
    whole, third, random = summary["trials"]
    assert whole["parameters"] > third["parameters"] == random["parameters"]
    assert all(len(row["seeds"]) == 2 for row in summary["trials"])
    assert whole["distance"] == pytest.approx(sum(whole["seeds"]) / 2)
    assert summary["ledger"]["naive"] == summary["ledger"]["trained"] == 6 * 640
    assert {"pareto.png", "intervals.png"} < {f.name for f in (tmp_path / "sweeps" / "sizes" / "plots").iterdir()}
    assert "95% interval" in called.out
    assert "Pareto front of distance and parameters" in called.out
    assert summary["verdict"] in called.out
    store = MlflowStore(mlflow_server.uri, "architecture_search")
    runs = store.client.search_runs([store.experiment_id], "tags.`tract_ray.sweep` = 'sizes'")
    names = [f"trial-{number:04d}{repeat}" for number in range(3) for repeat in ("", ".1")]
    assert sorted(str(run.info.run_name) for run in runs) == ["sizes", *names]
    parent = next(run for run in runs if run.info.run_name == "sizes")
    assert parent.data.metrics["ledger/trained"] == 6 * 640


@pytest.mark.cluster
def test_a_second_sweep_trains_nothing_again(
    cluster: RayCluster, mlflow_server: MlflowServer, tmp_path: Path, cache: Path
) -> None:
    """Across sweeps: the same trials under another name find their stages, and the same distances."""
    where = ["--storage", tmp_path, "--ray-address", cluster.address, "--mlflow-uri", mlflow_server.uri]
    schedule = ["--time-schedule", "8,2,1", "--trials", "2", "--finish-anchors"]
    for name in ("first", "second"):
        called = call(*TINY, *schedule, "--name", name, *where, cache=cache)
        assert called.status == 0, called
    first, second = (
        json.loads((tmp_path / "sweeps" / name / "summary.json").read_text()) for name in ("first", "second")
    )
    assert (first["ledger"]["trained"], second["ledger"]["trained"]) == (2 * 640, 0)
    assert second["ledger"]["shared"] == second["ledger"]["naive"] == 2 * 640
    for row, other in zip(first["trials"], second["trials"], strict=True):
        assert row["distances"] == other["distances"]
