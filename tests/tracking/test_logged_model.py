"""A logged student brings its code: it is loaded where this package is not, and draws what `tract-ray sample` draws."""

from __future__ import annotations

import base64
import io
import os
import subprocess
import sys
from pathlib import Path

import mlflow
import numpy as np
import pytest
import torch
from PIL import Image
from services import mlflow_at

from tract_ray.data.dataset import to_uint8
from tract_ray.diffusion import CosineVP, Denoiser
from tract_ray.evaluation import fixed_noise
from tract_ray.networks import build_network
from tract_ray.tracking import MlflowStore
from tract_ray.tracking.logged_model import pinned_requirements
from tract_ray.training import Model, NetworkConfig

ELSEWHERE = """
import importlib.util, sys
sys.path = [p for p in sys.path if p not in ("", sys.argv[3])]
sys.meta_path = [f for f in sys.meta_path if "editable" not in repr(f).lower()]
assert importlib.util.find_spec("tract_ray") is None, "tract_ray is still here"
import mlflow, numpy
model = mlflow.pyfunc.load_model(sys.argv[1])
numpy.save(sys.argv[2], model.predict([{"seed": 3, "count": 4, "label": 1}]))
import tract_ray
assert sys.argv[1] in tract_ray.__file__, tract_ray.__file__
"""


@pytest.fixture(scope="module")
def student() -> Model:
    network = build_network("mlp_8x8_small", num_classes=3, seed=1).eval()
    with torch.no_grad():  # a new network answers zero
        for weight in network.parameters():
            weight.normal_(0, 0.1)
    denoiser, config = Denoiser(network, CosineVP(), "v"), NetworkConfig(name="mlp_8x8_small")
    return Model(denoiser, config, (1, 8, 8), 1, 3, [0.0, 1.0], dataset="digits")


def test_it_is_loaded_where_the_package_is_not(store: MlflowStore, student: Model, tmp_path: Path) -> None:
    student.save(tmp_path / "student")
    run_id = store.trial_run("served", "trial-0000", None, {})
    store.log_student(run_id, tmp_path / "student")
    with mlflow_at(store.uri):
        folder = mlflow.artifacts.download_artifacts(f"models:/{store.experiment}@best", dst_path=str(tmp_path / "got"))
        here = mlflow.pyfunc.load_model(f"models:/{store.experiment}@best")
    requirements = (Path(folder) / "requirements.txt").read_text().split()
    assert f"torch=={torch.__version__.partition('+')[0]}" in requirements
    assert not [line for line in requirements if "tract" in line or "==" not in line]

    root = str(Path(__file__).parents[2])
    clean = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    program = [sys.executable, "-c", ELSEWHERE, str(Path(folder).absolute()), str(tmp_path / "drawn.npy"), root]
    done = subprocess.run(program, cwd=tmp_path, env=clean, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-2000:]
    expected = student.sample(fixed_noise(3, 0, 4, (1, 8, 8)), torch.ones(4, dtype=torch.int64)).float()
    np.testing.assert_allclose(np.load(tmp_path / "drawn.npy"), expected.numpy(), atol=1e-6)

    pictures = here.predict([{"seed": 3, "count": 4, "label": 1}], params={"format": "png"})
    pixels = [np.asarray(Image.open(io.BytesIO(base64.b64decode(text))))[..., 0] for text in pictures]
    np.testing.assert_array_equal(np.stack(pixels), to_uint8(expected)[:, 0].numpy())
    assert len(here.predict([{"seed": 1}, {"seed": 2}])) == 2
    for bad in ({"seed": 1, "label": 3}, {"seed": 1, "count": 5000}, {"seed": 1, "steps": 8}, {"count": 1}):
        with pytest.raises(Exception, match=r"label|count|distilled for 1|seed"):
            here.predict([bad])


def test_requirements_are_pinned() -> None:
    lines = pinned_requirements()
    names = [line.partition("==")[0] for line in lines]
    assert {"mlflow", "torch", "numpy", "safetensors", "pillow"} <= set(names)
    assert all(line.count("==") == 1 and "+" not in line for line in lines)
