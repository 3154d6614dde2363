"""The study: Optuna's persistent storage is the sweep's memory.

Nothing of a sweep lives in Tune's own state. A trial is a row of the storage and a folder; when everything else is
gone, asking the storage again hands out the unfinished trials first, and their folders continue them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import optuna

from tract_ray.config import AGAIN, check_seed, choose, require
from tract_ray.search.budget import Budget
from tract_ray.search.grid_points import grid_points
from tract_ray.search.samplers import SAMPLERS, build_sampler
from tract_ray.search.sealed import read_study
from tract_ray.search.space import Space
from tract_ray.search.storage import FileStorage
from tract_ray.training import RunConfig
from tract_ray.training.scoring import evaluation_marks

CHANGES, ANCHOR, COSTS, CUT = "changes", "anchor", "costs", "cut"  # user attributes of its trials
FAILED = "failed"  # another: why a trial failed; it ends with AGAIN if that was no fault of its configuration
MACHINE = f"its machine failed; {AGAIN}"
MEASURED = "measured"  # of the study
MAX_TRIALS = 1_000_000
PRUNERS = ("halving", "median", "none")
OBJECTIVES = ("distance", "parameters", "seconds_per_image")


@dataclass(frozen=True, kw_only=True)
class Search:
    """How a space is searched.

    `repeats` seeds for each configuration that is not stopped; `pruner` `halving` (asynchronous successive halving,
    of which one in `reduction` goes on at each rung), `median` (worse than the median of earlier trials) or `none`;
    trials compete at the first `rungs` marks of the last phase; `finish_anchors` keeps the anchors from being
    stopped; further `objectives` are minimised beside the distance.
    """

    trials: int = 12
    repeats: int = 1
    seed: int = 0
    sampler: str = "tpe"
    pruner: str = "halving"
    reduction: int = 3
    rungs: int = 1
    finish_anchors: bool = False
    objectives: tuple[str, ...] = ("distance",)
    budget: Budget | None = None

    def __post_init__(self) -> None:
        for name, count in (("trials", self.trials), ("repeats", self.repeats)):
            require(count >= 1, name, f"must be at least 1, got {count}")
            require(count <= MAX_TRIALS, name, f"must be at most {MAX_TRIALS:,}, got {count}")
        check_seed("seed", self.seed)
        choose("sampler", self.sampler, SAMPLERS)
        choose("pruner", self.pruner, PRUNERS)
        require(self.reduction >= 2, "reduction", f"must be at least 2, got {self.reduction}")
        require(self.rungs >= 1, "rungs", f"must be at least 1, got {self.rungs}; --pruner none stops no trial")
        for objective in self.objectives:
            choose("objectives", objective, OBJECTIVES)
        single = len(self.objectives) == 1
        require(single or self.pruner == "none", "pruner", "Optuna stops no trials of several objectives; use none")

    @property
    def stops(self) -> bool:
        """Whether trials may be stopped early."""
        return self.pruner != "none"

    def build_pruner(self) -> optuna.pruners.BasePruner:
        """Optuna's; the k-th rung is its step `reduction^k`."""
        if self.pruner == "halving":
            return optuna.pruners.SuccessiveHalvingPruner(min_resource=1, reduction_factor=self.reduction)
        if self.pruner == "median":
            return optuna.pruners.MedianPruner(n_startup_trials=4)
        return optuna.pruners.NopPruner()


def open_study(
    path: Path, name: str, space: Space, search: Search, measured: Mapping[str, Any] | None = None
) -> optuna.Study:
    """The study in the database file `path`, made if it is new, with those of the space's anchors that it lacks.

    Sampler and pruner read the storage, so a resumed sweep suggests and stops with everything it knew. `measured` says
    what its distances are of: a sweep that is to learn from it compares that.
    """
    if path.exists():
        read_study(path, name)
    study = optuna.create_study(
        study_name=name,
        storage=FileStorage(path),
        load_if_exists=True,
        directions=["minimize"] * len(search.objectives),
        sampler=sampler_for(space, search),
        pruner=search.build_pruner(),
    )
    if measured is not None:
        study.set_user_attr(MEASURED, dict(measured))
    enqueue_anchors(study, space, search)
    return study


def enqueue_anchors(study: optuna.Study, space: Space, search: Search) -> None:
    """Let the anchors be the first trials. A list is nothing else; a grid has its own order, and no anchors.

    A study that was begun with fewer trials than anchors, or broke off between two of them, gets those that it lacks.
    """
    known = sum(bool(trial.user_attrs.get(ANCHOR)) for trial in study.get_trials(deepcopy=False))
    for anchor in anchors_of(space, search)[known:]:
        study.enqueue_trial(dict(anchor), user_attrs={ANCHOR: True})


def anchors_of(space: Space, search: Search) -> tuple[Mapping[str, Any], ...]:
    """The anchors that this search begins with."""
    return () if search.sampler == "grid" else space.anchors[: search.trials]


def limit(space: Space, search: Search) -> int:
    """Trials at most: a list and a grid come to an end."""
    ends = space.size or (len(grid_points(space.suggest)) if search.sampler == "grid" else search.trials)
    return min(ends, search.trials)


def startup(trials: int) -> int:
    """Trials that are random before a sampler models anything, in a sweep of so many."""
    return max(4, min(10, trials // 3))


def extended(search: Search, before: int) -> str:
    """What a sweep that was begun with `before` trials has other than if it was begun with all of them, or nothing."""
    if search.sampler not in ("tpe", "gp") or startup(before) == startup(search.trials) or before <= startup(before):
        return ""
    return (
        f"the first {before} trials were drawn as of a sweep of {before}, {startup(before)} of them at random; begun "
        f"with {search.trials}, {startup(search.trials)} would have been"
    )


def sampler_for(space: Space, search: Search) -> optuna.samplers.BaseSampler:
    """The sampler that `search` names: what it suggests depends on the storage alone."""
    grid = grid_points(space.suggest) if search.sampler == "grid" else ()
    return build_sampler(
        search.sampler, seed=search.seed, startup=startup(search.trials), grid=grid, objectives=len(search.objectives)
    )


def rungs(run: RunConfig, count: int) -> list[int]:
    """Samples seen at which trials compete: the first `count` marks of the last phase at which a run is scored.

    Earlier phases end in samplers of more steps, whose scores do not tell: after 1024 -> 32 on digits all values of
    mu_s were within 2.1 to 2.5, and those that are worst then are among the best in the end. Within the last phase
    the first mark tells the ruined from the others; later ones rank the others by who is quick, and against who is
    good in the end (rank correlation -0.6 to 0.5, docs/sweeps.md).
    """
    last = run.method.phases()[-1]
    marks = sorted(evaluation_marks([last], run.evaluation.per_phase))
    return [step * run.method.batch for step in marks[:count]]
