"""Samplers by name: killed anywhere, a sweep suggests what it would have; grids are complete."""

from __future__ import annotations

import itertools
import math
from pathlib import Path
from typing import Any

import optuna
import pytest
from optuna.distributions import (
    BaseDistribution,
    CategoricalDistribution,
    FloatDistribution,
    IntDistribution,
)

from tract_ray.config import InputError
from tract_ray.search import grid_points as grid
from tract_ray.search.grid_points import grid_points, grid_values
from tract_ray.search.samplers import SAMPLERS, build_sampler, check_sampler
from tract_ray.search.space import Suggest


def plain(trial: optuna.Trial) -> dict[str, Any]:
    return {"rate": trial.suggest_float("rate", 1e-3, 1.0, log=True), "shift": trial.suggest_float("shift", -1, 1)}


def conditional(trial: optuna.Trial) -> dict[str, Any]:
    drawn = {"rate": trial.suggest_float("rate", 1e-3, 1.0, log=True), "phases": trial.suggest_int("phases", 1, 3)}
    if trial.suggest_categorical("method", ["tract", "progressive"]) == "tract":
        drawn["mu_s"] = trial.suggest_float("mu_s", 0, 0.9)
        if drawn["phases"] > 1:
            drawn["share"] = trial.suggest_float("share", 0.1, 0.9)
    return drawn


def value(params: dict[str, Any]) -> float:
    return math.log10(params["rate"] / 0.03) ** 2 + abs(params.get("shift", params.get("mu_s", 0.3)) - 0.3)


class Search:
    """A study in a file, two trials at a time: the older one is told when the next is asked for."""

    def __init__(self, path: Path, name: str, suggest: Suggest, objectives: int = 1) -> None:
        self.path, self.name, self.suggest, self.objectives = path, name, suggest, objectives
        self.grid = grid_points(suggest, 3) if name == "grid" else ()
        self.open()
        if suggest is plain:
            for anchor in ({"rate": 0.5, "shift": 0.5}, {"rate": 1.0, "shift": 0.0}):
                self.study.enqueue_trial(anchor)

    def open(self) -> None:
        """As a new process would, but for its checks of the tables."""
        known = self.path.is_file()
        self.study = optuna.create_study(
            storage=optuna.storages.RDBStorage(
                f"sqlite:///{self.path}", skip_compatibility_check=known, skip_table_creation=known
            ),
            study_name="sweep",
            load_if_exists=True,
            directions=["minimize"] * self.objectives,
            sampler=build_sampler(self.name, seed=3, startup=4, grid=self.grid, objectives=self.objectives),
        )

    def params(self) -> list[dict[str, Any]]:
        return [trial.params for trial in self.study.get_trials(deepcopy=False) if trial.params]

    def tell_one(self) -> None:
        running = self.study.get_trials(deepcopy=False, states=(optuna.trial.TrialState.RUNNING,))
        if len(running) > 1:
            oldest = running[0]
            self.study.tell(oldest.number, [value(oldest.params), oldest.number % 5][: self.objectives])

    def undisturbed(self, asks: int) -> list[dict[str, Any]]:
        for _ in range(asks):
            self.suggest(self.study.ask())
            self.tell_one()
        return self.params()

    def killed_all_the_time(self, asks: int) -> list[dict[str, Any]]:
        """After a trial was made, after its first parameter, and when all were suggested."""
        for _ in range(asks):
            number = self.study.ask().number
            self.open()
            self.again(number).suggest_float("rate", 1e-3, 1.0, log=True)
            self.open()
            self.suggest(self.again(number))
            self.suggest(self.again(number))
            self.open()
            self.tell_one()
        return self.params()

    def again(self, number: int) -> optuna.Trial:
        return optuna.Trial(self.study, self.study.get_trials(deepcopy=False)[number]._trial_id)


@pytest.mark.parametrize(
    ("name", "suggest", "objectives", "asks"),
    [
        ("tpe", plain, 1, 8),
        ("tpe", conditional, 2, 8),
        ("gp", plain, 1, 7),
        ("gp", conditional, 2, 7),
        ("cmaes", plain, 1, 14),  # its second generation included
        ("cmaes", conditional, 1, 8),
        ("random", conditional, 1, 5),
        ("qmc", plain, 1, 6),
        ("qmc", conditional, 2, 6),
        ("grid", conditional, 1, 6),
    ],
)
def test_a_killed_search_suggests_the_same(
    name: str, suggest: Suggest, objectives: int, asks: int, tmp_path: Path
) -> None:
    whole = Search(tmp_path / "whole.db", name, suggest, objectives).undisturbed(asks)
    assert len({str(params) for params in whole}) == asks  # no generator starts again for each trial
    assert Search(tmp_path / "killed.db", name, suggest, objectives).killed_all_the_time(asks) == whole


@pytest.mark.parametrize("name", [name for name in SAMPLERS if name != "grid"])
def test_seeds_make_other_searches(name: str) -> None:
    def first(seed: int) -> list[dict[str, Any]]:
        study = optuna.create_study(sampler=build_sampler(name, seed=seed, startup=2))
        study.optimize(lambda trial: value(plain(trial)), n_trials=3)
        return [trial.params for trial in study.trials]

    assert first(1) == first(1)
    assert all(a != b for a, b in zip(first(1), first(2), strict=True))


@pytest.mark.parametrize("name", ["tpe", "gp", "cmaes"])
def test_samplers_that_learn_learn(name: str) -> None:
    """The best of as many trials is better than random's, in the median of three seeds."""

    def best(which: str, seed: int) -> float:
        study = optuna.create_study(sampler=build_sampler(which, seed=seed, startup=8))
        study.optimize(lambda trial: value(plain(trial)), n_trials=40 if name != "gp" else 15)
        return study.best_value

    learnt = sorted(best(name, seed) for seed in range(3))[1]
    assert learnt < sorted(best("random", seed) for seed in range(3))[1]


def test_quasi_random_points_are_spread() -> None:
    """Of 16 of Sobol's points in a plane, each row and column of a 4 x 4 raster holds four, each cell one."""
    study = optuna.create_study(sampler=build_sampler("qmc", seed=0))

    def suggest(trial: optuna.Trial) -> float:
        return trial.suggest_float("a", 0, 1) + trial.suggest_float("b", 0, 1)

    study.optimize(suggest, n_trials=32)
    cells = {(int(t.params["a"] * 4), int(t.params["b"] * 4)) for t in study.trials[16:]}
    assert len(cells) == 16


# --- grids ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("distribution", "expected"),
    [
        (CategoricalDistribution(["a", None, 3]), ["a", None, 3]),
        (IntDistribution(1, 4), [1, 2, 3, 4]),
        (IntDistribution(2, 8, step=2), [2, 4, 6, 8]),
        (IntDistribution(0, 1000), [0, 250, 500, 750, 1000]),
        (IntDistribution(1, 10_000, log=True), [1, 10, 100, 1000, 10_000]),
        (FloatDistribution(0.1, 0.3, step=0.1), [0.1, 0.2, 0.3]),
        (FloatDistribution(0.0, 1.0), [0.0, 0.25, 0.5, 0.75, 1.0]),
        (FloatDistribution(1e-3, 10.0, log=True), [1e-3, 1e-2, 0.1, 1.0, 10.0]),
        (FloatDistribution(2.0, 2.0), [2.0]),
    ],
)
def test_the_values_of_a_range(distribution: BaseDistribution, expected: list[Any]) -> None:
    values = grid_values(distribution, 5)
    assert values == [pytest.approx(v, rel=1e-12) if isinstance(v, float) else v for v in expected]
    assert all(distribution._contains(distribution.to_internal_repr(v)) for v in values)


def test_a_grid_is_every_combination_that_can_be() -> None:
    points = grid_points(conditional, 3)
    rates, shares = grid_values(FloatDistribution(1e-3, 1, log=True), 3), [0.1, 0.5, 0.9]
    expected = [{"rate": r, "phases": n, "method": "progressive"} for r in rates for n in (1, 2, 3)]
    expected += [{"rate": r, "phases": 1, "method": "tract", "mu_s": m} for r in rates for m in (0, 0.45, 0.9)]
    expected += [
        {"rate": r, "phases": n, "method": "tract", "mu_s": m, "share": s}
        for r, n, m, s in itertools.product(rates, (2, 3), (0, 0.45, 0.9), shares)
    ]
    assert len(points) == len(expected) == 9 + 9 + 54
    assert all(point in points for point in expected)


def test_a_search_goes_through_the_grid_once(tmp_path: Path) -> None:
    """Anchors use up no points, a kill repeats none, the order is shuffled, and after the last there is an end."""
    points = grid_points(plain, 3)

    def seen(path: Path, killed: bool) -> list[dict[str, Any]]:
        search = Search(path, "grid", plain)
        for k in range(2 + len(points)):
            if killed and k % 3 == 0:
                search.open()
            plain(search.study.ask())
            search.tell_one()
        with pytest.raises(InputError, match="trials: the grid has 9 points, and all were tried"):
            search.study.ask()
        return search.params()

    whole = seen(tmp_path / "whole.db", killed=False)
    assert whole[:2] == [{"rate": 0.5, "shift": 0.5}, {"rate": 1.0, "shift": 0.0}]
    assert sorted(whole[2:], key=str) == sorted(points, key=str)
    assert whole[2:] != points
    assert seen(tmp_path / "killed.db", killed=True) == whole


def test_grids_that_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match="grid: needs at least 1 point"):
        grid_points(plain, 0)
    monkeypatch.setattr(grid, "MOST", 100)
    with pytest.raises(InputError, match="grid: has more than 100 points"):
        grid_points(lambda trial: {f"p{k}": trial.suggest_float(f"p{k}", 0, 1) for k in range(8)}, 10)
    study = optuna.create_study(sampler=build_sampler("grid", seed=0, grid=grid_points(plain, 2)))
    with pytest.raises(InputError, match="space: phases is not as it was"):
        conditional(study.ask())
    study.enqueue_trial({"rate": 0.5})
    with pytest.raises(InputError, match="an anchor must give every parameter, shift is missing"):
        plain(study.ask())


# --- what does not fit ---------------------------------------------------------------------------------------------


def test_names() -> None:
    with pytest.raises(InputError, match="sampler: unknown 'cma'; did you mean 'cmaes'"):
        build_sampler("cma", seed=0)


def test_what_a_sampler_cannot_model_is_said() -> None:
    def only_choices(trial: optuna.Trial) -> dict[str, Any]:
        return {"method": trial.suggest_categorical("method", ["a", "b"])}

    for name in SAMPLERS:
        if name != "grid":
            assert check_sampler(name, plain) == ""
    for name in ("tpe", "random", "grid"):
        assert check_sampler(name, conditional) == ""
    for name in ("gp", "qmc"):
        assert (
            check_sampler(name, conditional) == f"{name} does not model conditional parameters: mu_s, share at random"
        )
    assert check_sampler("cmaes", conditional) == (
        "cmaes does not model categorical and conditional parameters: method, mu_s, share at random"
    )
    with pytest.raises(InputError, match="sampler: cmaes models no parameter of this space"):
        check_sampler("cmaes", only_choices)
    with pytest.raises(InputError, match="sampler: cmaes minimises one objective, not 2; choose tpe or gp"):
        check_sampler("cmaes", plain, objectives=2)
    with pytest.raises(InputError, match="space: it has no parameters"):
        check_sampler("gp", lambda trial: {})


def test_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tract_ray.search.samplers.find_spec", lambda name: None)
    with pytest.raises(InputError, match=r"sampler: cmaes needs cmaes: pip install 'tract-ray\[cluster\]'"):
        build_sampler("cmaes", seed=0)
