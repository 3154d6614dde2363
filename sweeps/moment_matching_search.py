"""Which settings give moment matching its best few-step generator?

The sampler's steps (1 to 16), the learning rate and its warm-up, the batch's weight over noise levels and the average
that is sampled from. Paper: Salimans et al. 2024; the best evaluation of each run is what counts.
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

KINDS = ("moment_matching", "moment_matching_instant")
STEPS = (1, 2, 4, 8, 16)


def suggest(trial: optuna.Trial) -> dict[str, Any]:
    """One sampler for the whole search would hide that fewer steps want other settings."""
    return {
        "method.sampling_steps": STEPS[trial.suggest_int("steps_level", 0, len(STEPS) - 1)],
        "method.lr": trial.suggest_float("lr", 1e-4, 3e-3, log=True),
        "method.warmup": trial.suggest_int("warmup", 0, 1000, step=100),
        "method.weighting": trial.suggest_categorical("weighting", ["uniform", "truncated_snr", "snr_plus_one"]),
    }


def plan(options: Options) -> tuple[Space, RunConfig]:
    """Moment matching with an auxiliary denoiser, scored four times on its way."""
    method = options.method(options.only(*KINDS) if options.kind else KINDS[0])
    start = {"lr": method.lr, "warmup": 200, "weighting": "uniform"}
    anchors = tuple({"steps_level": STEPS.index(steps), **start} for steps in (8, 1))
    return Space(suggest, anchors), options.run(method, per_phase=4)


if __name__ == "__main__":
    sweep_command("moment_matching_search", __doc__, plan)
