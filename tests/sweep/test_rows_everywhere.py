"""A population, repeats and a comparison of methods, killed and resumed: the same rows wherever they are read."""

from __future__ import annotations

import json
import re
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna
import pytest
from mlflow import MlflowClient
from services import ROOT, RayCluster, end, mlflow_at, start, wait_until
from sweeps_for_tests import SMALL, Called, call

from tract_ray.analysis.recorded_sweep import RecordedSweep, load_sweep, newest_sweep
from tract_ray.analysis.rows import TrialRow, finished
from tract_ray.search.seeds import mean
from tract_ray.search.trial_name import trial_name
from tract_ray.training import load_model

pytestmark = pytest.mark.cluster
TINY = [*SMALL.replace("--finish-anchors", "").split(), "--concurrency", "1"]
STEPS = ["--time-schedule", "16,8,1", "--repeats", "2"]
# What is asked at first, and with what it is resumed.
SWEEPS = {
    "population_search": (["--trials", "8"], ["--trials", "8"]),
    "mu_search": (["--trials", "1", "--repeats", "2"], ["--trials", "3", "--repeats", "2"]),
    "method_comparison": ([*STEPS, "--trials", "2"], [*STEPS, "--trials", "4"]),
}


@dataclass(frozen=True)
class Resumed:
    """What there is to read of a sweep in the end."""

    experiment: str
    folder: Path
    uri: str
    address: str
    called: Called
    summary: dict[str, Any]
    recorded: RecordedSweep

    @property
    def rows(self) -> list[TrialRow]:
        return [TrialRow.from_json(row) for row in self.summary["trials"]]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One for the three, with one record: making a database takes seconds."""
    made: Path = tmp_path_factory.mktemp("rows")
    return made


@pytest.fixture(scope="module", params=SWEEPS)
def resumed(request: pytest.FixtureRequest, folder: Path, cluster: RayCluster, cache: Path) -> Resumed:
    """Begun, killed when its first run has a result, and resumed with more trials."""
    experiment, (first, more) = request.param, SWEEPS[request.param]
    uri, script, folder = f"sqlite:///{folder}/mlflow.db", ROOT / "sweeps" / f"{experiment}.py", folder / experiment
    where = [*TINY, "--storage", str(folder), "--mlflow-uri", uri, "--name", "rows", "--ray-address", cluster.address]
    sweep, log = folder / "sweeps" / "rows", folder / "log"
    driver = start([sys.executable, script, *where, *first], log, env={"TRACT_RAY_CACHE": str(cache)})
    try:
        wait_until((sweep / "trials" / "trial-0000" / "result.json").is_file, "no result", 240, log, driver)
    finally:
        end(driver, at_once=True)
    called = call(*where, *more, "--resume", script=script, cache=cache)
    assert called.status == 0, called
    with mlflow_at(uri):
        recorded = newest_sweep(experiment, uri)
    return Resumed(
        experiment, sweep, uri, cluster.address, called, json.loads((sweep / "summary.json").read_text()), recorded
    )


def test_the_notebook_and_the_summary_have_the_same_rows(resumed: Resumed) -> None:
    more = SWEEPS[resumed.experiment][1]
    assert resumed.recorded.rows == resumed.rows
    assert len(resumed.rows) == int(more[more.index("--trials") + 1])
    best = finished(resumed.rows)[0]
    assert resumed.summary["best"] == best.name == resumed.recorded.table()["trial"][0]
    assert resumed.recorded.table()[resumed.recorded.metric][0] == best.distance
    least = min(row.chosen_by for row in finished(resumed.rows))
    assert resumed.recorded.table()["selection"][0] == best.selection == least


def test_the_terminal_has_the_same_rows(resumed: Resumed) -> None:
    """A line each, with the mean, in the order of a list or with the best first."""
    table = resumed.called.out[resumed.called.out.index("smaller is better") :]
    several = any(len(row.seeds) > 1 for row in resumed.rows)
    for row in finished(resumed.rows):
        names = f"{row.label} ", f"{row.label}*"
        line = next(text.strip() for text in table.splitlines() if text.strip().startswith(names))
        place = -4 if several else -1
        assert line.split()[place] == f"{row.distance:.2f}"


def test_mlflow_ranks_rows_as_the_table_does(resumed: Resumed) -> None:
    """Every run says which row it belongs to; of a member on its way there is no distance to be ranked by."""
    client = MlflowClient(tracking_uri=resumed.uri)
    experiment = client.get_experiment_by_name(resumed.experiment)
    runs = {str(run.info.run_name): run for run in client.search_runs([experiment.experiment_id], max_results=500)}
    for row in resumed.rows:
        for repeat in range(max(1, len(row.seeds))):
            data = runs[trial_name(row.number, repeat)].data
            assert (data.tags["tract_ray.row"], data.tags["tract_ray.status"]) == (row.name, row.status)
            if row.status == "finished":
                assert (data.metrics["row_distance"], data.metrics["row_selection"]) == (row.distance, row.selection)
                assert data.metrics["distance"] == row.seeds[repeat]
            else:
                assert "distance" not in data.metrics
    best = finished(resumed.rows)[0]
    ranked = [run for run in runs.values() if "row_distance" in run.data.metrics]
    assert min(ranked, key=lambda r: r.data.metrics["row_selection"]).data.tags["tract_ray.row"] == best.name
    parent = runs["rows"]
    assert parent.data.tags["tract_ray.best_trial"] == best.name
    assert parent.data.metrics["distance"] == best.distance
    with mlflow_at(resumed.uri):
        import mlflow

        table = mlflow.MlflowClient(resumed.uri).download_artifacts(parent.info.run_id, "trials.json")
    told = json.loads(Path(table).read_text())
    shown = [dict(zip(told["columns"], line, strict=True)) for line in told["data"]]
    assert [(line["trial"], line["distance"], line["mu_i"]) for line in shown] == [
        (row.name, row.distance if row.status == "finished" else None, row.mu_i) for row in resumed.rows
    ]


def test_the_published_student_is_the_rows(resumed: Resumed, tmp_path: Path) -> None:
    """Of the first seed, with the mu_i that the row names."""
    client, best = MlflowClient(tracking_uri=resumed.uri), finished(resumed.rows)[0]
    experiment = client.get_experiment_by_name(resumed.experiment)
    query = f"tags.`tract_ray.trial` = '{best.name}'"
    (run,) = client.search_runs([experiment.experiment_id], query)
    student = load_model(Path(client.download_artifacts(run.info.run_id, "student", str(tmp_path))))
    assert student.about["mu_i"] == best.mu_i
    assert student.about["distance"] == (best.seeds[0] if best.seeds else best.distance)


def test_the_study_was_told_what_rows_are_chosen_by(resumed: Resumed) -> None:
    """All of a row is of its one mu_i, on the two sets of noise; the mean over seeds is that of what each reports."""
    study = optuna.load_study(study_name="rows", storage=f"sqlite:///{resumed.folder}/study.db")
    for row in finished(resumed.rows):
        assert study.trials[row.number].value == row.selection == row.distances[row.mu_i or 0.0]
        seeds = [resumed.folder / "trials" / trial_name(row.number, k) / "result.json" for k in range(len(row.seeds))]
        fresh = [json.loads(file.read_text())["reported"][repr(row.mu_i)] for file in seeds]
        assert list(row.seeds) == fresh
        assert row.distance == mean(fresh) != row.selection


def test_a_sweep_that_was_moved_has_the_same_rows(resumed: Resumed, tmp_path: Path) -> None:
    shutil.copytree(resumed.folder, tmp_path / "sweeps" / "rows")
    moved = load_sweep("rows", storage=tmp_path)
    assert moved.rows == resumed.rows
    assert moved.student is not None
    assert moved.student.is_relative_to(tmp_path)
    assert load_model(moved.student).about["mu_i"] == finished(resumed.rows)[0].mu_i


def test_a_list_has_its_rows_in_order(resumed: Resumed) -> None:
    if resumed.experiment != "method_comparison":
        pytest.skip("not a list")
    assert [row.label for row in resumed.rows] == [
        "consistency, 1 step",
        "TRACT, 1 step",
        "BTD, 1 step",
        "moment matching, 1 step",
    ]


def test_more_members_are_refused(resumed: Resumed, cache: Path) -> None:
    if resumed.experiment != "population_search":
        pytest.skip("not a population")
    where = [*TINY, "--storage", str(resumed.folder.parents[1]), "--mlflow-uri", resumed.uri, "--name", "rows"]
    script = ROOT / "sweeps" / "population_search.py"
    called = call(*where, "--ray-address", resumed.address, "--trials", "12", "--resume", script=script, cache=cache)
    assert called.status == 2
    assert re.match(r"error: trials: rows is a population of 8 trials, and with 12 its members would be", called.err)
