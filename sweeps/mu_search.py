"""Which self-teacher average mu_s and which inference average mu_i give the best one-step student?

Runs TRACT (or `--method`) with a fixed time schedule; Optuna chooses mu_s, where the method has a self-teacher, and the
average that ends each phase, and every trial scores a bank of mu_i. Paper: Berthelot et al. 2023, tables 4 and 5 (mu_s
best at 0.5, flat in [0.1, 0.9]).
"""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that a checkout works without being installed

import optuna

from tract_ray.cli.sweep_script import sweep_command
from tract_ray.distillation import heuristic_mu
from tract_ray.search.space import Space
from tract_ray.sweep.options import Options
from tract_ray.training import RunConfig

MU_S = (0.0, 0.1, 0.5, 0.9, 0.95, 0.99, 0.999)
RESIDUALS = (0.1, 1e-2, 1e-3, 1e-4)
BANK_ONLY = (0.3, 1e-6, 1e-12)
PUBLISHED = (0.5, 0.0, 0.9, 0.99, 0.999)


def plan(options: Options) -> tuple[Space, RunConfig]:
    """The method, with a bank of every mu_i that a trial may ask for and of no average at all.

    Optuna draws levels: of mu_s, dense where it matters, and of the residual that sets mu_i = residual^(1/N). Levels,
    because trials of one mu_s share their first phase whatever their mu_i, as its bank has all of them. The method's
    own values, a recipe's for instance, are levels too, and the first anchor.
    """
    method = options.method()
    own = getattr(method, "mu_s", None)  # None: it has no self-teacher
    levels = [] if own is None else sorted({*MU_S, own})
    residuals = sorted({*RESIDUALS, method.mu_i_residual}, reverse=True)

    def suggest(trial: optuna.Trial) -> dict[str, Any]:
        average = {"method.mu_s": levels[trial.suggest_int("mu_s_level", 0, len(levels) - 1)]} if levels else {}
        return {**average, "method.mu_i_residual": residuals[trial.suggest_int("mu_i_level", 0, len(residuals) - 1)]}

    level = residuals.index(method.mu_i_residual)
    anchors = [
        {"mu_s_level": levels.index(mu), "mu_i_level": level} for mu in dict.fromkeys((own, *PUBLISHED)) if levels
    ]
    if not levels:
        anchors = [{"mu_i_level": place} for place in dict.fromkeys((level, *range(len(residuals))))]
    lengths = {phase.steps for phase in method.phases()}
    bank = {0.0, *(heuristic_mu(r, steps) for r in (*residuals, *BANK_ONLY) for steps in lengths)}
    banked = options.method(mu_i=None, mu_i_bank=tuple(sorted(bank)), mu_i_bank_phases="all")
    banked = replace(banked, mu_i=None)  # the residual decides, also where a method has another default
    return Space(suggest, tuple(anchors)), options.run(banked, per_phase=4)


if __name__ == "__main__":
    sweep_command("mu_search", __doc__, plan)
