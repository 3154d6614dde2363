"""How many phases, and through which numbers of steps, give the best one-step student?

Runs TRACT from the teacher's 1024 steps to one. Optuna chooses one to ten phases and, given their number, where each
of them ends. `--fixed overall` keeps the length of a trial, `--fixed per-phase` that of each phase. Paper: Berthelot et
al. 2023, table 3 and figure 5: two phases win either way.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that a checkout works without being installed

import optuna

from tract_ray.cli.sweep_script import sweep_command
from tract_ray.search.space import Space
from tract_ray.sweep.options import Options
from tract_ray.training import RunConfig

HALVINGS = 10  # 1024 = 2^10 steps
MOST = 10


def schedule_of(cuts: list[float]) -> tuple[int, ...]:
    """Cuts in [0, 1] -> strictly decreasing powers of two from 1024 to 1, as near to the cuts as that allows."""
    ends = []
    for place, cut in enumerate(sorted(cuts)):
        left = len(cuts) - place - 1  # cuts that must still fit behind this one
        first = ends[-1] + 1 if ends else 1
        ends.append(min(max(round(cut * HALVINGS), first), HALVINGS - 1 - left))
    return tuple(2 ** (HALVINGS - end) for end in (0, *ends, HALVINGS))


def cuts_of(schedule: tuple[int, ...]) -> dict[str, float]:
    """The parameters of a schedule: the inverse of what `suggest` makes."""
    phases = len(schedule) - 1
    ends = [HALVINGS - steps.bit_length() + 1 for steps in schedule[1:-1]]
    return {"phases": phases} | {f"cut_{phases}_{place}": end / HALVINGS for place, end in enumerate(ends)}


PUBLISHED = (
    (1024, 32, 1),
    (1024, 1),
    (1024, 128, 8, 1),
    (1024, 256, 64, 16, 4, 1),
    tuple(2**k for k in range(HALVINGS, -1, -1)),
)


def plan(options: Options) -> tuple[Space, RunConfig]:
    """A conditional space: each number of phases has cuts of its own."""

    def suggest(trial: optuna.Trial) -> dict[str, Any]:
        phases = trial.suggest_int("phases", 1, MOST)
        cuts = [trial.suggest_float(f"cut_{phases}_{place}", 0, 1) for place in range(phases - 1)]
        return {"method.time_schedule": list(schedule_of(cuts)), "method.samples": options.length(phases)}

    return Space(suggest, tuple(map(cuts_of, PUBLISHED))), options.run(options.method(), per_phase=1)


if __name__ == "__main__":
    # Half-way scores of runs with other phases are those of samplers of other steps: nothing to compare.
    sweep_command("phase_search", __doc__, plan, trials=16, pruner="none")
