"""How many phases, and through which numbers of steps, give the best one-step student?

Runs TRACT from the teacher's steps (1024, or the first of `--time-schedule`) to one. Optuna chooses the number of
phases (up to ten from 1024) and, given that, where each of them ends. `--fixed overall` keeps the length of a trial,
`--fixed per-phase` that of each phase. Paper: Berthelot et al. 2023, table 3 and figure 5: two phases win either way.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that a checkout works without being installed

import optuna

from tract_ray.cli.sweep_script import sweep_command
from tract_ray.search.schedules import Schedule, cuts_of, finest_schedule, schedule_of
from tract_ray.search.space import Space
from tract_ray.sweep.options import TRACT, Options
from tract_ray.training import RunConfig

PUBLISHED = ((1024, 32, 1), (1024, 1), (1024, 128, 8, 1), (1024, 256, 64, 16, 4, 1))


def parameters(schedule: Schedule, finest: Schedule) -> dict[str, float]:
    """The parameters of a schedule: the inverse of what `suggest` makes."""
    phases = len(schedule) - 1
    return {"phases": phases} | {f"cut_{phases}_{k}": cut for k, cut in enumerate(cuts_of(schedule, finest))}


def plan(options: Options) -> tuple[Space, RunConfig]:
    """A conditional space: each number of phases has cuts of its own."""
    method, given = options.method(options.only(*TRACT)), options.schedule()
    finest = finest_schedule(given[0])

    def suggest(trial: optuna.Trial) -> dict[str, Any]:
        phases = trial.suggest_int("phases", 1, len(finest) - 1)
        cuts = [trial.suggest_float(f"cut_{phases}_{place}", 0, 1) for place in range(phases - 1)]
        return {"method.time_schedule": list(schedule_of(cuts, finest)), "method.samples": options.length(phases)}

    known = PUBLISHED if finest[0] == 1024 else (given, (finest[0], 1))
    anchors = [s for s in dict.fromkeys((*known, finest)) if set(s) <= set(finest) and s[-1] == 1]
    return Space(suggest, tuple(parameters(s, finest) for s in anchors)), options.run(method, per_phase=1)


DEFAULTS = {"trials": 16, "pruner": "none"}

if __name__ == "__main__":
    # Half-way scores of runs with other phases are those of samplers of other steps: nothing to compare.
    sweep_command("phase_search", __doc__, plan, **DEFAULTS)
