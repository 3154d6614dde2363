"""A sweep from Python: a space that is a function, and what was found, from its files and from MLflow."""

from __future__ import annotations

import doctest
import json
from importlib import import_module
from io import StringIO
from pathlib import Path
from typing import Any

import optuna
import pytest
import ray
from services import MlflowServer, RayCluster

import tract_ray as tr

pytestmark = pytest.mark.cluster
TINY = {"network": "mlp_8x8_small", "teacher_samples": 1280, "samples": 512, "evaluation_samples": 100}


@pytest.fixture(scope="module")
def where(cluster: RayCluster, mlflow_server: MlflowServer, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    folder: Path = tmp_path_factory.mktemp("runs")
    return {"storage": folder, "ray_address": cluster.address, "mlflow_uri": mlflow_server.uri, "output": StringIO()}


@pytest.fixture(autouse=True)
def _apart() -> Any:
    yield
    ray.shutdown()


def test_the_examples(where: dict[str, Any]) -> None:
    names = {"runs": where["storage"], "tiny_sweep": {**TINY, "time_schedule": (8, 1), **where}}
    for module in ("tract_ray.sweep.start", "tract_ray.analysis.recorded_sweep"):
        result = doctest.testmod(import_module(module), extraglobs=names)
        assert (result.attempted > 0, result.failed) == (True, 0), module


def suggest(trial: optuna.Trial) -> dict[str, Any]:
    """mu_s alone."""
    return {"method.mu_s": trial.suggest_categorical("mu_s", [0.5, 0.9])}


def test_what_was_found(where: dict[str, Any]) -> None:
    """The same from the call, from the files and from MLflow; the summary's table, plots and students."""
    how: dict[str, Any] = {**TINY, "time_schedule": "8,4,1", "settings": {"clip_norm": 0.5}, "pruner": "none"}
    found = tr.sweep(suggest, anchors=({"mu_s": 0.9}, {"mu_s": 0.5}), trials=2, name="mine", **how, **where)
    assert [row.changes for row in found.rows] == [{"method.mu_s": 0.9}, {"method.mu_s": 0.5}]
    assert (found.failed, found.metric) == ([], "fid_digits")
    loaded = tr.load_sweep("mine", storage=where["storage"])
    assert loaded == found
    assert loaded.folder is not None
    summary = json.loads((loaded.folder / "summary.json").read_text())
    best = loaded.best
    assert best is not None
    assert (best.name, loaded.verdict) == (summary["best"], summary["verdict"])
    assert loaded.table()["selection"].tolist() == sorted(row["selection"] for row in summary["trials"])
    assert set(loaded.plots()) <= {file.stem for file in (loaded.folder / "plots").glob("*.png")}
    assert loaded.picture("samples").width > 100
    assert loaded.student is not None
    student = tr.load_model(loaded.student)
    assert student.distance == pytest.approx(best.distance)
    assert student.network.about["config"]["method"]["clip_norm"] == 0.5
    remote = tr.load_sweep("mine", mlflow_uri=where["mlflow_uri"])
    assert remote.table()["fid_digits"].tolist() == pytest.approx(loaded.table()["fid_digits"].tolist())
    assert remote.picture("samples").size == loaded.picture("samples").size
    with pytest.raises(tr.InputError, match="sweep: there is no sweep 'yours'"):
        tr.load_sweep("yours", storage=where["storage"])
    with pytest.raises(tr.InputError, match="name: 'mine' is taken"):
        tr.sweep("mu_search", name="mine", **where)
