"""The MLflow record, in a real database: runs are found again, lines arrive once, a logged student samples the same."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from records import expected, history, pictures, write_lines
from services import mlflow_at

from tract_ray.config import InputError
from tract_ray.diffusion import CosineVP, Denoiser
from tract_ray.evaluation import fixed_noise
from tract_ray.networks import build_network
from tract_ray.tracking import MlflowStore, check_reachable, provenance, tracking_uri, ui_command
from tract_ray.tracking.provenance import git_commit, source_hash
from tract_ray.training import Model, NetworkConfig, load_model

pytestmark = pytest.mark.cluster


def test_runs_are_found_again(store: MlflowStore) -> None:
    """By a driver that started anew: another client, the same run ids, one run each."""
    params = {"method.mu_s": 0.5, "config_hash": "abc", "method.time_schedule": "1024,32,1"}
    parent = store.sweep_run("again", {"seed": 3}, "Which mu?")
    child = store.trial_run("again", "trial-0000", parent, params)
    store.close(child)
    other = MlflowStore(store.uri, "mu_search")
    assert other.experiment_id == store.experiment_id
    assert other.sweep_run("again", {"seed": 3}, "Which mu?") == parent
    assert other.trial_run("again", "trial-0000", parent, params) == child
    assert other.trial_run("again", "trial-0001", parent, params) != child
    assert other.trial_run("another", "trial-0000", None, params) != child
    run = other.client.get_run(child)
    assert run.data.params == {"method.mu_s": "0.5", "config_hash": "abc", "method.time_schedule": "1024,32,1"}
    assert run.data.tags["mlflow.parentRunId"] == parent
    assert run.info.run_name == "trial-0000"
    assert run.info.status == "RUNNING"
    tags = other.client.get_run(parent).data.tags
    assert tags["mlflow.note.content"] == "Which mu?"
    assert Path(tags["mlflow.source.name"]).name == Path(sys.argv[0]).name


def test_sweeps_of_one_name_are_two(store: MlflowStore) -> None:
    """Begun in two storages, on one server: two parents, each with its own trials, points and parameters."""
    parents = [store.sweep_run("twins", {"seed": seed}, "", identity) for seed, identity in enumerate(("a1", "b2"))]
    old = store.sweep_run("twins", {"seed": 2})  # of a version without identities
    assert len({*parents, old}) == 3
    for seed, parent in enumerate([*parents, old]):
        child = store.trial_run("twins", "trial-0000", parent, {"seed": seed})
        store.log_values(child, {"distance": float(seed)})
    again = MlflowStore(store.uri, "mu_search")
    assert [again.sweep_run("twins", {}, "", identity) for identity in ("a1", "b2", "")] == [*parents, old]
    for seed, parent in enumerate([*parents, old]):
        children = again.trial_runs(parent)
        assert list(children) == ["trial-0000"]
        assert again.trial_run("twins", "trial-0000", parent, {}) == children["trial-0000"]
        assert again.client.get_run(parent).data.params == {"seed": str(seed)}
        assert history(again.client, children["trial-0000"], "distance") == [(0, float(seed))]


def test_a_run_whose_parameters_did_not_arrive_gets_them(store: MlflowStore) -> None:
    """Its driver died between making it and describing it."""
    child = store.trial_run("half", "trial-0000", None, {"seed": 1})
    assert store.trial_run("half", "trial-0000", None, {"seed": 1, "batch": 64}) == child
    assert store.client.get_run(child).data.params == {"seed": "1", "batch": "64"}


def test_more_parameters_than_a_call_takes(store: MlflowStore) -> None:
    params = {f"p{n}": n for n in range(250)} | {"long": "x" * 10_000}
    run_id = store.trial_run("many", "trial-0000", None, params)
    found = store.client.get_run(run_id).data.params
    assert len(found) == 251
    assert found["p249"] == "249"
    assert found["long"] == "x" * 6000


def test_lines_by_samples_seen(store: MlflowStore, tmp_path: Path) -> None:
    """Metrics against images seen, pictures by step; the same lines again change nothing."""
    write_lines(tmp_path, 0, 3)
    lines = [json.loads(line) for line in (tmp_path / "record.jsonl").read_text().splitlines()]
    run_id = store.trial_run("lines", "trial-0000", None, {})
    for _ in range(2):
        store.log_lines(run_id, lines, tmp_path)
        for key in ("loss", "fid_digits", "fid_digits/mu_i_0.5"):
            assert history(store.client, run_id, key) == expected(key, 3)
        assert pictures(store.client, run_id) == [("samples", 0), ("samples", 64), ("samples", 128)]
    assert store.client.get_run(run_id).data.tags["mlflow.loggedImages"] == "True"


def test_a_batch_larger_than_a_call_takes(store: MlflowStore, tmp_path: Path) -> None:
    lines = [{"samples": n, "time": 1e9 + n, "metrics": {"loss": float(n)}} for n in range(1200)]
    run_id = store.trial_run("long", "trial-0000", None, {})
    store.log_lines(run_id, lines, tmp_path)
    assert history(store.client, run_id, "loss") == [(n, float(n)) for n in range(1200)]


def test_the_latest_value_is_the_one_shown(store: MlflowStore) -> None:
    """A resumed sweep found a better student: its smaller distance replaces the larger one."""
    run_id = store.sweep_run("latest", {})
    store.log_values(run_id, {"distance": 5.0})
    time.sleep(0.002)
    store.log_values(run_id, {"distance": 4.0}, {"best": "trial-0001"})
    run = store.client.get_run(run_id)
    assert (run.data.metrics["distance"], run.data.tags["best"]) == (4.0, "trial-0001")


def test_a_table_replaces_the_one_before(store: MlflowStore) -> None:
    run_id = store.sweep_run("table", {})
    store.log_table(run_id, [{"trial": "a", "distance": 1.0}], "trials.json")
    store.log_table(run_id, [{"trial": "a", "distance": 1.0}, {"trial": "b", "mu_s": 0.5}], "trials.json")
    with mlflow_at(store.uri):
        table = store.client.load_table(store.experiment_id, "trials.json", run_ids=[run_id])
    assert list(table.columns) == ["trial", "distance", "mu_s"]
    assert table["trial"].tolist() == ["a", "b"]


def test_a_logged_student_samples_the_same_pixels(store: MlflowStore, tmp_path: Path) -> None:
    network = build_network("mlp_8x8_small", seed=1).eval()
    with torch.no_grad():  # a new network answers zero
        for weight in network.parameters():
            weight.normal_(0, 0.1)
    model = Model(
        denoiser=Denoiser(network, CosineVP(), "v"),
        network=NetworkConfig(name="mlp_8x8_small"),
        shape=(1, 8, 8),
        steps=1,
        times=[0.0, 1.0],
        dataset="digits",
    )
    model.save(tmp_path / "student")
    run_id = store.trial_run("student", "trial-0000", None, {})
    for _ in range(2):  # a resumed sweep publishes its best student again
        store.log_student(run_id, tmp_path / "student")
    logged = store.client.get_run(run_id).outputs.model_outputs
    assert len(logged) == 1
    with mlflow_at(store.uri):
        loaded = mlflow.pyfunc.load_model(f"models:/{logged[0].model_id}")
        files = mlflow.artifacts.download_artifacts(f"models:/{logged[0].model_id}")
    images = loaded.predict([{"seed": 0}, {"seed": 7}])
    noise = torch.cat([fixed_noise(seed, 0, 1, (1, 8, 8)) for seed in (0, 7)])
    expected = load_model(tmp_path / "student").sample(noise).float().numpy()
    np.testing.assert_allclose(images, expected, atol=1e-6)  # each request is a batch of its own
    assert np.abs(images[0] - images[1]).max() > 0.1
    names = [file.name for file in Path(files).rglob("*")]
    assert "model.safetensors" in names
    assert not [name for name in names if name.endswith((".pkl", ".pickle", ".pt", ".pth"))]


def test_a_new_database_belongs_to_its_folder(store: MlflowStore) -> None:
    """Artifacts lie beside the file, wherever the driver runs."""
    folder = Path(store.uri.removeprefix("sqlite:///")).parent
    location = store.client.get_experiment(store.experiment_id).artifact_location
    assert Path(location.removeprefix("file://")) == folder / "mlartifacts" / "mu_search"


def test_the_default_is_a_file_of_the_project(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    assert tracking_uri(None, tmp_path) == f"sqlite:///{tmp_path}/mlflow.db"
    assert tracking_uri("sqlite:///own.db", tmp_path) == f"sqlite:///{tmp_path}/own.db"
    assert tracking_uri("sqlite:////data/own.db", tmp_path) == "sqlite:////data/own.db"
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://127.0.0.1:5000")
    assert tracking_uri(None, tmp_path) == "http://127.0.0.1:5000"
    assert tracking_uri("sqlite:////own.db", tmp_path) == "sqlite:////own.db"
    assert ui_command("http://127.0.0.1:5000") == "http://127.0.0.1:5000"
    page = "http://127.0.0.1:5000/#/experiments/7/runs?workflowType=machine_learning"
    assert ui_command("http://127.0.0.1:5000/", "7") == page
    assert ui_command("sqlite:///own.db", "7").endswith(f"--backend-store-uri sqlite:///own.db  # and open {page}")
    assert ui_command("sqlite:////my data/own.db").endswith(
        "mlflow ui --host 127.0.0.1 --backend-store-uri 'sqlite:////my data/own.db'"
    )


@pytest.mark.parametrize(
    ("uri", "message"),
    [
        ("http://127.0.0.1:9", "mlflow-uri: nothing answers at http://127.0.0.1:9 "),
        ("http://no.such.host.invalid:5000", "mlflow-uri: nothing answers at http://no.such.host.invalid:5000 "),
        ("mlruns", "mlflow-uri: 'mlruns' is no server address and no database "),
        ("file:///tmp/mlruns", "mlflow-uri: 'file:///tmp/mlruns' is no server address and no database "),
        ("sqlite:////dev/null/mlflow.db", "mlflow-uri: /dev/null is not a writable folder"),
    ],
)
def test_what_cannot_be_a_record(uri: str, message: str) -> None:
    """One line, within seconds."""
    started = time.monotonic()
    with pytest.raises(InputError) as caught:
        check_reachable(uri)
    assert str(caught.value).startswith(message)
    assert "\n" not in str(caught.value)
    assert time.monotonic() - started < 8


def test_a_file_that_is_no_database(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_text("no database at all, but a text of some length")
    with pytest.raises(InputError, match=r"^mlflow-uri: .* does not work \(.*\)$"):
        MlflowStore(f"sqlite:///{tmp_path / 'mlflow.db'}", "mu_search")


def test_provenance_names_the_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    found = provenance()
    assert torch.__version__.startswith(found["version.torch"])
    assert found["source_hash"] == source_hash()
    assert git_commit(tmp_path) == "unknown"
    monkeypatch.setenv("TRACT_RAY_COMMIT", "abc123")
    assert git_commit(tmp_path) == provenance()["git_commit"] == "abc123"
