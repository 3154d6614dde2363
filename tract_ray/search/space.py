"""Search spaces: what a sweep varies, as a function of an Optuna trial."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from tract_ray.config import flatten, from_dict, require, to_dict
from tract_ray.training import RunConfig

Suggest = Callable[[optuna.Trial], dict[str, Any]]
ROW = "row"  # the parameter of a list
DRAWS = 64  # with which a space's parameters and conditions are found
optuna.logging.set_verbosity(optuna.logging.ERROR)  # it prints a line a trial, as the sweep does


@dataclass(frozen=True)
class Space:
    """`suggest(trial)` draws Optuna parameters and returns changes of the run by dotted name (`method.mu_s`).

    `anchors` are Optuna parameters of trials that a sweep runs first: the published values and the extremes, without
    which a response curve has no ends.
    """

    suggest: Suggest
    anchors: tuple[Mapping[str, Any], ...] = field(default=())
    listed: bool = False  # the anchors are all there is
    ready: Callable[[optuna.Study, int], bool] | None = None  # whether the trial of this number can be drawn yet
    count: int | None = None  # trials that it is made of, where no more and no fewer make sense

    @property
    def size(self) -> int | None:
        """Number of configurations of a list; None where there is no end of them."""
        return len(self.anchors) if self.listed else None

    def describe(self) -> dict[str, str]:
        """Each Optuna parameter and its range, those that only some draws have included."""
        return {name: range_text(d) for name, d in parameters(self.suggest)[1].items()}


def anchored(space: Space) -> dict[str, Any]:
    """What each anchor (of a list, each row) changes: spaces of the same ranges may differ in it."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    found: dict[str, Any] = {}
    for number, anchor in enumerate(space.anchors):
        study.enqueue_trial(dict(anchor))
        name = anchor.get(ROW, f"anchor {number + 1}")
        found |= {f"{name}: {key}": value for key, value in flatten(space.suggest(study.ask())).items()}
    return found


def parameters(suggest: Suggest) -> tuple[set[str], dict[str, BaseDistribution]]:
    """The names that every draw has, and the distributions of all, in the order in which they are first asked for.

    Found by drawing, with the same draws each time. `InputError` where there is no parameter.
    """
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    draws: list[dict[str, BaseDistribution]] = []
    for _ in range(DRAWS):
        trial = study.ask()
        suggest(trial)
        draws.append(dict(trial.distributions))
    everything = {name: distribution for draw in draws for name, distribution in draw.items()}
    require(bool(everything), "space", "it has no parameters")
    return set.intersection(*(set(draw) for draw in draws)), everything


def rows(changes: Mapping[str, Mapping[str, Any]]) -> Space:
    """A space that is a list: each named row of changes is one trial, in the order given."""

    def suggest(trial: optuna.Trial) -> dict[str, Any]:
        return dict(changes[trial.suggest_categorical(ROW, list(changes))])

    return Space(suggest, tuple({ROW: name} for name in changes), listed=True)


def range_text(distribution: BaseDistribution) -> str:
    """A parameter's range for people: `one of teacher, random` or `0.001 to 1, logarithmic`."""
    if isinstance(distribution, CategoricalDistribution):
        return "one of " + ", ".join(map(str, distribution.choices))
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    return f"{distribution.low:g} to {distribution.high:g}{', logarithmic' if distribution.log else ''}"


def apply_changes(run: RunConfig, changes: Mapping[str, Any]) -> RunConfig:
    """The run with dotted names changed: `{"method.mu_s": 0.9}`. Raises `InputError` for an unknown name."""
    plain = to_dict(run)
    for name, value in changes.items():
        *path, last = name.split(".")
        part = plain
        for key in path:
            part = part.get(key) if isinstance(part, dict) else None
        require(isinstance(part, dict), "space", f"the run has no {name!r}")
        part[last] = value
    return from_dict(RunConfig, plain)
