"""How small can the student be, and what does each size cost in quality?

Knowledge distillation with TRACT into students of other width, depth and attention than their teacher's (60.0M down to
19.4M and below on CIFAR-10), started from the layers they share with it or at random. Two objectives, the distance and
the number of parameters: the result is a Pareto front. Paper: Berthelot et al. 2023, section 4.2.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that a checkout works without being installed

import optuna

from tract_ray.cli.sweep_script import sweep_command
from tract_ray.networks.sizing import attends, depth, resized
from tract_ray.search.space import Space
from tract_ray.sweep.options import Options
from tract_ray.training import RunConfig

WIDTHS = (1.0, 0.75, 0.5, 0.375, 0.25)  # of the teacher's


def plan(options: Options) -> tuple[Space, RunConfig]:
    """Widths as fractions of the teacher's, fewer blocks, attention kept or dropped where the network has it."""
    name, own = options.architecture()
    most = depth(name, own)

    def suggest(trial: optuna.Trial) -> dict[str, Any]:
        width = WIDTHS[trial.suggest_int("width_level", 0, len(WIDTHS) - 1)]
        blocks = trial.suggest_int("blocks", 1, most)
        attention = not attends(name, own) or trial.suggest_categorical("attention", [True, False])
        start = trial.suggest_categorical("student_from", ["teacher", "random"])
        chosen = resized(name, own, width=width, blocks=blocks, attention=attention)
        return {"student": {"name": name, "options": chosen}, "student_from": start}

    whole = {"width_level": 0, "blocks": most, "attention": True, "student_from": "teacher"}
    third = {**whole, "width_level": 2}
    return Space(suggest, (whole, third, {**third, "student_from": "random"})), options.run()


DEFAULTS = {"trials": 16, "pruner": "none", "objectives": ("distance", "parameters")}

if __name__ == "__main__":
    sweep_command("architecture_search", __doc__, plan, **DEFAULTS)
