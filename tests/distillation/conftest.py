"""Fixtures of the method tests."""

from __future__ import annotations

import pytest

from tract_ray.data import Dataset, load_dataset
from tract_ray.distillation import methods


@pytest.fixture(scope="session")
def digits() -> Dataset:
    return load_dataset("digits")


@pytest.fixture(params=sorted(methods))
def kind(request: pytest.FixtureRequest) -> str:
    """Every registered method, one after the other."""
    return str(request.param)
