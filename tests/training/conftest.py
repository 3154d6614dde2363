from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from tract_ray.training import Paths, loop, train_teacher

from runs import Killed, checkpoint_every_step, paths_at, tiny_run, without_stages  # isort: skip (beside this file)


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


@pytest.fixture
def kill_at(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], None]:
    """Die when optimiser step number `step` (from 0) is about to begin; once."""
    original = loop.make_batch

    def arrange(step: int) -> None:
        def make_batch(method: Any, dataset: Any, seed: int, now: int, worker: Any) -> Any:
            if now == step:
                monkeypatch.setattr(loop, "make_batch", original)
                raise Killed
            return original(method, dataset, seed, now, worker)

        monkeypatch.setattr(loop, "make_batch", make_batch)

    return arrange


@pytest.fixture
def every_step_is_kept() -> Iterator[None]:
    """Each step is a checkpoint that is on disk."""
    with checkpoint_every_step():
        yield
