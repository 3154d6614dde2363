"""A study that can be believed: a database has no checksums, so every trial carries its own.

A trial gets one when its configuration is drawn, and another when it ends: what it holds then does not change any more.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterable, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import optuna
from optuna.distributions import distribution_to_json
from optuna.trial import FrozenTrial, TrialState

from tract_ray.config import InputError, config_hash

DRAWN, ENDED = "drawn", "ended"  # user attributes of a trial
REMEDY = "restore it from a copy, or begin a sweep of another name, which finds the stages that were trained"


def seal_drawn(trial: optuna.Trial) -> None:
    """Say what the trial has drawn, and what it changes."""
    trial.set_user_attr(DRAWN, _drawn(_frozen(trial)))


def end_sealed(
    study: optuna.Study,
    trial: optuna.Trial,
    values: Sequence[float] | None = None,
    state: TrialState | None = None,
) -> None:
    """Tell the study how the trial ended, after saying all that is then kept of it."""
    trial.set_user_attr(ENDED, _ended(_frozen(trial), values))
    study.tell(trial, values, state=state)


def check_trials(trials: Iterable[FrozenTrial]) -> None:
    """Raise `ValueError` where a trial is not what was written; older ones do not say what that was."""
    for trial in trials:
        drawn, ended = (trial.user_attrs.get(name) for name in (DRAWN, ENDED))
        over = trial.state.is_finished()
        values = trial.values if trial.state == TrialState.COMPLETE else None
        if (drawn and drawn != _drawn(trial)) or (over and ended and ended != _ended(trial, values)):
            raise ValueError(f"trial {trial.number} is not what was written")


def read_study(path: Path, name: str, field: str = "storage") -> optuna.Study:
    """The study `name` in the database file `path`, after a look at all of it; nothing is written.

    Raises `InputError`, which names `field`, where it is damaged or not there.
    """
    try:
        with closing(sqlite3.connect(f"{path.absolute().as_uri()}?mode=rw", uri=True)) as database:
            ((found,), *_) = database.execute("PRAGMA integrity_check(1)").fetchall()
            tables = database.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
        if found != "ok" or not tables:
            raise ValueError(found if found != "ok" else "it is empty")
        study = optuna.load_study(study_name=name, storage=f"sqlite:///{path}")
        check_trials(study.get_trials(deepcopy=False))
    except Exception as error:  # whatever sqlite, SQLAlchemy and Optuna raise
        line = next(iter(str(error).strip().splitlines()), type(error).__name__)
        remedy = f"; {REMEDY}" if field == "storage" else ""
        raise InputError(f"{field}: {path} holds no readable study {name!r} ({line}){remedy}") from None
    return study


def _frozen(trial: optuna.Trial) -> FrozenTrial:
    return trial.study._storage.get_trial(trial._trial_id)  # no public name reads a running trial back


def _drawn(trial: FrozenTrial) -> str:
    return config_hash(_content(trial, ("changes", "anchor")))


def _ended(trial: FrozenTrial, values: Sequence[float] | None) -> str:
    attributes = sorted(trial.user_attrs.keys() - {ENDED})
    steps = {str(step): value for step, value in sorted(trial.intermediate_values.items())}
    told = [float(value) for value in values] if values is not None else None
    return config_hash([_content(trial, attributes), steps, told, trial.system_attrs])


def _content(trial: FrozenTrial, attributes: Iterable[str]) -> dict[str, Any]:
    return {
        "number": trial.number,
        "params": trial.params,
        "distributions": {name: distribution_to_json(d) for name, d in trial.distributions.items()},
        "attributes": {name: trial.user_attrs.get(name) for name in attributes},
    }
