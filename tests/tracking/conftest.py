from __future__ import annotations

import pytest

from tract_ray.tracking import MlflowStore


@pytest.fixture(scope="session")
def store(tmp_path_factory: pytest.TempPathFactory) -> MlflowStore:
    """A record in a database file; made once, its tables take seconds."""
    return MlflowStore(f"sqlite:///{tmp_path_factory.mktemp('record') / 'new' / 'mlflow.db'}", "mu_search")
