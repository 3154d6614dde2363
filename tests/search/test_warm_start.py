"""Trials of earlier sweeps in a new one's study, from files as sweeps leave them."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.trial import TrialState

from tract_ray.config import InputError
from tract_ray.search.samplers import build_sampler
from tract_ray.search.space import Suggest
from tract_ray.search.study import MEASURED
from tract_ray.search.warm_start import NUMBER, WARM_START, own_trials, warm_start


def suggest(trial: optuna.Trial) -> dict[str, Any]:
    """A conditional space: mu_s belongs to one method alone."""
    drawn: dict[str, Any] = {"rate": trial.suggest_float("rate", 1e-3, 1.0, log=True)}
    if trial.suggest_categorical("method", ["tract", "progressive"]) == "tract":
        drawn["mu_s"] = trial.suggest_float("mu_s", 0, 0.99)
    return drawn


def open_study(path: Path, name: str, objectives: int = 1, seed: int = 0) -> optuna.Study:
    return optuna.create_study(
        storage=f"sqlite:///{path}",
        study_name=name,
        load_if_exists=True,
        directions=["minimize"] * objectives,
        sampler=build_sampler("tpe", seed=seed, startup=3),
    )


def sweep(folder: Path, name: str, count: int = 6, space: Suggest = suggest) -> tuple[Path, str]:
    """`count` finished trials, one that failed, one that was stopped early and one that still runs."""
    path = folder / f"{name}.db"
    study = open_study(path, name)
    for k in range(count + 3):
        trial = study.ask()
        rate = space(trial)["rate"]
        trial.report(99.0, 1)
        if k < count:
            study.tell(trial, math.log10(rate / 0.03) ** 2)
        elif k < count + 2:
            study.tell(trial, state=(TrialState.FAIL, TrialState.PRUNED)[k - count])
    return path, name


def test_finished_trials_come_over(tmp_path: Path) -> None:
    first, second = sweep(tmp_path, "first"), sweep(tmp_path, "second", 4)
    study = open_study(tmp_path / "new.db", "new")
    study.enqueue_trial({"rate": 0.5, "method": "progressive"})
    assert warm_start(study, [first, second], suggest) == {"first": 6, "second": 4}
    added = [t for t in open_study(tmp_path / "new.db", "new").get_trials() if WARM_START in t.user_attrs]
    assert [(t.user_attrs[WARM_START], t.user_attrs[NUMBER]) for t in added] == [
        *(("first", k) for k in range(6)),
        *(("second", k) for k in range(4)),
    ]
    source = optuna.load_study(study_name="first", storage=f"sqlite:///{first[0]}").get_trials()
    for new, old in zip(added, source[:6], strict=False):
        assert (new.params, new.distributions, new.values) == (old.params, old.distributions, old.values)
        assert new.state == TrialState.COMPLETE
        assert not new.intermediate_values  # their rungs may be of other lengths
    assert [t.state for t in own_trials(study)] == [TrialState.WAITING]
    assert study.best_value == min(t.value for t in added if t.value is not None)
    assert study.ask().params == {}  # the anchor, still the first to be handed out
    assert [t.number for t in own_trials(study)] == [0]


def test_a_resumed_sweep_adds_nothing_twice(tmp_path: Path) -> None:
    first = sweep(tmp_path, "first")
    study = open_study(tmp_path / "new.db", "new")
    warm_start(study, [first], suggest)
    study.tell(_asked(study), 1.0)
    assert warm_start(study, [first], suggest) == {"first": 6}
    assert len(study.trials) == 7
    # A sweep that was itself warm started passes on what it was given; what comes by two ways comes once.
    third = open_study(tmp_path / "third.db", "third")
    warm_start(third, [(tmp_path / "new.db", "new"), first], suggest)
    assert [(t.user_attrs[WARM_START], t.user_attrs[NUMBER]) for t in third.trials] == [
        *(("first", k) for k in range(6)),
        ("new", 6),
    ]


def test_the_search_goes_on_from_them(tmp_path: Path) -> None:
    """TPE's startup is over: it draws near the earlier best, and a stranger's seed still matters."""
    first = sweep(tmp_path, "first", 15)
    warm = open_study(tmp_path / "warm.db", "warm", seed=5)
    warm_start(warm, [first], suggest)
    cold = open_study(tmp_path / "cold.db", "cold", seed=5)
    drawn = {}
    for study in (warm, cold):
        for _ in range(3):
            _asked(study)
        rates = [t.params["rate"] for t in own_trials(study)]
        drawn[study.study_name] = sum(abs(math.log10(rate / 0.03)) for rate in rates)
    assert drawn["warm"] < drawn["cold"]


def test_another_space_is_refused(tmp_path: Path) -> None:
    first = sweep(tmp_path, "first", 8)
    study = open_study(tmp_path / "new.db", "new")

    def refused(space: Suggest) -> str:
        with pytest.raises(InputError) as caught:
            warm_start(study, [first], space)
        assert not study.trials
        assert "\n" not in str(caught.value)
        return str(caught.value)

    def narrower(trial: optuna.Trial) -> dict[str, Any]:
        trial.suggest_float("rate", 1e-2, 1.0, log=True)
        if trial.suggest_categorical("method", ["tract", "progressive"]) == "tract":
            trial.suggest_float("mu_s", 0, 0.99, step=0.01)
        return {}

    said = refused(narrower)
    assert said.startswith("warm-start: first searched another space: mu_s was FloatDistribution(")
    assert said.endswith("rate was 0.001 to 1, logarithmic, is 0.01 to 1, logarithmic")

    def more(trial: optuna.Trial) -> dict[str, Any]:
        return {**suggest(trial), "lr": trial.suggest_float("lr", 1e-5, 1e-3)}

    assert refused(more) == "warm-start: first searched another space: it has no lr"

    def fewer(trial: optuna.Trial) -> dict[str, Any]:
        trial.suggest_float("rate", 1e-3, 1.0, log=True)
        trial.suggest_categorical("method", ["tract", "progressive"])
        return {}

    assert refused(fewer) == "warm-start: first searched another space: mu_s is not searched here"


def test_what_cannot_be_read(tmp_path: Path) -> None:
    study = open_study(tmp_path / "new.db", "new")

    def refused(path: Path, name: str) -> str:
        with pytest.raises(InputError) as caught:
            warm_start(study, [(path, name)], suggest)
        assert "\n" not in str(caught.value)
        return str(caught.value)

    missing = tmp_path / "none.db"
    assert refused(missing, "none") == f"warm-start: there is no sweep 'none' ({missing} does not exist)"
    assert not missing.exists()
    path, _ = sweep(tmp_path, "first", 0)
    assert refused(path, "first") == "warm-start: first has no finished trial"
    assert refused(path, "other").startswith(f"warm-start: {path} holds no readable study 'other'")
    (tmp_path / "text.db").write_text("nothing")
    assert refused(tmp_path / "text.db", "x").startswith(f"warm-start: {tmp_path / 'text.db'} holds no readable")
    two = open_study(tmp_path / "two.db", "two", objectives=2)
    two.tell(_asked(two), [1.0, 2.0])
    assert refused(tmp_path / "two.db", "two") == (
        "warm-start: two has the objectives minimize, minimize, this sweep minimize"
    )
    assert not study.trials


def _asked(study: optuna.Study) -> optuna.Trial:
    trial = study.ask()
    suggest(trial)
    return trial


def test_distances_of_something_else(tmp_path: Path) -> None:
    """Another data set, other features: numbers that say nothing about ours."""
    path, name = sweep(tmp_path, "first")
    ours = {"data set": "bright", "features": "classifier", "images": 4000}
    study = open_study(tmp_path / "new.db", "new")
    with pytest.raises(InputError, match=r"^warm-start: first does not say what its distances are of; --resume it onc"):
        warm_start(study, [(path, name)], suggest, ours)
    open_study(path, name).set_user_attr(MEASURED, {**ours, "data set": "dark"})
    with pytest.raises(InputError, match=r"^warm-start: first has .* something else: data set was dark, is bright$"):
        warm_start(study, [(path, name)], suggest, ours)
    assert not study.trials
    open_study(path, name).set_user_attr(MEASURED, ours)
    assert warm_start(study, [(path, name)], suggest, ours) == {"first": 6}
