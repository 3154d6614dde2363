"""The examples of the Python API's docstrings do what they say."""

from __future__ import annotations

import doctest
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest

import tract_ray as tr
from tract_ray.sweep import start

pytestmark = pytest.mark.usefixtures("short_classifier")
MODULES = ("tract_ray", "tract_ray.api.model", "tract_ray.api.runs")


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What the examples take for granted: a place for runs, and sizes at which nothing takes long."""
    runs = str(tmp_path_factory.mktemp("runs"))
    teacher = {"network": "mlp_8x8_small", "storage": runs, "progress": False, "device": "cpu"}
    short = {"samples": 512, "teacher_samples": 1280, "evaluation_samples": 100, "rung_samples": 60}
    return {"runs": runs, "tiny_teacher": {"samples": 1280, **teacher}, "tiny": {**short, **teacher}}


@pytest.mark.parametrize("module", MODULES)
def test_examples(module: str, names: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = doctest.testmod(import_module(module), extraglobs=names)
    assert result.attempted > 0
    assert result.failed == 0


def test_every_function_has_an_example() -> None:
    for name in tr.__all__:
        value = start.sweep if name == "sweep" else getattr(tr, name)
        if callable(value) and not isinstance(value, type):
            assert ">>> " in (value.__doc__ or ""), name
