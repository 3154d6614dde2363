"""Sweeps on a real cluster of two nodes, recorded by a real MLflow server."""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from pathlib import Path

import mlflow
import numpy as np
import optuna
import pytest
import ray
import torch
from mlflow.entities import Run
from optuna.trial import TrialState
from PIL import Image
from safetensors.torch import load_file
from services import MlflowServer, RayCluster, mlflow_at
from sweeps_for_tests import SMALL, Called, call, lines_of, points_of

from tract_ray.analysis.recorded_sweep import newest_sweep
from tract_ray.config import config_hash, from_dict
from tract_ray.evaluation import fixed_noise
from tract_ray.tracking import MlflowStore
from tract_ray.tracking.provenance import source_hash
from tract_ray.training import RunConfig, load_model
from tract_ray.training.scoring import evaluation_marks

pytestmark = pytest.mark.cluster


@dataclass
class Swept:
    """A sweep of three trials, and what MLflow has of it."""

    called: Called
    storage: Path
    store: MlflowStore
    parent: Run
    children: list[Run]

    @property
    def folder(self) -> Path:
        return self.storage / "sweeps" / "three"

    def trial(self, number: int) -> Path:
        return self.folder / "trials" / f"trial-{number:04d}"


@pytest.fixture(scope="module")
def swept(
    cluster: RayCluster, mlflow_server: MlflowServer, cache: Path, tmp_path_factory: pytest.TempPathFactory
) -> Swept:
    storage: Path = tmp_path_factory.mktemp("storage")
    options = [*SMALL.split(), "--storage", storage, "--ray-address", cluster.address]
    called = call(*options, "--mlflow-uri", mlflow_server.uri, "--trials", "3", "--name", "three", cache=cache)
    assert called.status == 0, called
    store = MlflowStore(mlflow_server.uri, "mu_search")
    runs = store.client.search_runs([store.experiment_id], "tags.`tract_ray.sweep` = 'three'")
    runs.sort(key=lambda run: str(run.info.run_name))
    return Swept(called, storage, store, runs[0], runs[1:])


def test_one_parent_and_one_child_for_each_trial(swept: Swept) -> None:
    assert swept.parent.info.run_name == "three"
    assert [run.info.run_name for run in swept.children] == ["trial-0000", "trial-0001", "trial-0002"]
    assert {run.data.tags["mlflow.parentRunId"] for run in swept.children} == {swept.parent.info.run_id}
    assert {run.info.status for run in [swept.parent, *swept.children]} == {"FINISHED"}
    assert swept.parent.data.tags["mlflow.note.content"].startswith("Which self-teacher average")


def test_parameters_tell_everything(swept: Swept) -> None:
    """Enough to run a trial again: the configuration, its hash, its code and what computed it."""
    for number, child in enumerate(swept.children):
        params = child.data.params
        config = from_dict(RunConfig, json.loads((swept.trial(number) / "config.json").read_text())["config"])
        assert params["config_hash"] == config_hash(config)
        assert float(params["method.mu_s"]) == [0.5, 0.0, 0.9][number]
        assert (params["method.time_schedule"], params["method.samples"], params["seed"]) == ("8,4,1", "512", "0")
        assert params["teacher.training.samples"] == "1280"
        assert re.fullmatch(r"[0-9a-f]{40}(-dirty)?|unknown", params["git_commit"])
        assert params["source_hash"] == source_hash()
        assert torch.__version__.startswith(params["version.torch"])
        assert (params["version.ray"], params["device"]) == (ray.__version__, "cpu (x86_64)")
    hashes = [child.data.params["config_hash"] for child in swept.children]
    assert len(set(hashes)) == 3


def test_metrics_against_samples_seen(swept: Swept) -> None:
    """Every line of every record is in MLflow, once; the last distance is the result's."""
    for number, child in enumerate(swept.children):
        keys = {key for line in lines_of(swept.trial(number)) for key in line.get("metrics", {})}
        assert {"loss", "images_per_second", "phase", "fid_digits", "mu_i_best"} < keys
        for key in keys:
            history = swept.store.client.get_metric_history(child.info.run_id, key)
            assert sorted((p.step, p.value) for p in history) == points_of(swept.trial(number), key)
        result = json.loads((swept.trial(number) / "result.json").read_text())
        assert child.data.metrics["distance"] == child.data.metrics["fid_digits"] == result["distance"]
        bank = {k: v for k, v in child.data.metrics.items() if k.startswith("fid_digits/mu_i_")}
        assert sorted(bank.values()) == pytest.approx(sorted(result["distances"].values()))
        assert len(bank) > 3
    config = from_dict(RunConfig, json.loads((swept.trial(0) / "config.json").read_text())["config"])
    marks = sorted(64 * step for step in evaluation_marks(config.method.phases(), config.evaluation.per_phase))
    assert [samples for samples, _ in points_of(swept.trial(0), "fid_digits")] == marks == list(range(64, 513, 64))


def test_sample_grids_by_step(swept: Swept) -> None:
    for number, child in enumerate(swept.children):
        names = [Path(f.path).name for f in swept.store.client.list_artifacts(child.info.run_id, "images")]
        steps = sorted(int(name.split("+")[2]) for name in names if name.endswith(".png"))
        assert steps == list(range(64, 513, 64))
        assert len(list((swept.trial(number) / "images").glob("*.png"))) == 8


def test_the_parent_has_the_summary(swept: Swept, tmp_path: Path) -> None:
    client, run_id = swept.store.client, swept.parent.info.run_id
    files = {file.path for file in client.list_artifacts(run_id)}
    assert files >= {"summary.json", "trials.json", "history.png", "importances.png", "mu_s.png", "mu_i.png"}
    assert "samples.png" in files
    for name in ("history.png", "mu_s.png", "samples.png"):
        with Image.open(client.download_artifacts(run_id, name, str(tmp_path))) as picture:
            assert np.asarray(picture.convert("L")).std() > 1  # something is drawn
    with mlflow_at(swept.store.uri):
        table = client.load_table(swept.store.experiment_id, "trials.json", run_ids=[run_id])
    assert table["method/mu_s"].tolist() == [0.5, 0.0, 0.9]
    assert table["trial"].tolist() == ["trial-0000", "trial-0001", "trial-0002"]
    assert table["distance"].tolist() == [child.data.metrics["distance"] for child in swept.children]
    summary = json.loads((swept.folder / "summary.json").read_text())
    assert [trial["distance"] for trial in summary["trials"]] == table["distance"].tolist()
    assert [row["steps"] for row in summary["reference"]] == [1024, 32, 1, 0]
    best = min(swept.children, key=lambda run: run.data.metrics["row_selection"])
    assert summary["best"] == swept.parent.data.tags["tract_ray.best_trial"] == best.info.run_name
    assert swept.parent.data.metrics["distance"] == best.data.metrics["distance"]


def test_the_best_student_is_logged(swept: Swept) -> None:
    """As files, and as a model that samples the same; no other trial's is."""
    best = min(swept.children, key=lambda run: run.data.metrics["row_selection"])
    for child in swept.children:
        artifacts = {file.path for file in swept.store.client.list_artifacts(child.info.run_id)}
        models = swept.store.client.get_run(child.info.run_id).outputs.model_outputs
        assert ("student" in artifacts, len(models)) == ((True, 1) if child is best else (False, 0))
    model_id = swept.store.client.get_run(best.info.run_id).outputs.model_outputs[0].model_id
    with mlflow_at(swept.store.uri):
        loaded = mlflow.pyfunc.load_model(f"models:/{model_id}")
    student = load_model(swept.folder / "trials" / str(best.info.run_name) / "student")
    noise = torch.cat([fixed_noise(seed, 0, 1, student.shape) for seed in (3, 4)])
    drawn = loaded.predict([{"seed": 3}, {"seed": 4}])
    np.testing.assert_allclose(drawn, student.sample(noise).float().numpy(), atol=1e-6)


def test_the_study_is_the_sweeps_memory(swept: Swept) -> None:
    study = optuna.load_study(study_name="three", storage=f"sqlite:///{swept.folder / 'study.db'}")
    assert [trial.state for trial in study.trials] == [TrialState.COMPLETE] * 3
    for number, trial in enumerate(study.trials):
        result = json.loads((swept.trial(number) / "result.json").read_text())
        assert trial.value == result["distances"][repr(result["mu_i"])] != result["distance"]
        points = points_of(swept.trial(number), "fid_digits")
        assert len(points) == 8  # four marks in each of two phases; the fifth is the rung
        assert trial.intermediate_values == {1: points[4][1]}


def test_what_a_person_reads(swept: Swept) -> None:
    """Where it runs, a line a trial, the table with the best first, and how to look at it."""
    out = swept.called.out
    assert swept.called.err == ""
    assert "\r" not in out
    assert "\x1b" not in out
    assert "up to 3 trials at once, 1 worker of 1 CPU each" in out
    assert len(re.findall(r"^trial-000\d  finished  +\d+\.\d{3}  mu_s ", out, re.M)) == 3
    table = out[out.index("smaller is better") :]
    rows = [line.split() for line in table.splitlines() if line.strip().startswith("trial-")]
    assert [float(row[-2]) for row in rows] == sorted(float(row[-2]) for row in rows)  # what they are chosen by
    assert len(rows) == 3
    assert re.findall(r"teacher, (\d+) steps?", table) == ["1024", "32", "1"]
    page = f"{swept.store.uri}/#/experiments/{swept.store.experiment_id}/runs?workflowType=machine_learning"
    assert out.rstrip().splitlines()[-1] == f"Compare the trials:  {page}"


def test_the_record_alone_tells_the_sweep(swept: Swept) -> None:
    """What notebooks read: the same rows from MLflow as from the folders."""
    with mlflow_at(swept.store.uri):
        recorded = newest_sweep("mu_search", swept.store.uri)
    assert recorded.name == "three"
    summary = json.loads((swept.folder / "summary.json").read_text())
    assert [row.distance for row in recorded.rows] == [trial["distance"] for trial in summary["trials"]]
    assert [row.changes["method.mu_s"] for row in recorded.rows] == [0.5, 0.0, 0.9]


def test_nothing_holds_the_clusters_resources(swept: Swept, cluster: RayCluster) -> None:
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    try:
        until = time.monotonic() + 20
        while (free := ray.available_resources().get("CPU")) != 4 and time.monotonic() < until:
            time.sleep(0.2)
        groups = ray.util.placement_group_table().values()
        assert free == 4
        assert {group["state"] for group in groups} <= {"REMOVED"}
    finally:
        ray.shutdown()


def test_two_workers_make_the_student_of_one(swept: Swept, cluster: RayCluster, cache: Path) -> None:
    """A trial of two Ray Train workers: the same configuration, samples and student, to rounding."""
    options = [*SMALL.split(), "--storage", swept.storage, "--ray-address", cluster.address, "--name", "two"]
    options += ["--mlflow-uri", swept.store.uri, "--trials", "1", "--workers-per-trial", "2"]
    called = call(*options, cache=cache)
    assert called.status == 0, called
    assert "up to 1 trials at once, 2 workers of 1 CPU each" in called.out
    two = swept.storage / "sweeps" / "two" / "trials" / "trial-0000"
    alone, shared = (json.loads((folder / "result.json").read_text()) for folder in (swept.trial(0), two))
    assert shared["key"] == alone["key"]
    assert shared["samples"] == alone["samples"] == 512
    assert shared["distance"] == pytest.approx(alone["distance"], rel=1e-3)
    weights, others = (load_file(folder / "student" / "model.safetensors") for folder in (swept.trial(0), two))
    start = load_file(next((cache / "teachers").glob("digits-*")) / "model.safetensors")
    assert max((weight - others[name]).abs().max() for name, weight in weights.items()) < 1e-4
    assert max((weight - start[name]).abs().max() for name, weight in weights.items()) > 1e-3
    assert [line["samples"] for line in lines_of(two)] == [line["samples"] for line in lines_of(swept.trial(0))]
    ray.init(address=cluster.address, log_to_driver=False, logging_level="ERROR")
    try:
        assert {group["state"] for group in ray.util.placement_group_table().values()} <= {"REMOVED"}
    finally:
        ray.shutdown()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--workers-per-trial", "8"], "workers-per-trial: a trial wants 8 workers of 1 CPU, which this cluster can "),
        (["--cpus-per-worker", "3"], "workers-per-trial: a trial wants 1 worker of 3 CPU, which this cluster can "),
        (["--gpus-per-worker", "1"], "gpus-per-worker: a trial wants 1 worker of 1 CPU + 1 GPU, which this cluster "),
    ],
)
def test_what_can_never_fit(
    swept: Swept, cluster: RayCluster, tmp_path: Path, cache: Path, options: list[str], message: str
) -> None:
    """At once, in one line, and without a trace."""
    where = [
        "--storage",
        tmp_path / "s",
        "--ray-address",
        cluster.address,
        "--mlflow-uri",
        f"sqlite:///{tmp_path}/m.db",
    ]
    started = time.monotonic()
    called = call(*SMALL.split(), *where, *options, cache=cache)
    assert (called.status, called.err.count("\n")) == (2, 1)
    assert called.err.startswith(f"error: {message}")
    assert "(2 nodes: 2 CPU, 0 GPU; 2 CPU, 0 GPU)" in called.err
    assert list(tmp_path.iterdir()) == []
    assert time.monotonic() - started < 20


def test_a_name_that_is_taken(swept: Swept, cache: Path) -> None:
    before = sorted(file.name for file in swept.folder.iterdir())
    called = call(*SMALL.split(), "--storage", swept.storage, "--name", "three", cache=cache)
    assert (called.status, called.out) == (2, "")
    assert called.err == "error: name: 'three' is taken; add --resume, or choose another name\n"
    assert sorted(file.name for file in swept.folder.iterdir()) == before


def test_resuming_with_other_settings(swept: Swept, cache: Path) -> None:
    options = [*SMALL.split(), "--storage", swept.storage, "--name", "three", "--resume"]
    called = call(*options, "--lr", "0.5", "--seed", "1", cache=cache)
    assert (called.status, called.out) == (2, "")
    assert called.err == (
        "error: resume: three was started with other settings: method.lr was 0.001, is 0.5; seed was 0, is 1\n"
    )


def test_resuming_what_does_not_exist(swept: Swept, cache: Path) -> None:
    called = call("--storage", swept.storage, "--name", "four", "--resume", cache=cache)
    assert (called.status, called.err) == (2, f"error: name: there is no sweep 'four' in {swept.storage / 'sweeps'}\n")
