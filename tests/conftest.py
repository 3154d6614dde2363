"""Nothing that the tests start reports home, and every number is computed on one thread."""

from __future__ import annotations

import os
import shutil
import tempfile
import uuid
from collections.abc import Iterator
from typing import TYPE_CHECKING

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
os.environ["MLFLOW_DISABLE_TELEMETRY"] = "true"
os.environ["DO_NOT_TRACK"] = "true"
os.environ.setdefault("OMP_NUM_THREADS", "1")
# Ray's clusters ask for a token: one of our own, so that none is written into a home folder.
os.environ["RAY_AUTH_MODE"] = "token"
os.environ["RAY_AUTH_TOKEN"] = uuid.uuid4().hex
# Set for every process that pytest starts, by its readline; no person's terminal is meant.
os.environ.pop("COLUMNS", None)
os.environ.pop("RAY_ADDRESS", None)
os.environ.pop("MLFLOW_TRACKING_URI", None)
os.environ.pop("TRACT_RAY_HOME", None)
os.environ.pop("TRACT_RAY_CACHE", None)
os.environ["TRACT_RAY_DATA_CACHE"] = tempfile.mkdtemp(prefix="tract-ray-decoded-")

import pytest
import torch

if TYPE_CHECKING:
    from services import MlflowServer

torch.set_num_threads(1)
pytest_plugins = ["clusters"]


def pytest_unconfigure() -> None:
    """Remove the images that the tests decoded."""
    shutil.rmtree(os.environ["TRACT_RAY_DATA_CACHE"], ignore_errors=True)


@pytest.fixture(scope="session")
def mlflow_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MlflowServer]:
    """One server for all tests that need one: it starts in some ten seconds."""
    from services import MlflowServer

    server = MlflowServer(tmp_path_factory.mktemp("mlflow")).start()
    yield server
    server.kill()


@pytest.fixture(scope="module")
def short_classifier() -> Iterator[None]:
    """A classifier of 20 steps: its features need not be good, only the same ones every time."""
    from tract_ray.evaluation import classifier

    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(classifier.RECIPE, "steps", 20)
        yield
