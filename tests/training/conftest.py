from __future__ import annotations

from pathlib import Path

import pytest

from tract_ray.training import Paths, train_teacher

from runs import paths_at, tiny_run, without_stages  # isort: skip (beside this file)


@pytest.fixture(scope="module", autouse=True)
def features(short_classifier: None) -> None:
    """No test here needs good ones."""


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """A cache with the tiny teacher in it."""
    folder: Path = tmp_path_factory.mktemp("storage")
    train_teacher(tiny_run().teacher, paths_at(folder))
    return paths_at(folder)


@pytest.fixture
def paths(trained: Paths, tmp_path_factory: pytest.TempPathFactory) -> Paths:
    """The same teacher in a cache without any stage: nothing that another test has trained is found."""
    return without_stages(trained, tmp_path_factory.mktemp("paths"))
