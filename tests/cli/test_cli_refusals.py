"""What the command line says of bad input: one line, before anything is trained or written."""

from __future__ import annotations

import dataclasses
import re
import socket
from pathlib import Path

import pytest
import torch
from commands import Called, call_script, content, tract_ray
from safetensors.torch import save
from services import ROOT, free_ports

from tract_ray.diffusion import CosineVP, Denoiser
from tract_ray.evaluation import classifier
from tract_ray.networks import build_network
from tract_ray.training import Model, NetworkConfig

SWEEP = ROOT / "sweeps" / "mu_search.py"


@pytest.fixture(scope="module")
def model_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A teacher that was never trained."""
    network = build_network("mlp_8x8_small", (1, 8, 8), seed=0).eval().requires_grad_(False)
    model = Model(Denoiser(network, CosineVP(), "v"), NetworkConfig(name="mlp_8x8_small"), (1, 8, 8), 1024)
    model.dataset = "digits"
    folder: Path = tmp_path_factory.mktemp("models") / "teacher"
    return model.save(folder)


@pytest.fixture
def place(tmp_path: Path, model_folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A current folder with a good teacher, and with damaged ones."""
    config, weights = ((model_folder / name).read_bytes() for name in ("config.json", "model.safetensors"))
    undigested = re.sub(rb',\s*"digest": "\w+"', b"", config)  # as a person would write it
    damaged = {
        "no-config": (None, weights),
        "cut-config": (config[:40], weights),
        "odd-config": (b'{"format": 1}', weights),
        "no-weights": (config, None),
        "cut-weights": (config, weights[:1000]),
        "one-step": (undigested.replace(b'"times": null', b'"times": [0.0, 1.0]').replace(b"1024", b"1"), weights),
        "other-weights": (undigested.replace(b"mlp_8x8_small", b"mlp_8x8"), weights),
    }
    for name, files in {"good": (config, weights), **damaged}.items():
        (tmp_path / name).mkdir()
        for file, data in zip(("config.json", "model.safetensors"), files, strict=True):
            if data is not None:
                (tmp_path / name / file).write_bytes(data)
    monkeypatch.chdir(tmp_path)
    return tmp_path


def assert_refused(called: Called, message: str, place: Path, before: dict[str, bytes | None]) -> None:
    assert (called.status, called.out, called.err.count("\n")) == (2, "", 1), called
    assert called.err.startswith("error: ")
    assert re.search(message, called.err), called.err
    assert content(place) == before


BAD = [
    ("--time-schedule 1024,30,1", "^error: time_schedule: .*30 does not divide 1024"),
    ("--time-schedule 1,32", "^error: time_schedule: must not grow"),
    ("--time-schedule 32,1,0", "^error: time_schedule: must not grow, nor end below 1"),
    ("--time-schedule 32", "^error: time_schedule: .* at least two numbers"),
    ("--time-schedule 32,one", "^error: time_schedule: '32,one' is not a list of"),
    ("--dataset digit", "^error: dataset: unknown 'digit'; did you mean 'digits'"),
    ("--dataset folder:nowhere@8 --network unet_8x8", "^error: dataset: /.*nowhere does not exist"),
    ("--dataset folder:good", "^error: dataset: 'folder:good' is not folder:PATH@SIZE"),
    ("--network unet_8", "^error: network: unknown 'unet_8'; did you mean 'unet_8x8'"),
    ("--teacher missing", "^error: teacher: .*missing is not a model folder"),
    ("--teacher no-config", "^error: teacher: .*no-config/config.json does not exist"),
    ("--teacher cut-config", "^error: teacher: .*cut-config/config.json is damaged"),
    ("--teacher odd-config", "^error: teacher: .*odd-config: config.json: network is missing"),
    ("--teacher no-weights", "^error: teacher: .*no-weights/model.safetensors does not exist"),
    ("--teacher cut-weights", "^error: teacher: .*cut-weights/model.safetensors is damaged"),
    ("--teacher other-weights", "^error: teacher: .*other-weights: weights: not those of mlp_8x8 "),
    (
        "--teacher one-step",
        r"^error: teacher: is a student of 1 step\(s\) and can teach a schedule that begins with 1 ",
    ),
    ("--samples 0", "^error: samples: must be a positive"),
    ("--samples many", "^error: samples: 'many' is not a count"),
    ("--samples 64 --batch 64", "^error: samples: 1 optimiser steps are too few for 2 phases"),
    ("--batch 0", "^error: batch: "),
    ("--lr 0", "^error: lr: "),
    ("--teacher-samples -1", "^error: teacher-samples: "),
    ("--evaluation-samples 1", "^error: evaluation samples: "),
    ("--features inception", "^error: features: unknown 'inception'"),
    ("--features inception_clean", "^error: features: Inception's weights are not on this machine"),
    ("--storage good/config.json/runs", "^error: storage: .*config.json is not a writable folder"),
]
DISTILL = [
    ("--mu-s 1", r"^error: mu_s: must be in \[0, 1\)"),
    ("--mu-s -0.1", r"^error: mu_s: must be in \[0, 1\)"),
    ("--mu-i 1", r"^error: mu_i: must be in \[0, 1\)"),
    ("--mu-i-bank 0,1.5", r"^error: mu_i_bank: every value must be in \[0, 1\)"),
    ("--mu-i-bank 0,x", "^error: mu_i_bank: '0,x' is not a list of numbers"),
    ("--set mu_s=1", r"^error: mu_s: must be in \[0, 1\)"),
    ("--set mu_t=0.5", "^error: method setting: unknown 'mu_t'; did you mean 'mu_s'"),
    ("--set mu_s", "^error: set: 'mu_s' is not NAME=VALUE"),
    ("--method trac", "^error: method: unknown 'trac'; did you mean 'tract'"),
    ("--method denoising", "^error: method: denoising trains teachers"),
    ("--method progressive --mu-s 0.5", "^error: method setting: unknown 'mu_s'"),
    ("--method progressive --time-schedule 8,8,1", "^error: method setting: unknown 'time_schedule'"),
    ("--student unet_8", "^error: network: unknown 'unet_8'"),
    ("--students unet_8,-", "^error: network: unknown 'unet_8'"),
    ("--students unet_8x8", r"^error: students: 2 phase\(s\) need 2 of them, got 1"),
    ("--students unet_8x8,- --student unet_8x8", "^error: students: say what student says"),
    ("--teacher one-step --method moment_matching", "^error: teacher: moment_matching asks its teacher at every time"),
    ("--teacher one-step --method regression", "^error: teacher: is a student of 1 step"),
    ("--student-from missing", "^error: student_from: /.*missing is not a model folder"),
    ("--student-from cut-weights", "^error: student_from: /.*cut-weights/model.safetensors is damaged"),
    ("--device gpu", "^error: device: 'gpu' does not work here"),
    ("--threads -1", "^error: threads: must be positive"),
]
SEARCH = [
    ("--trials 0", "^error: trials: must be at least 1"),
    ("--concurrency -1", "^error: concurrency: must not be negative"),
    ("--workers-per-trial 0", "^error: workers-per-trial: must be at least 1"),
    ("--workers-per-trial 3", "^error: workers-per-trial: a batch of 64 does not divide among 3"),
    ("--cpus-per-worker 0", "^error: cpus-per-worker: must be at least 1"),
    ("--gpus-per-worker -1", "^error: gpus-per-worker: must not be negative"),
    ("--name a/b", "^error: name: 'a/b' has more than letters"),
    ("--name gone --resume", "^error: name: there is no sweep 'gone'"),
    ("--resume", "^error: resume: there is no mu_search sweep"),
    ("--mlflow-uri http://127.0.0.1:{port}", "^error: mlflow-uri: nothing answers at http://127.0.0.1:"),
    ("--mlflow-uri http://nowhere.invalid", "^error: mlflow-uri: nothing answers at http://nowhere.invalid"),
    ("--mlflow-uri ftp://127.0.0.1", "^error: mlflow-uri: .* is no server address and no database"),
    ("--mlflow-uri runs", "^error: mlflow-uri: .* is no server address and no database"),
    ("--mlflow-uri sqlite:///good/config.json/m.db", "^error: mlflow-uri: .*config.json is not a writable folder"),
    ("--ray-address 127.0.0.1:{port}", "^error: ray-address: nothing answers at 127.0.0.1:"),
    ("--ray-address nowhere.invalid", "^error: ray-address: nothing answers at nowhere.invalid"),
    ("--ray-address ray://127.0.0.1:10001", "^error: ray-address: .* is not HOST:PORT"),
]


@pytest.mark.parametrize(("options", "message"), [*BAD, *DISTILL])
def test_distill_refuses(place: Path, options: str, message: str) -> None:
    before = content(place)
    assert_refused(tract_ray("distill", "--storage", place / "runs", *options.split()), message, place, before)


@pytest.mark.parametrize(("options", "message"), [*BAD, *SEARCH])
def test_a_sweep_refuses(place: Path, options: str, message: str) -> None:
    before, port = content(place), free_ports(1)[0]
    called = call_script(SWEEP, "--storage", place / "runs", *options.format(port=port).split())
    assert_refused(called, message, place, before)


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("--mlflow-uri http://", "^error: mlflow-uri: nothing answers at"),
        ("--mlflow-uri postgresql://ann@", "^error: mlflow-uri: nothing answers at"),
        ("--ray-address ", "^error: ray-address: nothing answers at"),
    ],
)
def test_a_server_that_is_silent(place: Path, monkeypatch: pytest.MonkeyPatch, option: str, message: str) -> None:
    """It accepts, and says nothing: MLflow and Ray would wait for minutes."""
    before = content(place)
    monkeypatch.setattr("tract_ray.network.SECONDS", 0.3)
    with socket.create_server(("127.0.0.1", 0)) as silent:
        where = f"{option}127.0.0.1:{silent.getsockname()[1]}"
        called = call_script(SWEEP, "--storage", place / "runs", *where.split())
    assert_refused(called, message, place, before)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("MLFLOW_TRACKING_URI", "^error: mlflow-uri: nothing answers at"),
        ("RAY_ADDRESS", "^error: ray-address: nothing"),
    ],
)
def test_an_address_of_the_environment(place: Path, name: str, message: str) -> None:
    before, address = content(place), f"127.0.0.1:{free_ports(1)[0]}"
    uri = f"http://{address}" if name.startswith("MLFLOW") else address
    assert_refused(call_script(SWEEP, "--storage", place / "runs", env={name: uri}), message, place, before)


@pytest.mark.cluster
def test_resources_that_no_node_has(place: Path) -> None:
    import ray

    before = content(place)
    try:
        options = ["--cpus-per-worker", "5000", "--ray-address", "local"]
        called = call_script(SWEEP, "--storage", place / "runs", *options)
    finally:
        ray.shutdown()
    assert called.out.count("\n") == 1  # the sweep's question
    called = dataclasses.replace(called, out="")
    assert_refused(called, "^error: workers-per-trial: a trial wants 1 worker of 5000 CPU, which", place, before)


@pytest.mark.parametrize("command", ["sample", "evaluate"])
@pytest.mark.parametrize(
    ("model", "message"),
    [
        ("missing", "^error: checkpoint: missing is not a model folder"),
        ("cut-config", "^error: checkpoint: cut-config/config.json is damaged"),
        ("cut-weights", "^error: checkpoint: cut-weights/model.safetensors is damaged"),
        ("good --steps 0", "^error: steps: must be at least 1"),
    ],
)
def test_a_model_folder_is_refused(place: Path, command: str, model: str, message: str) -> None:
    before = content(place)
    assert_refused(tract_ray(command, *model.split()), message, place, before)


@pytest.mark.parametrize("damaged", [b"half a check", save({"a": torch.zeros(1)})])
def test_a_damaged_run_begins_again(place: Path, monkeypatch: pytest.MonkeyPatch, damaged: bytes) -> None:
    """What was damaged is kept: whoever wants it gone removes it."""
    monkeypatch.setitem(classifier.RECIPE, "steps", 20)
    options = ["--teacher", "good", "--time-schedule", "8,4,1", "--samples", "512", "--out", "run", "--storage", "runs"]
    (place / "run").mkdir()
    (place / "run" / "checkpoint.safetensors").write_bytes(damaged)
    called = tract_ray("distill", *options, "--evaluation-samples", "100")
    assert called.status == 0
    assert re.fullmatch(r"checkpoint: .*run/checkpoint.safetensors is damaged .* trained again\n", called.err)
    (aside,) = (place / "run").glob("*.damaged")
    assert aside.read_bytes() == damaged
