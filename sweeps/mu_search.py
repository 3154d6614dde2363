"""Which self-teacher average mu_s and which inference average mu_i give the best one-step student?

Runs TRACT with a fixed time schedule; Optuna chooses mu_s and the average that ends each phase, and every trial
scores a bank of mu_i. Paper: Berthelot et al. 2023, tables 4 and 5 (mu_s best at 0.5, flat in [0.1, 0.9]).
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that a checkout works without being installed

import optuna

from tract_ray.tuning.cli import sweep_command
from tract_ray.tuning.space import Space


def suggest(trial: optuna.Trial) -> dict[str, Any]:
    """mu_s by its rate 1 - mu_s, and the residual that sets mu_i = residual^(1/N); both over orders of magnitude."""
    rate = trial.suggest_float("mu_s_rate", 1e-3, 1.0, log=True)
    residual = trial.suggest_float("mu_i_residual", 1e-6, 0.3, log=True)
    return {"method.mu_s": 1 - rate, "method.mu_i_residual": residual}


ANCHORS = tuple({"mu_s_rate": rate, "mu_i_residual": 1e-3} for rate in (0.5, 1.0, 0.1, 0.01, 1e-3))

if __name__ == "__main__":
    sweep_command("mu_search", __doc__, Space(suggest, ANCHORS), bank_residuals=(0.3, 0.1, 1e-2, 1e-4, 1e-6, 1e-12))
