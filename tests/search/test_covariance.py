"""CMA-ES without pickles: what a study holds is never run, and what it has learnt is what Optuna's has."""

from __future__ import annotations

import json
import pickle
import sqlite3
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import pytest
from optuna._transform import _SearchSpaceTransform
from optuna.samplers import BaseSampler, CmaEsSampler

from tract_ray.search.covariance import CovarianceSampler
from tract_ray.search.samplers import build_sampler


def valley(trial: optuna.Trial) -> float:
    rate, blocks = trial.suggest_float("rate", 1e-3, 1.0, log=True), trial.suggest_int("blocks", 1, 9)
    return float((np.log10(rate) + 1.5) ** 2 + (blocks - 4) ** 2 / 10)


class Planted:
    """Unpickled, it makes a file."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.file,)


@pytest.mark.parametrize("stock", [False, True])
def test_a_poisoned_study_runs_nothing(tmp_path: Path, stock: bool) -> None:
    """The same study that makes Optuna's own sampler run what was planted."""
    made = tmp_path / "made"

    def opened(sampler: BaseSampler) -> optuna.Study:
        storage = f"sqlite:///{tmp_path / 'study.db'}"
        return optuna.create_study(storage=storage, study_name="x", load_if_exists=True, sampler=sampler)

    study = opened(build_sampler("cmaes", seed=0))
    study.optimize(valley, n_trials=2)
    assert not any(key.startswith("cma:optimizer") for trial in study.trials for key in trial.system_attrs)
    plant(tmp_path / "study.db", study.trials[-1]._trial_id, pickle.dumps(Planted(made)).hex())
    again = opened(CmaEsSampler(seed=0) if stock else build_sampler("cmaes", seed=0))
    valley(again.ask())
    assert made.exists() == stock


def plant(path: Path, trial: int, code: str) -> None:
    """Write where Optuna's sampler looks for its state."""
    with sqlite3.connect(path) as database:
        database.execute(
            "INSERT INTO trial_system_attributes (trial_id, key, value_json) VALUES (?, ?, ?)",
            (trial, "cma:optimizer:0", json.dumps(code)),
        )


def test_it_learns_what_optunas_learns() -> None:
    """Told again from the trials, the optimiser is the one that Optuna's keeps, to rounding."""
    study = optuna.create_study(sampler=CmaEsSampler(seed=1, warn_independent_sampling=False))
    study.optimize(valley, n_trials=29)
    stock = CmaEsSampler(seed=1)
    kept = stock._restore_optimizer(study.trials)  # made in this process, in memory
    cube = _SearchSpaceTransform(stock.infer_relative_search_space(study, study.trials[-1]), transform_0_1=True)
    ours = CovarianceSampler(seed=5).optimiser(study.trials, cube)
    assert ours.generation == kept.generation >= 4
    np.testing.assert_allclose(ours.mean, kept.mean, rtol=1e-9)
    np.testing.assert_allclose(ours._sigma * ours._C, kept._sigma * kept._C, rtol=1e-9)
    assert np.abs(ours.mean - 0.5).max() > 0.05


def test_a_late_end_changes_nothing_that_was_told() -> None:
    """A trial that ends after its generation was full, whatever its number, and one that fails."""
    study = optuna.create_study(sampler=build_sampler("cmaes", seed=2))
    late, failed = study.ask(), study.ask()
    values = {late.number: valley(late)}
    valley(failed)
    study.tell(failed, state=optuna.trial.TrialState.FAIL)
    study.optimize(valley, n_trials=14)
    sampler = CovarianceSampler(seed=0)
    cube = _SearchSpaceTransform(sampler.infer_relative_search_space(study, study.trials[-1]), transform_0_1=True)

    def mean() -> np.ndarray:
        told = study.get_trials(states=(optuna.trial.TrialState.COMPLETE,))
        return sampler.optimiser(told, cube).mean

    before = mean()
    study.tell(late, values[late.number])
    np.testing.assert_array_equal(mean(), before)
