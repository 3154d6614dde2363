"""Do TRACT's ablations hold here: mu_s, mu_i, the number of phases in both regimes, BTD, knowledge distillation?

All of the paper's tables from one command, three seeds each. Rows that are the same run in several tables are trained
once, as are common phases; the rows of the mu_i tables are averages of runs that other rows need. Paper: Berthelot et
al. 2023, tables 2 to 6.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that a checkout works without being installed

from tract_ray.cli.sweep_script import sweep_command
from tract_ray.config import to_dict
from tract_ray.distillation import TractConfig, heuristic_mu
from tract_ray.search.schedules import Schedule, finest_schedule
from tract_ray.search.space import Space, rows
from tract_ray.sweep.options import TRACT, Options
from tract_ray.training import RunConfig

MU_S = (0.0, 0.1, 0.5, 0.9, 0.99, 0.999)
RESIDUALS = (0.3, 0.03, 1e-2, 1e-3, 1e-4, 1e-6)  # of mu_i = residual^(1/N); 1e-3 is the heuristic
SCHEDULES = ((1024, 1), (1024, 32, 1), (1024, 32, 4, 1), (1024, 256, 64, 8, 1), (1024, 256, 64, 16, 4, 1))
RUNG_IMAGES = 200  # scores on the way only follow a run; at 512 steps an image they would cost as much as training


def plan(options: Options) -> tuple[Space, RunConfig]:
    """The tables' rows, `table: row`. Every last phase carries the averages that the mu_i tables ask for."""
    overall, kind, two = options.length(2), options.only(*TRACT), options.schedule()
    longest = two[0]
    several = (*SCHEDULES, finest_schedule(1024)) if longest == 1024 else ((longest, 1), two, finest_schedule(longest))

    def tract(schedule: Schedule = two, **changes: Any) -> dict[str, Any]:
        method = options.method(kind, time_schedule=schedule, **{"samples": overall, **changes})
        assert isinstance(method, TractConfig)
        return {"method": to_dict(replace(method, mu_i_bank=bank(method.phases()[-1].steps)))}

    def bank(steps: int) -> tuple[float, ...]:
        return tuple(sorted({0.0, *(heuristic_mu(residual, steps) for residual in RESIDUALS)}))

    def mu_i_rows(schedule: Schedule) -> dict[str, dict[str, Any]]:
        table = {}
        steps = options.method(kind, time_schedule=schedule, samples=overall).phases()[-1].steps
        for residual in (None, *RESIDUALS):
            mu = 0.0 if residual is None else heuristic_mu(residual, steps)
            table[f"mu_i, {len(schedule) - 1} phase(s): {mu:.6g}"] = tract(schedule, mu_i_last=mu)
        return table

    phase = overall // 2
    table = {f"mu_s: {mu:g}": tract(mu_s=mu) for mu in MU_S}
    table |= mu_i_rows(two) | mu_i_rows((longest, 1))
    for schedule in several:
        count = len(schedule) - 1
        table[f"phases, overall length: {count}"] = tract(schedule)
        table[f"phases, length per phase: {count}"] = tract(schedule, samples=phase * count)
    if longest == 1024:
        table["method: BTD, 10 halvings"] = {"method": to_dict(options.method("progressive", samples=overall))}
    third = options.third()
    for start in ("teacher", "random"):
        table[f"KD to a third, from {start}"] = {**tract(), "student": third, "student_from": start}
    run = options.run(options.method(kind, samples=overall), per_phase=1)
    return rows(table), replace(run, evaluation=replace(run.evaluation, rung_samples=RUNG_IMAGES, select="own"))


DEFAULTS = {"trials": 100, "repeats": 3, "pruner": "none"}

if __name__ == "__main__":
    sweep_command("paper_ablations", __doc__, plan, **DEFAULTS)
