"""Optuna's samplers by name, each a function of the seed, the trial's number and the study's history.

A sampler of Optuna's draws from a generator that lives in its process, so a sweep that was killed would go on with
other suggestions than the one that was not. Here a fresh sampler answers each question, seeded by what is asked.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping, Sequence
from importlib.util import find_spec
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution
from optuna.samplers import BaseSampler, GPSampler, QMCSampler, RandomSampler, TPESampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from tract_ray.config import choose, require
from tract_ray.distillation import derive_seed
from tract_ray.search.covariance import CovarianceSampler
from tract_ray.search.grid_points import GridSampler, note_of_trial
from tract_ray.search.space import Suggest, parameters

Space = dict[str, BaseDistribution]
SAMPLERS = ("tpe", "gp", "cmaes", "random", "qmc", "grid")


def build_sampler(
    name: str, *, seed: int, startup: int = 10, grid: Sequence[Mapping[str, Any]] = (), objectives: int = 1
) -> BaseSampler:
    """The sampler `name` for a whole sweep, interrupted or not.

    `startup` trials are random before `tpe` and `gp` model anything; `grid` are the points of `grid_points`. What a
    sampler cannot model (`check_sampler` says it) is drawn at random.
    """
    choose("sampler", name, SAMPLERS)
    # GP and QMC are called experimental, version after version.
    warnings.filterwarnings("ignore", category=optuna.exceptions.ExperimentalWarning)
    if name == "grid":
        return GridSampler(grid, seed)
    if name == "cmaes":
        require(objectives == 1, "sampler", f"cmaes minimises one objective, not {objectives}; choose tpe or gp")
        require(bool(find_spec("cmaes")), "sampler", "cmaes needs cmaes: pip install 'tract-ray[cluster]'")
    if name == "qmc":
        return ReproducibleSampler(lambda number, drawn: _QuasiRandom(seed, number, drawn), seed)
    makers: dict[str, Callable[[int], BaseSampler]] = {
        "tpe": lambda drawn: TPESampler(seed=drawn, n_startup_trials=startup, constant_liar=True),
        "gp": lambda drawn: GPSampler(seed=drawn, n_startup_trials=startup, warn_independent_sampling=False),
        "cmaes": lambda drawn: CovarianceSampler(seed=drawn, warn_independent_sampling=False),
        "random": lambda drawn: RandomSampler(seed=drawn),
    }
    return ReproducibleSampler(lambda _, drawn: makers[name](drawn), seed)


def check_sampler(name: str, suggest: Suggest, *, objectives: int = 1) -> str:
    """What `name` draws at random in this space, as one line, "" if it models everything.

    Raises `InputError` where the sampler cannot serve at all.
    """
    build_sampler(name, seed=0, objectives=objectives)
    if name in ("random", "grid"):
        return ""
    always, all_of_them = parameters(suggest)
    conditional = [] if name == "tpe" else sorted(all_of_them.keys() - always)
    categorical = [n for n in sorted(always) if isinstance(all_of_them[n], CategoricalDistribution)]
    unknown = sorted({*conditional, *(categorical if name == "cmaes" else ())})
    modelled = [n for n in always if n not in unknown and not all_of_them[n].single()]
    kinds = "categorical and conditional" if name == "cmaes" else "conditional"
    require(bool(modelled), "sampler", f"{name} models no parameter of this space (it is all {kinds}); choose tpe")
    return f"{name} does not model {kinds} parameters: {', '.join(unknown)} at random" if unknown else ""


class ReproducibleSampler(BaseSampler):  # type: ignore[misc]
    """Asks a fresh sampler, `make(trial number, seed)`, for every trial, and another for every single parameter."""

    DRAWN = "drawn_together"

    def __init__(self, make: Callable[[int, int], BaseSampler], seed: int) -> None:
        self.make, self.seed = make, seed
        self.latest: tuple[int, BaseSampler] | None = None

    def _of(self, trial: FrozenTrial) -> BaseSampler:
        """The trial's own; inferring a space and drawing from it is one thing to some samplers."""
        if self.latest is None or self.latest[0] != trial.number:
            self.latest = trial.number, self.make(trial.number, self._seed(trial.number))
        return self.latest[1]

    def _seed(self, *parts: int | str) -> int:
        return derive_seed(self.seed, *parts) % 2**32

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> Space:
        return dict(sorted(self._of(trial).infer_relative_search_space(study, trial).items()))

    def sample_relative(self, study: Study, trial: FrozenTrial, search_space: Space) -> dict[str, Any]:
        """What is drawn is in the storage before any of it is used: half suggested, a trial changes what a GP draws."""
        drawn = trial.system_attrs.get(self.DRAWN)
        if drawn is None:
            drawn = self._of(trial).sample_relative(study, trial, search_space)
            if drawn:
                note_of_trial(study, trial, self.DRAWN, drawn)
        return {name: value for name, value in drawn.items() if name in search_space}

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        own = self.make(trial.number, self._seed(trial.number, param_name))
        return own.sample_independent(study, trial, param_name, param_distribution)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        self.latest = None
        self._of(trial).before_trial(study, trial)

    def after_trial(self, study: Study, trial: FrozenTrial, state: TrialState, values: Sequence[float] | None) -> None:
        self._of(trial).after_trial(study, trial, state, values)

    def reseed_rng(self) -> None:
        """Nothing: there is no generator."""


class _QuasiRandom(QMCSampler):  # type: ignore[misc]
    """Sobol's sequence, scrambled by the sweep's seed; the trial's number is its position in it."""

    def __init__(self, seed: int, number: int, drawn: int) -> None:
        super().__init__(
            seed=seed,
            scramble=True,
            independent_sampler=RandomSampler(seed=drawn),
            warn_independent_sampling=False,
        )
        self.number = number

    def _find_sample_id(self, study: Study, search_space: Space) -> int:
        """Optuna counts in the storage: a trial that is asked for twice, as after a crash, would use up two points.

        The name is private; a version without it would fail `test_a_killed_search_suggests_the_same`.
        """
        return self.number
