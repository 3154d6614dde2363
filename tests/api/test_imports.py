"""`import tract_ray` costs next to nothing: what is heavy comes with the first use."""

from __future__ import annotations

import subprocess
import sys

import pytest

import tract_ray as tr

HEAVY = {"torch", "numpy", "ray", "mlflow", "optuna", "pandas", "matplotlib", "typer"}


def said(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.strip()


def test_the_import_is_light() -> None:
    code = f"import sys, tract_ray; print(sorted({HEAVY!r} & set(sys.modules)), dir(tract_ray).count('distill'))"
    assert said(code) == "[] 1"


def test_one_run_needs_only_the_core() -> None:
    """On a machine with torch and without the cluster's packages."""
    code = "import sys; sys.modules.update(dict.fromkeys(('ray', 'mlflow', 'optuna')))\nimport tract_ray as tr\n"
    assert said(code + "print(tr.distill.__module__, tr.load_model.__name__)") == "tract_ray.api.runs load_model"


def test_names_are_those_of_the_list() -> None:
    assert {name for name in dir(tr) if not name.startswith("_")} >= set(tr.__all__) - {"__version__"}
    for name in tr.__all__:
        assert getattr(tr, name) is not None
    with pytest.raises(AttributeError, match="no attribute 'destill'"):
        tr.destill  # noqa: B018
