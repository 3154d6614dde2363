"""CMA-ES whose state is the study's finished trials: nothing that a database holds is ever unpickled."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from optuna._transform import _SearchSpaceTransform
from optuna.distributions import BaseDistribution
from optuna.samplers import CmaEsSampler
from optuna.study import Study
from optuna.trial import FrozenTrial, TrialState

from tract_ray.search.grid_points import note_of_trial

if TYPE_CHECKING:
    from cmaes import CMA


class CovarianceSampler(CmaEsSampler):  # type: ignore[misc]
    """Optuna's CMA-ES of one minimised objective, told all generations again for every suggestion.

    Optuna's keeps the optimiser as a pickle in the storage and loads what it finds there: who can write to a study
    runs what they like in whoever resumes it. What the optimiser has learnt is a function of what it was told, and
    telling some hundred trials again takes milliseconds. Hansen, The CMA Evolution Strategy: A Tutorial (2016).
    """

    GENERATION = "cma:generation"  # Optuna's own name, so that a study that was begun with it goes on

    def __init__(self, seed: int, **options: Any) -> None:
        super().__init__(seed=seed, **options)
        self.seed = seed

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """A point of the generation that is open; {} before the first trial has ended."""
        told = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
        if not told or not search_space:
            return {}
        cube = _SearchSpaceTransform(search_space, transform_0_1=True)
        optimiser = self.optimiser(told, cube)
        note_of_trial(study, trial, self.GENERATION, optimiser.generation)
        return dict(cube.untransform(optimiser.ask()))

    def optimiser(self, told: list[FrozenTrial], cube: _SearchSpaceTransform) -> CMA:
        """What the finished trials make of a new one, begun as Optuna's is: central, a sixth of the range wide."""
        from cmaes import CMA

        # As they ended: one that ends after its generation was full stays out, now and later.
        told = sorted(told, key=lambda trial: (trial.datetime_complete, trial.number))
        optimiser = CMA(
            mean=cube.bounds.mean(axis=1),
            sigma=1 / 6,
            bounds=cube.bounds,
            n_max_resampling=10 * len(cube.bounds),
            seed=self.seed,
        )
        while True:
            members = [trial for trial in told if trial.system_attrs.get(self.GENERATION) == optimiser.generation]
            if len(members) < optimiser.population_size:
                return optimiser
            members = members[: optimiser.population_size]
            optimiser.tell([(cube.transform(trial.params), trial.value) for trial in members])
