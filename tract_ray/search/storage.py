"""Optuna's storage in a file, on a disk that may be full."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial, wraps
from pathlib import Path
from typing import Any

import optuna

from tract_ray.disk import with_room

WRITES = (
    "create_new_study",
    "create_new_trial",
    "set_study_system_attr",
    "set_study_user_attr",
    "set_trial_intermediate_value",
    "set_trial_param",
    "set_trial_state_values",
    "set_trial_system_attr",
    "set_trial_user_attr",
)


class FileStorage(optuna.storages.RDBStorage):  # type: ignore[misc]
    """A study in the SQLite file `path`. A call that writes is one transaction, repeated until there is room for it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with_room(path, partial(super().__init__, f"sqlite:///{path}"))


def _patient(write: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(write)
    def call(self: FileStorage, *args: Any, **kwargs: Any) -> Any:
        return with_room(self.path, lambda: write(self, *args, **kwargs))

    return call


for _name in WRITES:
    setattr(FileStorage, _name, _patient(getattr(FileStorage, _name)))
