"""Population-based training (Jaderberg et al. 2017, arXiv 1711.09846) of lr and mu_s, as a search space over stages.

A member's run is cut into parts; after each, the worst members go on from the best ones' weights with perturbed
settings. Here a part of a member is one trial: its run has the whole path of settings so far, and all but its last
part is found ready among the stages, bit for bit. Nothing is copied between running processes, and what a member
became can be trained again by itself from its path.
"""

from __future__ import annotations

import math
import random
from typing import Any

import optuna
from optuna.trial import FrozenTrial, TrialState

from tract_ray.config import require
from tract_ray.distillation import derive_seed
from tract_ray.search.space import Space
from tract_ray.search.study import CHANGES

PARENT = "parent"


def population(
    members: int,
    parts: int,
    *,
    lr: tuple[float, float],
    rate: tuple[float, float] = (0.01, 0.9),
    quantile: float = 0.25,
    factor: float = 1.5,
    seed: int = 0,
) -> Space:
    """A space of `members` x `parts` trials over lr and the self-teacher's rate 1 - mu_s.

    At the end of each part the worst `quantile` of the members take over the path of one of the best `quantile`; their
    lr and rate are multiplied or divided by `factor` each. The others go on as they are.
    """
    require(members >= 2, "members", f"must be at least 2, got {members}")
    require(parts >= 2, "parts", f"must be at least 2, got {parts}")
    require(factor > 1, "factor", f"must be above 1, got {factor}")
    require(0 < quantile <= 0.5, "quantile", f"must be in (0, 0.5], got {quantile}")
    ends = max(1, round(members * quantile))

    def generation(study: optuna.Study, part: int) -> list[FrozenTrial]:
        trials: list[FrozenTrial] = study.get_trials(deepcopy=False)
        return trials[part * members : (part + 1) * members]

    def ready(study: optuna.Study, number: int) -> bool:
        earlier = generation(study, number // members - 1) if number >= members else []
        return all(trial.state.is_finished() for trial in earlier)

    def suggest(trial: optuna.Trial) -> dict[str, Any]:
        member, part = trial.number % members, trial.number // members
        earlier = generation(trial.study, part - 1) if part else []
        ranked = sorted((t for t in earlier if t.state == TrialState.COMPLETE), key=lambda t: t.values[0])
        if not ranked:  # the first part, or nobody is left of the one before
            lrs, rates = [trial.suggest_float("lr", *lr, log=True)], [trial.suggest_float("rate", *rate, log=True)]
            return changes(lrs * (part + 1), rates * (part + 1), part)
        own = next((t for t in ranked if t.number % members == member), None)
        draw = random.Random(derive_seed("population", seed, trial.number))
        if own is None or own in ranked[ends:][-ends:]:
            parent = draw.choice(ranked[:ends])
            lrs, rates = path(parent, part)
            lrs.append(perturbed(lrs[-1], lr, draw))
            rates.append(perturbed(rates[-1], rate, draw))
        else:
            parent = own
            lrs, rates = path(parent, part)
            lrs.append(lrs[-1])
            rates.append(rates[-1])
        trial.set_user_attr(PARENT, parent.number)
        return changes(lrs, rates, part)

    def perturbed(value: float, bounds: tuple[float, float], draw: random.Random) -> float:
        return min(max(value * factor ** draw.choice((-1, 1)), bounds[0]), bounds[1])

    def path(parent: FrozenTrial, part: int) -> tuple[list[float], list[float]]:
        known = parent.user_attrs[CHANGES]
        return known["method.lr_path"][:part], [1 - mu for mu in known["method.mu_s_path"][:part]]

    def changes(lrs: list[float], rates: list[float], part: int) -> dict[str, Any]:
        rest = parts - part - 1  # parts to come, which this run does not reach
        return {
            "method.lr_path": lrs + lrs[-1:] * rest,
            "method.mu_s_path": [1 - r for r in rates + rates[-1:] * rest],
            "parts": part + 1,
        }

    middle = {"lr": math.sqrt(lr[0] * lr[1]), "rate": 0.5}
    return Space(suggest, (middle,), ready=ready, count=members * parts)
