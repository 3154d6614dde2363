"""Sweep scripts: the files that say what a sweep asks and what it varies. Ours are found by name, yours by path.

A script is a Python file. Its first line is the question that it asks; one function says what it varies:

    def suggest(trial): return {"method.lr": trial.suggest_float("lr", 1e-4, 1e-2, log=True)}

draws from an Optuna trial what it changes of the run, or, where the space depends on the options or the run is not the
default one, `plan(options) -> (Space, RunConfig)`. `ANCHORS`, parameters of trials that come first, and `DEFAULTS`
(`trials`, `repeats`, `pruner`, `objectives`) may stand beside it.
"""

from __future__ import annotations

import inspect
import runpy
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tract_ray.config import InputError, choose, require
from tract_ray.search.space import Space, Suggest
from tract_ray.sweep.options import Options
from tract_ray.training import RunConfig

Plan = Callable[[Options], tuple[Space, RunConfig]]
DEFAULTS = ("trials", "repeats", "pruner", "objectives")


@dataclass(frozen=True, kw_only=True)
class Script:
    """What a script says. `doc` begins with its question; `defaults` are its own of `DEFAULTS`."""

    name: str
    doc: str
    plan: Plan
    defaults: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for name in self.defaults:
            choose("DEFAULTS", name, DEFAULTS)

    @property
    def question(self) -> str:
        """The first line of its text."""
        return (self.doc or self.name).strip().splitlines()[0]


def plan_of(suggest: Suggest, anchors: Iterable[Mapping[str, Any]] = ()) -> Plan:
    """The plan of a space that is a function: the chosen method, with what `suggest` changes of it."""
    space = Space(suggest, tuple(anchors))

    def plan(options: Options) -> tuple[Space, RunConfig]:
        return space, options.run()

    return plan


def load_script(path: Path) -> Script:
    """Run a script's file, but not its last line (`if __name__ == "__main__"`), and take what it says."""
    try:
        said = runpy.run_path(str(path), run_name=path.stem)
    except (SyntaxError, ImportError) as error:
        raise InputError(f"sweep: {path} cannot be read ({type(error).__name__}: {error})") from None
    plan, suggest = said.get("plan"), said.get("suggest")
    if plan is None:
        if suggest is None:
            raise InputError(f"sweep: {path} has neither a function suggest(trial) nor a function plan(options)")
        require(_takes_one(suggest), "sweep", f"{path}: suggest takes one argument, the trial")
        plan = plan_of(suggest, said.get("ANCHORS", ()))
    require(_takes_one(plan), "sweep", f"{path}: plan takes one argument, the options")
    return Script(name=path.stem, doc=said.get("__doc__") or "", plan=plan, defaults=said.get("DEFAULTS", {}))


def _takes_one(function: Any) -> bool:
    try:
        inspect.signature(function).bind(None)
    except (TypeError, ValueError):
        return False
    return True
