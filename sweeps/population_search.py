"""Which learning rate and mu_s, at which time of the run?

Population-based training: members that do badly go on from the weights of those that do well, with perturbed settings.
Each part of a member is a trial; `--trials` is a multiple of the four parts. Its result is a path of settings, which
`tract-ray distill --set lr_path=… --set mu_s_path=…` trains again by itself.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # so that a checkout works without being installed

from tract_ray.cli.sweep_script import sweep_command
from tract_ray.search.population import population
from tract_ray.search.space import Space
from tract_ray.sweep.options import TRACT, Options
from tract_ray.training import RunConfig

PARTS = 4


def plan(options: Options) -> tuple[Space, RunConfig]:
    """A tenth to three times the recipe's lr; mu_s from 0.1 to 0.99."""
    method = options.method(options.only(*TRACT))
    space = population(options.trials // PARTS, PARTS, lr=(method.lr / 10, method.lr * 3), seed=options.seed)
    return space, options.run(method, per_phase=PARTS // 2)


DEFAULTS = {"trials": 24, "pruner": "none"}

if __name__ == "__main__":
    sweep_command("population_search", __doc__, plan, **DEFAULTS)
