"""Search spaces: what a sweep varies, as a function of an Optuna trial."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import optuna

from tract_ray.config import from_dict, require, to_dict
from tract_ray.training import RunConfig

Suggest = Callable[[optuna.Trial], dict[str, Any]]
ROW = "row"


@dataclass(frozen=True)
class Space:
    """`suggest(trial)` draws Optuna parameters and returns changes of the run by dotted name (`method.mu_s`).

    `anchors` are Optuna parameters of trials that every sweep runs first and never stops early: the published values
    and the extremes, without which a response curve has no ends.
    """

    suggest: Suggest
    anchors: tuple[Mapping[str, Any], ...] = field(default=())
    listed: bool = False  # the anchors are all there is
    ready: Callable[[optuna.Study, int], bool] | None = None  # whether the trial of this number can be drawn yet

    @property
    def size(self) -> int | None:
        """Number of configurations of a list; None where there is no end of them."""
        return len(self.anchors) if self.listed else None

    def describe(self) -> dict[str, str]:
        """Each Optuna parameter and its range, found by drawing once."""
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        trial = optuna.create_study().ask()
        self.suggest(trial)
        return {name: range_text(d) for name, d in trial.distributions.items()}


def rows(changes: Mapping[str, Mapping[str, Any]]) -> Space:
    """A space that is a list: each named row of changes is one trial, in the order given, and none is stopped."""

    def suggest(trial: optuna.Trial) -> dict[str, Any]:
        return dict(changes[trial.suggest_categorical(ROW, list(changes))])

    return Space(suggest, tuple({ROW: name} for name in changes), listed=True)


def range_text(distribution: optuna.distributions.BaseDistribution) -> str:
    """A parameter's range for people: `one of teacher, random` or `0.001 to 1, logarithmic`."""
    if isinstance(distribution, optuna.distributions.CategoricalDistribution):
        return "one of " + ", ".join(map(str, distribution.choices))
    assert isinstance(distribution, optuna.distributions.FloatDistribution | optuna.distributions.IntDistribution)
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
