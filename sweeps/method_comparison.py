"""Which method makes the best sampler of 1, 2, 4 and 8 steps from the same number of training images?

TRACT, progressive distillation (BTD), moment matching and consistency distillation (one step) from one teacher, several
seeds each. Nothing is searched: the rows are a list, and what they share is trained once.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that a checkout works without being installed

from tract_ray.cli.sweep_script import sweep_command
from tract_ray.config import require, to_dict
from tract_ray.search.space import Space, rows
from tract_ray.sweep.options import Options
from tract_ray.training import RunConfig

STEPS = (1, 2, 4, 8)


def plan(options: Options) -> tuple[Space, RunConfig]:
    """One row for each method (or those of `--method`) and number of steps, all of the same length."""
    samples, tract = options.length(2), options.tract()
    longest = options.schedule()[0]
    halved = longest & -longest  # BTD halves: it begins at the largest power of two among the teacher's steps
    table: dict[str, dict[str, Any]] = {}

    def add(label: str, kind: str, **changes: Any) -> None:
        if options.kind in (None, kind):
            table[label] = {"method": to_dict(options.method(kind, samples=samples, **changes))}

    add("consistency, 1 step", "consistency", teacher_steps=longest)
    for steps in STEPS:
        label = f"{steps} step{'s' if steps > 1 else ''}"
        add(f"TRACT, {label}", tract, time_schedule=(*options.schedule()[:-1], steps))
        if steps < halved:
            add(f"BTD, {label}", "progressive", start_steps=halved, end_steps=steps)
        add(f"moment matching, {label}", "moment_matching", sampling_steps=steps)
    require(len(table) > 1, "method", f"this sweep compares no rows of {options.kind}")
    return rows(table), options.run(per_phase=1)


DEFAULTS = {"trials": 100, "repeats": 3, "pruner": "none"}

if __name__ == "__main__":
    sweep_command("method_comparison", __doc__, plan, **DEFAULTS)
