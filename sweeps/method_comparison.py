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
from tract_ray.config import to_dict
from tract_ray.search.space import Space, rows
from tract_ray.sweep.options import Options
from tract_ray.training import RunConfig

STEPS = (1, 2, 4, 8)


def plan(options: Options) -> tuple[Space, RunConfig]:
    """One row for each method and number of steps, all of the same length."""
    samples = options.length(2)
    longest = options.schedule()[0]

    def method(kind: str, **changes: Any) -> dict[str, Any]:
        return {"method": to_dict(options.method(kind, samples=samples, **changes))}

    table = {"consistency, 1 step": method("consistency", teacher_steps=longest)}
    for steps in STEPS:
        label = f"{steps} step{'s' if steps > 1 else ''}"
        table[f"TRACT, {label}"] = method("tract", time_schedule=(*options.schedule()[:-1], steps))
        table[f"BTD, {label}"] = method("progressive", start_steps=longest, end_steps=steps)
        table[f"moment matching, {label}"] = method("moment_matching", sampling_steps=steps)
    return rows(table), options.run(options.method(time_schedule=options.schedule()), per_phase=1)


if __name__ == "__main__":
    sweep_command("method_comparison", __doc__, plan, trials=100, repeats=3, pruner="none")
