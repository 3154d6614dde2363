"""Every combination of a search space, as a list of points and a sampler that goes through them."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial

from tract_ray.config import InputError, require
from tract_ray.search.space import Suggest

MOST = 10_000  # points of a grid
LEVELS = 16  # whole numbers of a range that are all tried, however few points it should have


def grid_values(distribution: BaseDistribution, points: int) -> list[Any]:
    """All values of a distribution that has a step, or choices, or is whole numbers of which there are few; else
    `points` from end to end.

    A logarithmic range is cut evenly in its logarithm.
    """
    if isinstance(distribution, CategoricalDistribution):
        return list(distribution.choices)
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    low, high, step = distribution.low, distribution.high, distribution.step
    if distribution.single():
        return [low]
    if step is not None and (isinstance(distribution, FloatDistribution) or (high - low) // step < max(points, LEVELS)):
        return [min(low + k * step, high) for k in range(round((high - low) / step) + 1)]
    space = np.geomspace if distribution.log else np.linspace
    values = space(low, high, points).tolist() if points > 1 else [low]
    if isinstance(distribution, IntDistribution):
        whole = (low + round((v - low) / distribution.step) * distribution.step for v in values)
        return sorted({int(v) for v in whole})
    return [low, *values[1:-1], high] if points > 1 else [low]  # the ends exactly, whatever the logarithm rounds


def grid_points(suggest: Suggest, points: int = 5) -> list[dict[str, Any]]:
    """Every combination that `suggest` can draw from `grid_values`; a conditional parameter only where it is asked.

    The function is run once for each: the parameters it has asked for so far decide what it asks next.
    """
    require(points >= 1, "grid", f"needs at least 1 point for each range, got {points}")
    walk = _Walk(points)
    study = optuna.create_study(sampler=walk)
    found: list[dict[str, Any]] = []
    while not walk.over:
        walk.depth = 0
        trial = study.ask()
        suggest(trial)
        found.append(dict(trial.params))
        require(len(found) <= MOST, "grid", f"has more than {MOST} points; choose fewer or another sampler")
        walk.advance()
    return found


class _OneByOne(BaseSampler):  # type: ignore[misc]
    """Draws each parameter when the space asks for it, none together with others."""

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        return {}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        return {}


class GridSampler(_OneByOne):
    """The points of a grid, once each, in an order shuffled by `seed`. A trial's place is in the storage.

    Unlike Optuna's: anchors use up no points, spaces may be conditional, and the order of answers changes nothing.
    """

    PLACE = "grid_place"

    def __init__(self, points: Sequence[Mapping[str, Any]], seed: int) -> None:
        self.points = list(points)
        random.Random(seed).shuffle(self.points)

    def before_trial(self, study: Study, trial: FrozenTrial) -> None:
        """Give the trial the next point; `InputError` where there is none left."""
        if self.PLACE in trial.system_attrs or "fixed_params" in trial.system_attrs:
            return
        earlier = study.get_trials(deepcopy=False)
        place = sum(self.PLACE in other.system_attrs for other in earlier)
        if place >= len(self.points):
            raise InputError(f"trials: the grid has {len(self.points)} points, and all were tried")
        note_of_trial(study, trial, self.PLACE, place)

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        place = trial.system_attrs.get(self.PLACE)
        if place is None:  # an anchor that leaves a parameter open
            raise InputError(f"space: on a grid an anchor must give every parameter, {param_name} is missing")
        point = self.points[place]
        if param_name not in point or not _holds(param_distribution, point[param_name]):
            raise InputError(f"space: {param_name} is not as it was when the grid was made")
        return point[param_name]


class _Walk(_OneByOne):
    """Depth first through the values of each parameter in the order in which they are asked for."""

    def __init__(self, points: int) -> None:
        self.points, self.depth, self.over = points, 0, False
        self.path: list[tuple[list[Any], int]] = []  # the values at each depth, and which is taken

    def advance(self) -> None:
        """Take the next value at the deepest place that has one."""
        self.path = self.path[: self.depth]
        while self.path and self.path[-1][1] + 1 == len(self.path[-1][0]):
            self.path.pop()
        if self.path:
            values, k = self.path[-1]
            self.path[-1] = values, k + 1
        self.over = not self.path

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        if self.depth == len(self.path):
            self.path.append((grid_values(param_distribution, self.points), 0))
        values, k = self.path[self.depth]
        self.depth += 1
        return values[k]


def note_of_trial(study: Study, trial: FrozenTrial, name: str, value: Any) -> None:
    """Keep something of a running trial in the storage, for whoever resumes the sweep.

    By private names, as Optuna's own samplers do: what a sampler is given has no public way to write.
    """
    study._storage.set_trial_system_attr(trial._trial_id, name, value)


def _holds(distribution: BaseDistribution, value: Any) -> bool:
    """Whether a value is of the distribution; only the private name answers that."""
    return bool(distribution._contains(distribution.to_internal_repr(value)))
